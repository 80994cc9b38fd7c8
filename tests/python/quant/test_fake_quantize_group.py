# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fake_quantize import fake_quantize as reference
from torch import Tensor

import torchslim as ts

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(1, 4),
    st.data(),
    st.sampled_from(DTYPES),
    st.integers(0, 2**31),
)
def test_each_group_equals_the_written_out_loop(
    groups: list[int], group_size: int, data: st.DataObject, dtype: torch.dtype, seed: int
) -> None:
    axis = data.draw(st.integers(-len(groups), len(groups) - 1))
    shape = list(groups)
    shape[axis] *= group_size
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * 3).to(dtype).requires_grad_()
    scale = torch.rand(groups, generator=generator) + 0.05
    zero_point = torch.randint(-4, 4, groups, generator=generator, dtype=torch.int32)
    y = ts.quant.fake_quantize_group(x, scale, zero_point, -8, 7, group_size, axis)
    (grad,) = torch.autograd.grad(y.sum(), x)
    spread = [numbers.repeat_interleave(group_size, axis).flatten() for numbers in (scale, zero_point)]
    values, passes = reference(x.detach().flatten(), spread[0], spread[1], -8, 7, axis=0)
    assert torch.equal(y.flatten(), values) and torch.equal(grad.flatten(), passes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout(dtype: torch.dtype) -> None:
    x = torch.randn(4, 8, 6, 4).to(dtype)
    scale, zero_point = torch.rand(4, 2, 1, 1) + 0.05, torch.zeros(1, 2, 1, 1)
    expected = ts.quant.fake_quantize_group(x, scale, zero_point, -8, 7, 4, axis=1)
    last = x.to(memory_format=torch.channels_last)
    assert torch.equal(ts.quant.fake_quantize_group(last, scale, zero_point, -8, 7, 4, axis=1), expected)
    turned = ts.quant.fake_quantize_group(x.transpose(0, 3), scale.transpose(0, 3), zero_point, -8, 7, 4, axis=1)
    assert torch.equal(turned.transpose(0, 3), expected)
    assert ts.quant.fake_quantize_group(x[:0], scale[:0], zero_point, -8, 7, 4, axis=1).shape == (0, 8, 6, 4)


def test_one_group_is_a_channel_and_groups_of_one_are_a_grid_each() -> None:
    x, scale = torch.randn(6, 8), torch.rand(6, 1) + 0.05
    zeros = torch.zeros(6, 1, dtype=torch.int32)
    row = ts.quant.fake_quantize(x, scale.flatten(), zeros.flatten(), -8, 7, axis=0)
    assert torch.equal(ts.quant.fake_quantize_group(x, scale, zeros, -8, 7, 8), row)
    each = torch.rand(6, 8) + 0.05
    assert torch.equal(
        ts.quant.fake_quantize_group(x, each, torch.zeros(6, 8), -8, 7, 1),
        ts.quant.fake_quantize(x.flatten(), each.flatten(), torch.zeros(48), -8, 7, axis=0).view(6, 8),
    )


def test_keeps_one_bit_per_element() -> None:
    x = torch.randn(16, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ts.quant.fake_quantize_group(x, torch.ones(16, 2), torch.zeros(16, 2), -8, 7, 32)
    assert sum(t.nbytes for t in kept) == 16 * 64 // 8


def test_compiles_whole_and_exports() -> None:
    class Rounds(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ts.quant.fake_quantize_group(x, torch.ones(3, 2), torch.zeros(3, 2), -8, 7, 4)

    x = torch.randn(3, 8)
    assert torch.equal(torch.compile(Rounds(), fullgraph=True, backend="aot_eager")(x), Rounds()(x))
    assert torch.equal(torch.export.export(Rounds(), (x,)).module()(x), Rounds()(x))


@pytest.mark.parametrize(
    ("scale", "group_size", "axis", "message"),
    [
        (torch.ones(3, 2), 3, -1, "group_size must be ≥ 1 and divide dimension 1, which has 8 elements, got 3"),
        (torch.ones(3, 2), 0, -1, "group_size"),
        (torch.ones(3, 4), 4, -1, r"scale must have shape \[3, 2\]"),
        (torch.ones(2), 4, -1, r"scale must have shape \[3, 2\]"),
        (torch.ones(3, 1), 4, -1, r"scale must have shape \[3, 2\]"),
        (torch.ones(3, 2), 4, 2, "axis"),
        (-torch.ones(3, 2), 4, -1, r"torchslim::fake_quantize_group: scale must be > 0, got -1 in group \[0, 0\]"),
    ],
)
def test_bad_arguments_are_refused(scale: Tensor, group_size: int, axis: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ts.quant.fake_quantize_group(torch.rand(3, 8), scale, torch.zeros_like(scale), -8, 7, group_size, axis)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="torchslim::fake_quantize_group"):
        ts.quant.fake_quantize_group(torch.arange(8), torch.ones(2), torch.zeros(2), -8, 7, 4)
    with pytest.raises(TypeError, match="torchslim::fake_quantize_group: scale must be a floating-point tensor"):
        ts.quant.fake_quantize_group(torch.rand(8), torch.ones(2, dtype=torch.int32), torch.zeros(2), -8, 7, 4)
