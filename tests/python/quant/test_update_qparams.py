# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim::update_qparams`, `torchslim::l2_range` and its like: what `FakeQuantize` runs after an observer."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import torchslim as ts  # noqa: F401  registers the operators
from torchslim.quant import channel_qparams, choose_qparams

update_qparams = torch.ops.torchslim.update_qparams


def grid(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.full(shape, 7.0), torch.full(shape, 3, dtype=torch.int32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_writes_the_grid_of_each_range(symmetric: bool, per_channel: bool) -> None:
    low, high = -torch.rand(2, 3), torch.rand(2, 3) * 1e-2
    scale, zero_point = grid(2, 3)
    update_qparams(low, high, scale, zero_point, -127, 127, symmetric, per_channel)
    expected = (channel_qparams if per_channel else choose_qparams)(low, high, -127, 127, symmetric)
    assert torch.equal(scale, expected[0]) and torch.equal(zero_point, expected[1])


def test_leaves_the_grid_where_nothing_was_seen() -> None:
    low, high = torch.tensor([-1.0, math.inf]), torch.tensor([1.0, -math.inf])
    scale, zero_point = grid(2)
    update_qparams(low, high, scale, zero_point, -128, 127, False, True)
    assert scale[0] == torch.tensor(2.0) / 255 and scale[1] == 7 and zero_point[1] == 3


def test_writes_through_strides_and_nothing_into_empty_tensors() -> None:
    low, high = torch.tensor([[-1.0, 9.0], [-2.0, 9.0]])[:, 0], torch.tensor([1.0, 2.0])
    wide, zero_point = grid(2, 2)
    update_qparams(low, high, wide[:, 1], zero_point[:, 1], -127, 127, True, True)
    assert wide[:, 0].tolist() == [7, 7] and torch.equal(wide[:, 1], high / 127)
    update_qparams(low[:0], high[:0], *grid(0), -127, 127, True, True)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (math.nan, 1.0, "finite and in order where something was seen, got nan and 1"),
        (0.0, math.inf, "finite and in order"),
        (2.0, 1.0, "finite and in order where something was seen, got 2 and 1"),
    ],
)
def test_a_broken_range_is_refused_and_changes_nothing(low: float, high: float, message: str) -> None:
    scale, zero_point = grid(2)
    with pytest.raises(ValueError, match=f"torchslim::update_qparams: min_val and max_val must be {message}"):
        update_qparams(torch.tensor([0.0, low]), torch.tensor([1.0, high]), scale, zero_point, -8, 7, False, True)
    assert scale.tolist() == [7, 7] and zero_point.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quant_min": 7}, ValueError, "the grid has one point"),
        ({"quant_min": 8}, ValueError, "the range is empty: quant_min 8 > quant_max 7"),
        ({"max_val": torch.ones(3)}, ValueError, r"max_val must have shape \[2\], got shape \[3\]"),
        ({"min_val": torch.ones(2).double()}, TypeError, "min_val must be Float, got Double"),
        ({"scale": torch.ones(2).half()}, TypeError, "scale must be Float, got Half"),
        ({"zero_point": torch.ones(2)}, TypeError, "zero_point must be Int, got Float"),
        ({"scale": torch.ones(2, device="meta")}, ValueError, "scale must be on the input's device cpu, got meta"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    scale, zero_point = grid(2)
    arguments = {"min_val": torch.zeros(2), "max_val": torch.ones(2), "scale": scale, "zero_point": zero_point}
    rule = {"quant_min": -8, "quant_max": 7, "symmetric": False, "per_channel": True}
    with pytest.raises(error, match=f"torchslim::update_qparams: {message}"):
        update_qparams(**{**arguments, **rule, **change})


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        (torch.ops.torchslim.l2_range, (16,)),
        (torch.ops.torchslim.percentile_range, (99.0,)),
        (torch.ops.torchslim.mse_range, (-8, 7, False)),
        (torch.ops.torchslim.entropy_range, (-8, 7, False)),
    ],
)
def test_a_search_is_an_op_and_keeps_to_what_was_seen(
    search: torch._ops.OpOverloadPacket, rule: tuple[Any, ...]
) -> None:
    histogram = torch.zeros(3, 64, dtype=torch.int64)
    low, high = torch.full((3,), math.inf), torch.full((3,), -math.inf)
    x = torch.randn(3, 500)
    torch.ops.torchslim.observe_histogram(x, histogram, low, high, 0)
    chosen = search(histogram, low, high, *rule)
    assert torch.equal(low, x.amin(1)) and (chosen[0] >= low).all() and (chosen[1] <= high).all()
    shapes = search(histogram.to("meta"), low.to("meta"), high.to("meta"), *rule)
    assert [tensor.shape for tensor in shapes] == [(3,), (3,)] and shapes[0].is_meta
    with pytest.raises(ValueError, match=f"torchslim::{search.__name__}: min_val must be on the input's device cpu"):
        search(histogram, low.to("meta"), high, *rule)
    with pytest.raises(TypeError, match="histogram must be int64, got Float"):
        search(histogram.float(), low, high, *rule)
