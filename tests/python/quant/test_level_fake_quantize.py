# SPDX-License-Identifier: BSD-3-Clause
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import (
    DTYPES,
    LAYOUTS,
    assert_compiles_whole,
    assert_keeps_the_type_under_autocast,
    assert_same_bits,
    exported_ops,
    gradient,
    saved_bytes,
    with_instruction_sets,
    with_threads,
)
from reference.level_fake_quantize import level_fake_quantize as reference
from torch import Tensor

import torchslim as ts

APOT = ts.quant.apot_levels(4)


def table(n: int, seed: int = 0) -> Tensor:
    """n levels without any order in their distances."""
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)).unique()


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_written_out_loop_in_every_layout(dtype: torch.dtype, layout: str, axis: int | None) -> None:
    x = LAYOUTS[layout](torch.randn(2, 8, 4, 3).to(dtype)).requires_grad_()
    if axis is not None and axis >= x.dim():
        return
    scale = torch.tensor(0.7) if axis is None else torch.rand(x.shape[axis]) + 0.3
    y = ts.quant.level_fake_quantize(x, APOT, scale, axis)
    values, passes = reference(x.detach(), APOT, scale, axis)
    assert_same_bits(y.detach(), values)
    assert y.stride() == torch.empty_like(x).stride()
    grad = torch.randn_like(x)
    assert_same_bits(gradient(y, x, grad), grad * passes)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 15, 16, 17, 31, 33, 64, 200, 256, 257])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_levels(dtype: torch.dtype, count: int) -> None:
    levels = table(count)
    x = torch.cat([torch.randn(83), levels, (levels[1:] + levels[:-1]) / 2]).to(dtype).requires_grad_()
    scale = torch.tensor(1.0)
    y = ts.quant.level_fake_quantize(x, levels, scale)
    values, passes = reference(x.detach(), levels, scale)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


def test_65536_levels() -> None:
    levels = torch.arange(-32768, 32768).float()
    x = torch.linspace(-40000, 40000, 12345)
    expected = ts.quant.fake_quantize(x, 1.0, 0, -32768, 32767)
    assert torch.equal(ts.quant.level_fake_quantize(x, levels, 1.0), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_levels_round_as_fake_quantize(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(1000), torch.arange(-40, 40) * 0.0625]).to(dtype)
    levels = torch.arange(-8, 8).float()
    expected = ts.quant.fake_quantize(x, 0.125, 0, -8, 7)
    assert_same_bits(ts.quant.level_fake_quantize(x, levels, 0.125), expected)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(width=32), max_size=40),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20, unique=True),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.sampled_from(DTYPES),
)
def test_any_numbers_and_levels(elements: list[float], levels: list[float], scale: float, dtype: torch.dtype) -> None:
    ascending = torch.tensor(levels).unique()
    x = torch.tensor(elements, dtype=torch.float64).to(dtype).requires_grad_()
    y = ts.quant.level_fake_quantize(x, ascending, scale)
    values, passes = reference(x.detach(), ascending, torch.tensor(scale))
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_is_nearest(dtype: torch.dtype) -> None:
    levels = table(40)
    x = torch.randn(500).to(dtype)
    distance = (x.double().unsqueeze(1) - levels.double()).abs()
    y = levels[distance.argmin(1)].to(dtype)
    assert torch.equal(ts.quant.level_fake_quantize(x, levels, 1.0), y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_and_infinity_saturates(dtype: torch.dtype) -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf] * 12, dtype=dtype).requires_grad_()
    for levels in (APOT, table(100)):
        y = ts.quant.level_fake_quantize(x, levels, 0.5)
        low, high = (levels[[0, -1]] * 0.5).to(dtype)
        assert y[0::3].isnan().all() and (y[1::3] == high).all() and (y[2::3] == low).all()
        assert torch.equal(gradient(y, x, torch.ones_like(y)), torch.zeros_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_passthrough_passes_all(dtype: torch.dtype) -> None:
    x = (torch.randn(100) * 5).to(dtype).requires_grad_()
    y = ts.quant.level_fake_quantize(x, APOT, 1.0, gradient="passthrough")
    assert_same_bits(y.detach(), ts.quant.level_fake_quantize(x.detach(), APOT, 1.0))
    grad = torch.randn_like(x)
    assert_same_bits(gradient(y, x, grad), grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [15, 100])
def test_instruction_sets_and_threads_give_the_same_bits(dtype: torch.dtype, count: int) -> None:
    x = torch.cat([torch.randn(70000), torch.tensor([math.nan, math.inf, -0.0])]).to(dtype).requires_grad_()
    scale = torch.rand(70003) + 0.1

    def run() -> list[Tensor]:
        results = [
            ts.quant.level_fake_quantize(x, table(count), 0.5),
            ts.quant.level_fake_quantize(x, table(count), scale, 0),
        ]
        return results + [gradient(y, x, torch.ones_like(x)) for y in results]

    expected = run()
    for other in (*with_instruction_sets(run), *with_threads(run)):
        for one, two in zip(expected, other, strict=True):
            assert_same_bits(one.detach(), two.detach())


@pytest.mark.parametrize("axis", [None, 0])
def test_outputs_written_past_the_cache(axis: int | None) -> None:
    x = torch.randn(5, (4 << 20) // 5 + 3)
    scale = torch.tensor(0.7) if axis is None else torch.rand(5) + 0.3
    y = ts.quant.level_fake_quantize(x, APOT, scale, axis)
    part = slice(None, None, 997)
    assert torch.equal(y[:, part], ts.quant.level_fake_quantize(x[:, part].contiguous(), APOT, scale, axis))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.tensor([0.0, 1.0, 0.5]), 1.0),
            r"torchslim::level_fake_quantize: levels must ascend strictly, got 1 ",
        ),
        ((torch.tensor([0.0, 1.0, 1.0]), 1.0), r"got 1 and then 1 at index 2; sort them and drop duplicates$"),
        ((torch.tensor([0.0, math.nan]), 1.0), r"levels must be finite, got nan at index 1$"),
        ((torch.tensor([0.0, math.inf]), 1.0), r"levels must be finite, got inf at index 1$"),
        ((torch.tensor([]), 1.0), r"levels must have shape \[n\] with n in \[1, 65536\], got shape \[0\]$"),
        ((torch.ones(2, 2), 1.0), r"levels must have shape \[n\] .*got shape \[2, 2\]$"),
        ((torch.arange(65537).float(), 1.0), r"got shape \[65537\]$"),
        ((APOT.to("meta"), 1.0), r"levels must be on the input's device cpu, got meta; move it with to\(\)$"),
        ((APOT, 0.0), r"scale must be > 0, got 0$"),
        ((APOT, -1.0), r"scale must be > 0, got -1$"),
        ((APOT, math.nan), r"scale must be > 0, got nan$"),
        ((APOT, 1e-42), r"scale must be a normal float32, got 1.00053e-42$"),
        ((APOT, torch.ones(3)), r"scale must have one element, got shape \[3\]; one scale per channel needs `axis`$"),
        ((APOT, torch.ones(3), 1), r"scale must have one element per channel, shape \[4\], got shape \[3\]$"),
        ((APOT, torch.tensor([1.0, -1.0]), 0), r"scale must be > 0, got -1 in channel 1$"),
        ((APOT, torch.ones(4), 2), r"axis must be in \[-2, 1\] for a tensor of 2 dimensions, got 2$"),
        ((APOT, torch.ones(4, device="meta"), 1), r"scale must be on the input's device cpu, got meta"),
        ((APOT.clone().requires_grad_(), 1.0), r"levels requires grad, but .*; detach it$"),
        ((APOT, torch.tensor(1.0, requires_grad=True)), r"scale requires grad, but .*; detach it$"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., Tensor] = ts.quant.level_fake_quantize
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4), *arguments)


def test_other_types_and_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match=r"level_fake_quantize: expected a float32, .* got Int; convert it first"):
        ts.quant.level_fake_quantize(torch.zeros(2, dtype=torch.int32), APOT, 1.0)
    with pytest.raises(TypeError, match=r"levels must be a dense floating-point tensor, got Long"):
        ts.quant.level_fake_quantize(torch.zeros(2), torch.arange(3), 1.0)
    with pytest.raises(ValueError, match=r"gradient must be `clipped` or `passthrough`, got `none`"):
        ts.quant.level_fake_quantize(torch.zeros(2), APOT, 1.0, gradient="none")


@pytest.mark.parametrize("rule", ["clipped", "passthrough"])
def test_double_backward_is_refused_by_name(rule: str) -> None:
    x = torch.randn(8, requires_grad=True)
    y = ts.quant.level_fake_quantize(x, APOT, 1.0, gradient=rule)
    (grad,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="torchslim::level_fake_quantize: the gradient cannot be diff"):
        grad.sum().backward()


def test_keeps_one_bit_per_element_or_nothing() -> None:
    x = torch.randn(1001, requires_grad=True)
    assert saved_bytes(lambda: ts.quant.level_fake_quantize(x, APOT, 1.0)) == [126]
    assert saved_bytes(lambda: ts.quant.level_fake_quantize(x, APOT, 1.0, gradient="passthrough")) == []


def test_autocast_keeps_the_type() -> None:
    assert_keeps_the_type_under_autocast(lambda x: ts.quant.level_fake_quantize(x, APOT, 1.0))


@pytest.mark.parametrize(("axis", "rule"), list(itertools.product([None, 1], ["clipped", "passthrough"])))
def test_compiles_whole_with_the_same_bits(axis: int | None, rule: str) -> None:
    scale = torch.tensor(0.5) if axis is None else torch.rand(6) + 0.1

    def loss(x: Tensor) -> Tensor:
        return (ts.quant.level_fake_quantize(x * 2, APOT, scale, axis, gradient=rule) ** 2).sum()

    assert_compiles_whole(loss, torch.randn(4, 6, requires_grad=True))


def test_exports_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return ts.quant.level_fake_quantize(x, APOT, scale)

    nodes = exported_ops(Model(), torch.randn(4), torch.tensor(1.0))
    assert nodes.count(torch.ops.torchslim.level_fake_quantize.default) == 1
    assert all("lift" in str(node) or "torchslim" in str(node) or "detach" in str(node) for node in nodes)
