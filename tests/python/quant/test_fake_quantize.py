# SPDX-License-Identifier: BSD-3-Clause
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import DTYPES, LAYOUTS, assert_compiles_whole, assert_same_bits, exported_ops, gradient
from reference.fake_quantize import fake_quantize as reference
from torch import Tensor

import torchslim as ts
from torchslim import _C


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_aten_in_every_layout(dtype: torch.dtype, layout: str) -> None:
    x = LAYOUTS[layout]((torch.randn(3, 16, 7, 5) * 3).to(dtype)).requires_grad_()
    grad = torch.randn_like(x)
    ours = ts.quant.fake_quantize(x, 0.0371, 3, -128, 127)
    aten = torch.fake_quantize_per_tensor_affine(x, 0.0371, 3, -128, 127)
    assert_same_bits(ours, aten)
    assert ours.stride() == torch.empty_like(x).stride()
    assert_same_bits(gradient(ours, x, grad), gradient(aten, x, grad))


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "every second", "empty"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_aten_per_channel(dtype: torch.dtype, layout: str, axis: int) -> None:
    x = LAYOUTS[layout]((torch.randn(3, 20, 7, 5) * 3).to(dtype)).requires_grad_()
    if x.shape[axis] == 0:
        return  # ATen refuses what has no channels
    grad = torch.randn_like(x)
    scale = torch.rand(x.shape[axis]) * 0.1 + 0.01
    zero_point = torch.randint(-128, 128, scale.shape, dtype=torch.int32)
    ours = ts.quant.fake_quantize(x, scale, zero_point, -128, 127, axis)
    aten = torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, -128, 127)
    assert_same_bits(ours, aten)
    assert_same_bits(ours, ts.quant.fake_quantize(x, scale, zero_point, -128, 127, axis - 4))
    assert_same_bits(gradient(ours, x, grad), gradient(aten, x, grad))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_large_tensors_equal_aten_on_any_number_of_threads(threads: int, axis: int | None) -> None:
    x = (torch.randn(300, 1001) * 3).requires_grad_()
    grad = torch.randn_like(x)
    if axis is None:
        ours = ts.quant.fake_quantize(x, 0.05, 3, -128, 127)
        aten = torch.fake_quantize_per_tensor_affine(x, 0.05, 3, -128, 127)
    else:
        scale, zero_point = torch.rand(x.shape[axis]) + 0.01, torch.zeros(x.shape[axis], dtype=torch.int32)
        ours = ts.quant.fake_quantize(x, scale, zero_point, -4, 3, axis)
        aten = torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, -4, 3)
    assert_same_bits(ours, aten)
    assert_same_bits(gradient(ours, x, grad), gradient(aten, x, grad))


@st.composite
def grids(draw: st.DrawFn) -> tuple[float, int, int, int]:
    quant_min = draw(st.integers(-(2**15), 2**15))
    quant_max = draw(st.integers(quant_min, 2**15))
    return draw(st.floats(2.0**-20, 2.0**20, width=32)), draw(st.integers(quant_min, quant_max)), quant_min, quant_max


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.floats(width=32), st.floats(-300, 300, width=16)), max_size=40),
    grids(),
    st.sampled_from(DTYPES),
)
def test_equals_the_written_out_loop(
    elements: list[float], grid: tuple[float, int, int, int], dtype: torch.dtype
) -> None:
    x = torch.tensor(elements, dtype=torch.float64).to(dtype).requires_grad_()
    y = ts.quant.fake_quantize(x, *grid)
    values, passes = reference(x.detach(), *grid)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(y)), passes)


@settings(max_examples=60, deadline=None)
@given(st.lists(grids(), min_size=1, max_size=6), st.integers(1, 20), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_channels_equal_the_written_out_loop(
    channels: list[tuple[float, int, int, int]], size: int, dtype: torch.dtype, seed: int
) -> None:
    quant_min, quant_max = min(g[2] for g in channels), max(g[3] for g in channels)
    scale = torch.tensor([g[0] for g in channels])
    zero_point = torch.tensor([g[1] for g in channels])
    x = (torch.randn(size, len(channels), generator=torch.Generator().manual_seed(seed)) * 100).to(dtype)
    for axis, sample in [(1, x), (0, x.t().contiguous()), (0, x.t())]:
        sample = sample.detach().requires_grad_()
        y = ts.quant.fake_quantize(sample, scale, zero_point, quant_min, quant_max, axis)
        values, passes = reference(sample.detach(), scale, zero_point, quant_min, quant_max, axis)
        assert_same_bits(y.detach(), values)
        assert_same_bits(gradient(y, sample, torch.ones_like(y)), passes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=16), max_size=40),
    st.sampled_from([(0.0, None), (0.0, 6.0), (-1.0, 1.0), (None, 2.0)]),
    grids(),
    st.sampled_from(DTYPES),
)
def test_clamp_fake_quantize_equals_the_written_out_loop(
    elements: list[float],
    clamp: tuple[float | None, float | None],
    grid: tuple[float, int, int, int],
    dtype: torch.dtype,
) -> None:
    x = torch.tensor(elements, dtype=dtype).requires_grad_()
    scale, zero_point, quant_min, quant_max = grid
    y = torch.ops.torchslim.clamp_fake_quantize(
        x, torch.tensor(scale), torch.tensor(zero_point), quant_min, quant_max, *clamp
    )
    low, high = -math.inf if clamp[0] is None else clamp[0], math.inf if clamp[1] is None else clamp[1]
    values, passes = reference(x.detach(), *grid, clamp_min=low, clamp_max=high)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(y)), passes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_give_the_same_bits(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(1000) * 10, torch.tensor([math.nan, math.inf, -math.inf, 3e38, -0.0, 0.5, 1.5])])
    x = x.to(dtype).requires_grad_()
    scale, zero_point = torch.rand(1007) + 0.01, torch.arange(1007) % 16 - 8

    def run() -> list[Tensor]:
        results = [
            ts.quant.fake_quantize(x, 0.1, 3, -8, 7),
            ts.quant.fake_quantize(x, scale, zero_point, -8, 7, axis=0),
        ]
        return results + [gradient(y, x, torch.arange(1007).to(dtype)) for y in results]

    try:
        _C.force_cpu_capability("portable")
        portable = run()
    finally:
        _C.force_cpu_capability(None)
    for one, other in zip(portable, run(), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0])
def test_nan_stays_and_infinity_saturates(dtype: torch.dtype, axis: int | None) -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype).requires_grad_()
    scale, zero_point = (0.5, 1) if axis is None else (torch.full((3,), 0.5), torch.ones(3, dtype=torch.int32))
    y = ts.quant.fake_quantize(x, scale, zero_point, -8, 7, axis)
    assert y[0].isnan() and y[1] == 3 and y[2] == -4.5
    assert torch.equal(gradient(y, x, torch.ones_like(y)), torch.zeros_like(x))


def test_numbers_and_tensors_are_the_same_grid() -> None:
    x = torch.randn(100)
    expected = ts.quant.fake_quantize(x, 0.1, 3, -8, 7)
    for scale in (torch.tensor(0.1), torch.tensor([0.1]), torch.tensor(0.1, dtype=torch.float64)):
        for zero_point in (3, torch.tensor(3), torch.tensor([3], dtype=torch.int8), torch.tensor(3.0)):
            assert torch.equal(ts.quant.fake_quantize(x, scale, zero_point, -8, 7), expected)
    assert torch.equal(ts.quant.fake_quantize(x, 0.1, torch.tensor(3), -8, 7), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0, -128, 127), r"torchslim::fake_quantize: scale must be > 0, got -1$"),
        ((0.0, 0, -128, 127), r"torchslim::fake_quantize: scale must be > 0, got 0$"),
        ((math.nan, 0, -128, 127), r"scale must be > 0, got nan$"),
        ((math.inf, 0, -128, 127), r"scale must be a normal float32, got inf$"),
        ((1e-42, 0, -128, 127), r"scale must be a normal float32, got 1e-42$"),
        ((1.0, 128, -128, 127), r"zero_point must be in \[quant_min, quant_max\] = \[-128, 127\], got 128$"),
        ((1.0, 1.5, -128, 127), r"zero_point must be a whole number, got 1.5$"),
        ((1.0, torch.tensor(1.5), -128, 127), r"zero_point must be a whole number, got 1.5$"),
        ((1.0, torch.tensor(math.nan), -128, 127), r"zero_point must be a whole number, got nan$"),
        ((1.0, 0, 7, -8), r"the range is empty: quant_min 7 > quant_max -8$"),
        (
            (1.0, 0, -(2**31), 127),
            r"quant_min and quant_max must be in \[-8388608, 8388608\], got -2147483648 and 127$",
        ),
        (
            (torch.ones(3), torch.zeros(3, dtype=torch.int32), -8, 7),
            r"one element, .*got shape \[3\]; .* needs `axis`$",
        ),
        (
            (torch.ones(3), torch.zeros(3, dtype=torch.int32), -8, 7, 1),
            r"one element per channel, shape \[4\], got .*3",
        ),
        ((torch.ones(4), torch.zeros(3, dtype=torch.int32), -8, 7, 1), r"zero_point must have scale's shape \[4\]"),
        (
            (torch.ones(4), torch.zeros(4, dtype=torch.int32), -8, 7, 2),
            r"axis must be in \[-2, 1\] for .* 2 dim.*got 2$",
        ),
        ((torch.tensor([1.0, -1.0]), torch.tensor([0, 0]), -8, 7, 0), r"scale must be > 0, got -1 in channel 1$"),
        ((torch.tensor([1.0, 1.0]), torch.tensor([0, 9]), -8, 7, 0), r"= \[-8, 7\], got 9 in channel 1$"),
        ((1.0, 0, -8, 7, 0), r"axis=0 needs scale and zero_point as 1-d tensors, got the numbers 1.0 and 0$"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., Tensor] = ts.quant.fake_quantize
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4), *arguments)


@pytest.mark.parametrize("x", [torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.complex64)])
def test_other_types_are_refused(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"torchslim::fake_quantize: expected a float32, .* got .*; convert it first"):
        ts.quant.fake_quantize(x, 1.0, 0, -8, 7)


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a dense tensor, got layout Sparse; call to_dense\(\) first"):
        ts.quant.fake_quantize(torch.eye(2).to_sparse(), 1.0, 0, -8, 7)


def test_a_scale_that_wants_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="scale requires grad"):
        ts.quant.fake_quantize(torch.zeros(2), torch.tensor(1.0, requires_grad=True), 0, -8, 7)


def test_double_backward_is_refused_by_name() -> None:
    x = torch.randn(8, requires_grad=True)
    (grad,) = torch.autograd.grad((ts.quant.fake_quantize(x, 0.1, 0, -8, 7) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="torchslim::fake_quantize: the gradient cannot be differentiated again"):
        grad.sum().backward()


def test_keeps_one_bit_per_element() -> None:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ts.quant.fake_quantize(torch.randn(1001, requires_grad=True), 0.1, 0, -8, 7)
    assert [tensor.nbytes for tensor in saved] == [126]


def test_a_gradient_in_another_layout_meets_its_bits() -> None:
    x = torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    y = ts.quant.fake_quantize(x, 0.1, 0, -8, 7)
    aten = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7)
    for grad in (
        torch.randn(2, 16, 5, 5),
        torch.randn(2, 1, 5, 5).expand_as(x),
        torch.randn(2, 5, 5, 16).permute(0, 3, 1, 2),
    ):
        assert_same_bits(
            torch.autograd.grad(y, x, grad, retain_graph=True)[0],
            torch.autograd.grad(aten, x, grad, retain_graph=True)[0],
        )


def test_autocast_keeps_the_type() -> None:
    x = torch.randn(10)
    with torch.autocast("cpu", torch.bfloat16):
        assert ts.quant.fake_quantize(x, 0.1, 0, -8, 7).dtype == torch.float32
        assert ts.quant.fake_quantize(x.bfloat16(), 0.1, 0, -8, 7).dtype == torch.bfloat16


@pytest.mark.parametrize("axis", [None, 1])
def test_compiles_whole_with_the_same_bits(axis: int | None) -> None:
    scale, zero_point = (torch.rand(6) + 0.1, torch.zeros(6, dtype=torch.int32)) if axis else (0.1, 0)

    def loss(x: Tensor) -> Tensor:
        return (ts.quant.fake_quantize(x * 2, scale, zero_point, -8, 7, axis) ** 2).sum()

    assert_compiles_whole(loss, torch.randn(4, 6, requires_grad=True))


def test_exports_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ts.quant.fake_quantize(x, 0.1, 0, -8, 7)

    assert exported_ops(Model(), torch.randn(4)) == [torch.ops.torchslim.fake_quantize.default]


def test_is_one_node_of_a_trace() -> None:
    traced = torch.jit.trace(lambda x: ts.quant.fake_quantize(x, 0.1, 0, -8, 7), torch.randn(4))
    kinds = [node.kind() for node in traced.graph.nodes()]
    assert [kind for kind in kinds if kind != "prim::Constant"] == ["torchslim::fake_quantize"]
