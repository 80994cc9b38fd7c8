# SPDX-License-Identifier: BSD-3-Clause
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import DTYPES, with_threads
from reference.gptq import gptq_codes
from torch import Tensor

from torchslim.quant import HessianAccumulator, gptq, round_weight, weight_scale


def correlated(rows: int, width: int, seed: int) -> Tensor:
    """Inputs as layers see them: few directions hold most of what there is."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)[:, None]
    return torch.randn(rows, width, generator=generator) @ mixing


def problem(out: int, width: int, rows: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, inputs and their Hessian."""
    x = correlated(rows, width, seed)
    hessian = HessianAccumulator((out, width))
    hessian.add(x)
    return torch.randn(out, width, generator=torch.Generator().manual_seed(seed + 1)), x, hessian.hessian()


def error(weight: Tensor, rounded: Tensor, x: Tensor) -> Tensor:
    """The mean squared error of each output."""
    return ((weight - rounded).double() @ x.double().T).square().mean(1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("block_size", [1, 5, 128])
def test_equals_the_reference(bits: int, act_order: bool, block_size: int) -> None:
    weight, _, hessian = problem(6, 17, seed=bits)
    grid = gptq(weight, hessian, bits, act_order=act_order, block_size=block_size)
    expected = gptq_codes(weight.double().numpy(), hessian[0].numpy(), bits, 0.01, act_order)
    assert np.array_equal(grid.codes.numpy(), expected)
    assert torch.equal(grid.scale, weight_scale(weight, bits))
    assert torch.equal(grid.weight, grid.codes * grid.scale[:, None])


def drifted(out: int, width: int, rows: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, HessianAccumulator]:
    """Weight, inputs in float, inputs as rounding has moved them, and what is accumulated of them."""
    weight, x, _ = problem(out, width, rows, seed)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 2))
    moved = x + 0.2 * x.roll(1, 1) + 0.01 * x.std() * noise
    hessian = HessianAccumulator((out, width))
    hessian.add(moved, x)
    return weight, x, moved, hessian


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_with_a_drift_equals_the_reference(bits: int, act_order: bool) -> None:
    weight, x, moved, hessian = drifted(6, 17, seed=bits)
    h, drift = hessian.hessian(), hessian.drift()
    grid = gptq(weight, h, bits, act_order=act_order, drift=drift, block_size=5)
    inputs = moved.double().numpy(), x.double().numpy()
    expected = gptq_codes(weight.double().numpy(), h[0].numpy(), bits, 0.01, act_order, inputs)
    assert np.array_equal(grid.codes.numpy(), expected)
    assert torch.equal(grid.scale, weight_scale(weight, bits))
    assert not torch.equal(grid.codes, gptq(weight, h, bits, act_order=act_order).codes)


@pytest.mark.parametrize("bits", [3, 4])
def test_with_a_drift_the_answer_is_nearer_to_the_float_one(bits: int) -> None:
    weight, x, moved, hessian = drifted(32, 64, rows=1000)
    wanted = x.double() @ weight.double().T

    def far(rounded: Tensor) -> Tensor:
        return (wanted - moved.double() @ rounded.double().T).square().mean(0)

    h, drift = hessian.hessian(), hessian.drift()
    ours = far(gptq(weight, h, bits, drift=drift).weight)
    assert ours.sum() < 0.5 * far(gptq(weight, h, bits).weight).sum()
    assert (ours <= far(round_weight(weight, bits).weight) * (1 + 1e-4)).all()
    assert torch.equal(gptq(weight, h, bits, drift=0 * drift).codes, gptq(weight, h, bits).codes)


def test_the_drift_of_groups_is_apart() -> None:
    x, moved, weight = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5), torch.randn(9, 2, 3, 3)
    hessian = HessianAccumulator(weight.shape, padding=1, groups=3)
    hessian.add(moved, x)
    h, drift = hessian.hessian(), hessian.drift()
    codes = gptq(weight, h, 3, drift=drift).codes
    for g in range(3):
        rows = slice(3 * g, 3 * g + 3)
        assert torch.equal(codes[rows], gptq(weight[rows], h[g], 3, drift=drift[g]).codes)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_beats_nearest(bits: int) -> None:
    weight, x, hessian = problem(32, 64, rows=1000)
    nearest = error(weight, round_weight(weight, bits).weight, x)
    for act_order in (False, True):
        ours = error(weight, gptq(weight, hessian, bits, act_order=act_order).weight, x)
        assert (ours <= nearest * (1 + 1e-6)).all()
        assert ours.sum() < 0.5 * nearest.sum()


@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(1, 6),
    width=st.integers(1, 20),
    rows=st.integers(1, 30),
    bits=st.integers(2, 8),
    damping=st.sampled_from([0.0, 0.01, 1.0]),
    act_order=st.booleans(),
    search=st.sampled_from(["absmax", "mse"]),
    seed=st.integers(0, 1000),
)
def test_never_worse_than_nearest(
    out: int, width: int, rows: int, bits: int, damping: float, act_order: bool, search: str, seed: int
) -> None:
    """Also with fewer rows than columns: a singular H."""
    weight, x, hessian = problem(out, width, rows, seed)
    grid = gptq(weight, hessian, bits, damping=damping, act_order=act_order, scale_search=search)
    nearest = round_weight(weight, bits, search)
    assert torch.equal(grid.scale, nearest.scale)
    assert grid.codes.abs().max() <= 2 ** (bits - 1) - 1
    assert (error(weight, grid.weight, x) <= error(weight, nearest.weight, x) * (1 + 1e-3) + 1e-9).all()


def test_groups_are_apart() -> None:
    x = torch.randn(4, 6, 5, 5)
    weight = torch.randn(9, 2, 3, 3)
    hessian = HessianAccumulator(weight.shape, padding=1, groups=3)
    hessian.add(x)
    grid = gptq(weight, hessian.hessian(), 3)
    for g in range(3):
        rows = slice(3 * g, 3 * g + 3)
        assert torch.equal(grid.codes[rows], gptq(weight[rows], hessian.hessian()[g], 3).codes)


def test_depthwise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.avg_pool2d(torch.randn(32, 8, 10, 10, generator=generator), 3, 1)  # near pixels are alike
    weight = torch.randn(8, 1, 3, 3, generator=generator)
    hessian = HessianAccumulator(weight.shape, groups=8)
    hessian.add(x)

    def output_error(rounded: Tensor) -> float:
        return float(torch.nn.functional.conv2d(x, rounded - weight, groups=8).square().mean())

    assert output_error(gptq(weight, hessian.hessian(), 3).weight) < output_error(round_weight(weight, 3).weight)


def test_inputs_that_are_always_zero_are_rounded_to_nearest() -> None:
    weight, x, _ = problem(4, 6)
    x[:, 2] = 0
    hessian = HessianAccumulator((4, 6))
    hessian.add(x)
    for damping in (0.0, 0.01):
        codes = gptq(weight, hessian.hessian(), 4, damping=damping).codes
        assert torch.equal(codes[:, 2], round_weight(weight, 4).codes[:, 2])
    assert torch.equal(gptq(weight, torch.zeros(6, 6)).codes, round_weight(weight, 4).codes)


def test_without_correlation_it_is_nearest() -> None:
    weight = torch.randn(5, 12)
    assert torch.equal(gptq(weight, torch.eye(12), 4).codes, round_weight(weight, 4).codes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keeps_the_type(dtype: torch.dtype) -> None:
    weight, _, hessian = problem(4, 6)
    grid = gptq(weight.to(dtype).requires_grad_(), hessian.to(dtype), 4)
    assert grid.weight.dtype == dtype and grid.scale.dtype == torch.float32 and grid.codes.dtype == torch.int8
    assert not grid.weight.requires_grad


def test_any_number_of_threads_gives_the_same_codes() -> None:
    weight, _, hessian = problem(64, 150)
    one, two = with_threads(lambda: gptq(weight, hessian, 4).codes)
    assert torch.equal(one, two)


def test_refuses() -> None:
    weight, _, hessian = problem(4, 6)
    for arguments, message in (
        ({"bits": 1}, r"bits must be in \[2, 8\], got 1$"),
        ({"scale_search": "best"}, r"scale_search must be `absmax` or `mse`, got `best`$"),
        ({"block_size": 0}, r"block_size must be >= 1, got 0$"),
        ({"damping": -1.0}, r"damping must be >= 0 and finite, got -1$"),
        ({"damping": math.nan}, r"damping must be >= 0 and finite, got nan$"),
        (
            {"hessian": hessian[:, :5, :5]},
            r"a weight \[4, 6\] needs a hessian of shape \(groups, 6, 6\), got \[1, 5, 5\]$",
        ),
        ({"hessian": hessian[0, 0]}, r"hessian must have shape \(groups, K, K\) or \(K, K\), got \[6\]$"),
        ({"hessian": hessian.expand(3, 6, 6)}, r"the hessian's 3 groups do not divide the weight's 4 output channels$"),
        ({"hessian": hessian * math.nan}, r"the hessian holds NaN or infinity$"),
        ({"drift": hessian[:, :5, :5]}, r"a weight \[4, 6\] needs a drift of shape \(groups, 6, 6\), got \[1, 5, 5\]$"),
        (
            {"drift": hessian.expand(2, 6, 6)},
            r"the drift must have the hessian's shape \[1, 6, 6\], got \[2, 6, 6\]$",
        ),
        ({"drift": hessian * math.inf}, r"the drift holds NaN or infinity$"),
        ({"hessian": -hessian}, r"the hessian of group 0 is not positive semidefinite"),
        ({"weight": weight * math.inf}, r"the weight holds NaN or infinity in channel 0$"),
        ({"weight": weight[:0]}, r"weight must be .* not empty, got shape \[0, 6\]$"),
    ):
        with pytest.raises(ValueError, match="torchslim::gptq: .*" + message):
            gptq(**{"weight": weight, "hessian": hessian, **arguments})
    with pytest.raises(TypeError, match=r"torchslim::gptq: expected a float32"):
        gptq(weight, hessian.to(torch.int32))
