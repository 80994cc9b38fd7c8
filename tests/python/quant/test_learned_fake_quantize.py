# SPDX-License-Identifier: BSD-3-Clause
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import DTYPES, LAYOUTS
from reference import learned_fake_quantize as reference
from reference.fake_quantize import fake_quantize as reference_values
from torch import Tensor

import torchslim as ts
from torchslim import _C

FILLED = [name for name in LAYOUTS if name not in ("empty", "0-dim")]


def aten(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, axis: int | None, factor: float) -> Tensor:
    """The peer; it wants one element of shape (1)."""
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero_point, low, high, factor)
    return torch._fake_quantize_learnable_per_channel_affine(x, scale, zero_point, axis, low, high, factor)


def grid_of(channels: int) -> tuple[Tensor, Tensor]:
    """A learned grid with zero points that ATen treats alike both ways: whole, and not negative per tensor."""
    scale = (torch.rand(channels) * 0.1 + 0.02).requires_grad_()
    return scale, torch.randint(0 if channels == 1 else -20, 20, (channels,)).float().requires_grad_()


def without_ties(dy: Tensor, x: Tensor, scale: Tensor, axis: int | None) -> Tensor:
    """`dy`, but 0 where x is half a step: there ATen's backward, which adds the zero point before it rounds, may take
    another code than its forward.
    """
    shape = [-1 if dim == axis else 1 for dim in range(x.dim())]
    position = x.detach() / scale.detach().reshape(shape)
    return torch.where((position - position.floor() - 0.5).abs() < 1e-3, 0.0, dy)


def gradients(y: Tensor, inputs: tuple[Tensor, ...], dy: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, dy)


def assert_close(ours: Tensor, expected: Tensor, magnitude: Tensor) -> None:
    """Within 1e-5 of what was summed up: the terms of either sign nearly cancel."""
    assert ours.shape == expected.shape
    error = (ours.double() - expected.double()).abs().flatten()
    assert (error <= 1e-5 * magnitude.flatten() + 1e-12).all(), (error / magnitude.flatten()).max()


def assert_equals_loop(
    x: Tensor, dy: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, axis: int | None, gradient: str
) -> None:
    """Values and all three gradients against the written-out loop."""
    rule = "none" if high <= 0 or x.numel() == 0 else "numel"
    y = ts.quant.learned_fake_quantize(x, scale, zero_point, low, high, axis, rule, gradient)
    whole = torch.tensor([reference.rounded_zero_point(z, low, high) for z in zero_point.reshape(-1).tolist()])
    values, _ = reference_values(x.detach(), scale.detach(), whole, low, high, axis)
    assert torch.equal(y.detach(), values)
    dx, d_scale, d_zero_point = gradients(y, (x, scale, zero_point), dy)
    factor = reference.grad_factor(x, high, axis, rule)
    expected = reference.learned_gradients(
        x.detach(), dy, scale.detach(), zero_point.detach(), low, high, axis, gradient, factor
    )
    assert torch.equal(dx, expected.x)
    assert_close(d_scale, expected.scale, expected.magnitude)
    outside = factor * scale.detach().double().flatten() * dy.double().abs().sum()
    assert_close(d_zero_point, expected.zero_point, outside)


# ---- against ATen ----


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("layout", FILLED)
def test_equals_aten_in_every_layout(layout: str, axis: int | None) -> None:
    x = LAYOUTS[layout](torch.randn(3, 16, 7, 5) * 3).requires_grad_()
    scale, zero_point = grid_of(1 if axis is None else x.shape[axis])
    dy = without_ties(torch.randn_like(x), x, scale, axis)
    ours = ts.quant.learned_fake_quantize(x, scale, zero_point, -128, 127, axis)
    peer = aten(x, scale, zero_point, -128, 127, axis, 1.0)
    assert torch.equal(ours, peer)
    assert ours.stride() == torch.empty_like(x).stride()
    dx, d_scale, d_zero_point = gradients(ours, (x, scale, zero_point), dy)
    peer_dx, peer_scale, peer_zero_point = gradients(peer, (x, scale, zero_point), dy)
    assert torch.equal(dx, peer_dx)
    terms = reference.learned_gradients(x.detach(), dy, scale.detach(), zero_point.detach(), -128, 127, axis)
    assert_close(d_scale, peer_scale, terms.magnitude)
    assert_close(d_zero_point, peer_zero_point, scale.detach() * dy.abs().sum())


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("shape", [(300, 1001), (2, 80000), (80000, 2), (7, 3, 20000)])
def test_large_tensors_equal_aten_with_the_same_bits_on_any_number_of_threads(
    shape: tuple[int, ...], axis: int | None
) -> None:
    x = (torch.randn(shape) * 3).requires_grad_()
    scale, zero_point = grid_of(1 if axis is None else x.shape[axis])
    dy = without_ties(torch.randn_like(x), x, scale, axis)
    inputs = (x, scale, zero_point)
    before, runs = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        y = ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, axis, "numel")
        runs.append(gradients(y, inputs, dy))
    torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))
    peer = aten(x, scale, zero_point, -8, 7, axis, reference.grad_factor(x, 7, axis, "numel"))
    dx, d_scale, d_zero_point = runs[0]
    peer_dx, peer_scale, peer_zero_point = gradients(peer, inputs, dy)
    assert torch.equal(dx, peer_dx)
    # ATen sums in float32; the sums of absolute terms say how far that may be off.
    share = dy.abs().sum() * 8 * reference.grad_factor(x, 7, axis, "numel") / scale.numel()
    assert_close(d_scale, peer_scale, share.expand_as(scale))
    assert_close(d_zero_point, peer_zero_point, share.expand_as(scale))


@pytest.mark.parametrize("zero_point", [-2.7, -2.5, -0.5, 0.5, 1.5, 2.5, 3.3])
@pytest.mark.parametrize("axis", [None, 0])
def test_a_fractional_zero_point_is_one_grid_forward_and_backward(zero_point: float, axis: int | None) -> None:
    x = torch.linspace(-3, 3, 6001).requires_grad_()
    channels = 1 if axis is None else 6001
    scale, offset = torch.full((channels,), 0.15), torch.full((channels,), zero_point)
    y = ts.quant.learned_fake_quantize(x, scale, offset, -8, 7, axis)
    (dx,) = gradients(y, (x,), torch.ones_like(x))
    whole = round(zero_point)
    expected = ts.quant.fake_quantize(x, 0.15, whole, -8, 7)
    assert torch.equal(y, expected)
    assert torch.equal(dx, gradients(expected, (x,), torch.ones_like(x))[0])


@pytest.mark.parametrize("zero_point", [-2.7, -3.0, 2.5])
def test_aten_has_the_defect_that_is_avoided_here(zero_point: float) -> None:
    """It rounds a zero point half to even forward, and to int(z + 0.5) backward: another grid for all negative ones."""
    x = torch.linspace(-3, 3, 6001).requires_grad_()
    y = torch._fake_quantize_learnable_per_tensor_affine(
        x, torch.tensor([0.15]), torch.tensor([zero_point]), -8, 7, 1.0
    )
    ours = ts.quant.learned_fake_quantize(x, torch.tensor([0.15]), torch.tensor([zero_point]), -8, 7)
    assert torch.equal(y, ours)
    assert not torch.equal(*(gradients(each, (x,), torch.ones_like(x))[0] for each in (y, ours)))


# ---- against the loop ----


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int, list[float], list[float]]:
    quant_min = draw(st.integers(-200, 100))
    quant_max = draw(st.integers(quant_min, 255))
    channels = draw(st.integers(1, 5))
    scale = draw(st.lists(st.floats(2.0**-10, 2.0**4, width=32), min_size=channels, max_size=channels))
    zero_point = draw(st.lists(st.floats(-300, 300, width=16), min_size=channels, max_size=channels))
    return quant_min, quant_max, scale, zero_point


@settings(max_examples=150, deadline=None)
@given(
    grids(), st.integers(0, 23), st.sampled_from(DTYPES), st.sampled_from(["rounded", "clip"]), st.integers(0, 2**31)
)
def test_equals_the_written_out_loop(
    grid: tuple[int, int, list[float], list[float]], size: int, dtype: torch.dtype, gradient: str, seed: int
) -> None:
    quant_min, quant_max, scales, zero_points = grid
    torch.manual_seed(seed)
    rows = (torch.randn(size, len(scales)) * 10).to(dtype)
    scale, zero_point = torch.tensor(scales, requires_grad=True), torch.tensor(zero_points, requires_grad=True)
    for axis, sample in [(1, rows), (-2, rows.t().contiguous()), (0, rows.t())]:
        x = sample.detach().requires_grad_()
        dy = torch.randn_like(x)
        positive_axis = axis % 2
        assert_equals_loop(x, dy, scale, zero_point, quant_min, quant_max, positive_axis, gradient)
    x = rows.detach().requires_grad_()
    one, offset = scale.detach()[0].requires_grad_(), zero_point.detach()[0].requires_grad_()
    assert_equals_loop(x, torch.randn_like(x), one, offset, quant_min, quant_max, None, gradient)


@pytest.mark.parametrize("gradient", ["rounded", "clip"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_give_the_same_bits(dtype: torch.dtype, gradient: str) -> None:
    x = torch.cat([torch.randn(5, 200) * 10, torch.tensor([3e38, -3e38, -0.0, 0.5, 1.5]).expand(5, 5)], 1)
    x = x.to(dtype).nan_to_num(posinf=1.0, neginf=-1.0).requires_grad_()
    dy = torch.randn(5, 205).to(dtype)

    def run() -> list[Tensor]:
        results = []
        for axis in (None, 0, 1):
            torch.manual_seed(1)
            scale, zero_point = grid_of(1 if axis is None else x.shape[axis])
            y = ts.quant.learned_fake_quantize(x, scale, zero_point, -30, 31, axis, "none", gradient)
            results += [y, *gradients(y, (x, scale, zero_point), dy)]
        return results

    try:
        _C.force_cpu_capability("portable")
        portable = run()
    finally:
        _C.force_cpu_capability(None)
    for one, other in zip(portable, run(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0])
def test_nan_stays_and_reaches_the_scale_infinity_saturates(dtype: torch.dtype, axis: int | None) -> None:
    x = torch.tensor([math.inf, -math.inf, math.nan], dtype=dtype).requires_grad_()
    scale = torch.full((1 if axis is None else 3,), 0.5, requires_grad=True)
    y = ts.quant.learned_fake_quantize(x, scale, torch.ones_like(scale), -8, 7, axis)
    assert y[2].isnan() and y[:2].tolist() == [3, -4.5]
    dx, d_scale = gradients(y, (x, scale), torch.ones_like(x))
    assert torch.equal(dx, torch.zeros_like(x))
    assert d_scale[-1].isnan()
    if axis is not None:
        assert d_scale[:2].tolist() == [6, -9]


@pytest.mark.parametrize("axis", [None, 0])
def test_the_scale_learns_where_a_step_is_cut(axis: int | None) -> None:
    """Both of LSQ's cases by hand: inside round(v) - v, outside the last step; and LSQ+'s offset."""
    x = torch.tensor([0.26, 9.0, -9.0], requires_grad=True)
    scale = torch.full(() if axis is None else (3,), 0.1, requires_grad=True)
    zero_point = torch.zeros_like(scale, requires_grad=True)
    y = ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, axis)
    d_scale, d_zero_point = gradients(y, (scale, zero_point), torch.tensor([1.0, 1.0, 3.0]))
    if axis is None:
        assert d_scale.item() == pytest.approx(0.4 + 7 - 24, abs=1e-5)
        assert d_zero_point.item() == pytest.approx(-0.1 - 0.3)
    else:
        assert torch.allclose(d_scale, torch.tensor([0.4, 7.0, -24.0]), atol=1e-5)
        assert torch.allclose(d_zero_point, torch.tensor([0.0, -0.1, -0.3]))


@pytest.mark.parametrize(("rule", "elements"), [("none", None), ("numel", 240), ("per_channel", 60), ("features", 80)])
def test_grad_scale_names_its_elements(rule: str, elements: int | None) -> None:
    x, dy = torch.randn(3, 4, 20), torch.randn(3, 4, 20)
    scale, zero_point = grid_of(4)
    plain, scaled = (
        gradients(ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, 1, name), (scale, zero_point), dy)
        for name in ("none", rule)
    )
    factor = 1.0 if elements is None else 1 / math.sqrt(elements * 7)
    assert all(torch.allclose(b, a * factor, rtol=1e-6, atol=0) for a, b in zip(plain, scaled, strict=True))


# ---- what is computed and kept ----


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (0, 0, 0)])
@pytest.mark.parametrize("axis", [None, 1])
def test_only_wanted_gradients_are_computed(wanted: tuple[int, int, int], axis: int | None) -> None:
    x, dy = torch.randn(4, 6), torch.randn(4, 6)
    scale, zero_point = (tensor.detach() for tensor in grid_of(1 if axis is None else 6))
    everything = [tensor.clone().requires_grad_() for tensor in (x, scale, zero_point)]
    full = gradients(ts.quant.learned_fake_quantize(*everything, -8, 7, axis), tuple(everything), dy)
    some = [
        tensor.clone().requires_grad_(bool(want)) for tensor, want in zip((x, scale, zero_point), wanted, strict=True)
    ]
    y = ts.quant.learned_fake_quantize(*some, -8, 7, axis)
    assert y.requires_grad == any(wanted)
    if y.requires_grad:
        y.backward(dy)
    for tensor, want, expected in zip(some, wanted, full, strict=True):
        assert torch.equal(tensor.grad, expected) if want else tensor.grad is None
    raw = torch.ops.torchslim._learned_fake_quantize_backward(
        dy, x, scale, zero_point, -8, 7, axis, "none", "rounded", [bool(want) for want in wanted]
    )
    assert [tensor.numel() > 0 for tensor in raw] == [bool(want) for want in wanted]


def test_keeps_the_input_and_no_more() -> None:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    x = torch.randn(1001, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ts.quant.learned_fake_quantize(x, *(tensor[0] for tensor in grid_of(1)), -8, 7)
    assert sorted(tensor.numel() for tensor in saved) == [1, 1, 1001]
    assert any(tensor.data_ptr() == x.data_ptr() for tensor in saved)


def test_a_gradient_in_another_layout_meets_its_elements() -> None:
    x = torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    scale, zero_point = grid_of(16)
    y = ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, 1)
    for dy in (torch.randn(2, 16, 5, 5), torch.randn(2, 1, 5, 5).expand_as(x)):
        results = [
            torch.autograd.grad(y, (x, scale, zero_point), grad, retain_graph=True)
            for grad in (dy, torch.empty_like(x).copy_(dy))
        ]
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_tensors_without_elements_have_gradients_of_zero(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, requires_grad=True)
    for axis in (None, *range(x.dim())):
        scale, zero_point = grid_of(1 if axis is None else x.shape[axis])
        y = ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, axis, "numel")
        dx, d_scale, d_zero_point = gradients(y, (x, scale, zero_point), torch.empty(shape))
        assert dx.shape == x.shape
        assert torch.equal(d_scale, torch.zeros_like(scale)) and torch.equal(d_zero_point, torch.zeros_like(scale))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_double_backward_is_refused_by_name(index: int) -> None:
    inputs = [torch.randn(8), *(tensor.detach() for tensor in grid_of(1))]
    inputs[index].requires_grad_()
    y = ts.quant.learned_fake_quantize(*inputs, -8, 7)
    (grad,) = torch.autograd.grad((y**2).sum(), inputs[index], create_graph=True)
    with pytest.raises(RuntimeError, match="torchslim::learned_fake_quantize: the gradient cannot be differentiated"):
        grad.sum().backward()


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.tensor(-1.0), torch.tensor(0.0), -8, 7), r"learned_fake_quantize: scale must be > 0, got -1$"),
        ((torch.tensor(math.nan), torch.tensor(0.0), -8, 7), r"scale must be > 0, got nan$"),
        ((torch.tensor(1e-42), torch.tensor(0.0), -8, 7), r"scale must be a normal float32, got 1.*e-42$"),
        ((torch.tensor(1.0), torch.tensor(math.nan), -8, 7), r"zero_point must be a whole number, got nan$"),
        ((torch.tensor(1.0), torch.tensor(0.0), 7, -8), r"the range is empty: quant_min 7 > quant_max -8$"),
        ((torch.ones(3), torch.zeros(3), -8, 7), r"one element, .*got shape \[3\]; .* needs `axis`$"),
        ((torch.ones(3), torch.zeros(3), -8, 7, 1), r"one element per channel, shape \[4\], got .*3"),
        ((torch.ones(4), torch.zeros(3), -8, 7, 1), r"zero_point must have scale's shape \[4\]"),
        ((torch.ones(4), torch.zeros(4), -8, 7, 2), r"axis must be in \[-2, 1\] for .* 2 dim.*got 2$"),
        ((torch.tensor([1.0, -1.0]), torch.zeros(2), -8, 7, 0), r"scale must be > 0, got -1 in channel 1$"),
        ((torch.tensor(1.0), torch.tensor(0.0), -8, 7, None, "paper"), r"grad_scale must be .*, got `paper`$"),
        (
            (torch.tensor(1.0), torch.tensor(0.0), -8, 0, None, "numel"),
            r"`numel` needs quant_max > 0, got 0; use `none`",
        ),
        ((torch.tensor(1.0), torch.tensor(0.0), -8, 7, None, "none", "lsq"), r"gradient must be .*, got `lsq`$"),
        (
            (torch.tensor(1.0, device="meta"), torch.tensor(0.0), -8, 7),
            r"scale must be on the input's device cpu, got meta; move it",
        ),
        (
            (torch.tensor(1.0), torch.tensor(0.0, device="meta"), -8, 7),
            r"zero_point must be on the input's device cpu, got meta; move it",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., Tensor] = ts.quant.learned_fake_quantize
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4), *arguments)


@pytest.mark.parametrize("x", [torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.complex64)])
def test_other_types_are_refused(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"learned_fake_quantize: expected a float32, .* got .*; convert it first"):
        ts.quant.learned_fake_quantize(x, torch.tensor(1.0), torch.tensor(0.0), -8, 7)
    with pytest.raises(TypeError, match=r"scale must be a floating-point tensor, got Int"):
        ts.quant.learned_fake_quantize(torch.zeros(2), torch.tensor(1, dtype=torch.int32), torch.tensor(0), -8, 7)


# ---- captured ----


def test_autocast_keeps_the_type() -> None:
    scale, zero_point = grid_of(1)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert ts.quant.learned_fake_quantize(torch.randn(9).to(dtype), scale, zero_point, -8, 7).dtype == dtype


@pytest.mark.parametrize("axis", [None, 1])
def test_compiles_whole_with_the_same_bits(axis: int | None) -> None:
    torch._dynamo.reset()
    scale, zero_point = grid_of(6 if axis else 1)

    def loss(x: Tensor) -> Tensor:
        return (ts.quant.learned_fake_quantize(x * 2, scale, zero_point, -8, 7, axis, "numel") ** 2).sum()

    x = torch.randn(4, 6, requires_grad=True)
    eager, compiled = loss(x), torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(eager, compiled)
    results = [torch.autograd.grad(value, (x, scale, zero_point)) for value in (eager, compiled)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_compiles_for_any_batch_size() -> None:
    torch._dynamo.reset()
    scale, zero_point = grid_of(6)
    compiled = torch.compile(
        lambda x: ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, 1, "numel"),
        fullgraph=True,
        backend="aot_eager",
        dynamic=True,
    )
    for batch in (4, 9):
        x = torch.randn(batch, 6)
        expected = ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7, 1, "numel")
        results = [torch.autograd.grad(y.square().sum(), scale)[0] for y in (compiled(x), expected)]
        assert torch.equal(*results)


def test_exports_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
            return ts.quant.learned_fake_quantize(x, scale, zero_point, -8, 7)

    graph = torch.export.export(Model(), (torch.randn(4), torch.tensor(0.1), torch.tensor(0.0))).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [
        torch.ops.torchslim.learned_fake_quantize.default
    ]


# ---- what is trained, and its scale ----


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=9))
def test_positive_scale_is_positive_and_its_gradient_leads_away_from_zero(numbers: list[float]) -> None:
    raw = torch.tensor(numbers, requires_grad=True)
    scale = ts.quant.positive_scale(raw)
    expected = torch.tensor([reference.positive_scale(number) for number in raw.tolist()])
    assert torch.allclose(scale, expected, rtol=1e-6, atol=0)
    assert torch.equal(scale[expected > 2.0**-23], expected[expected > 2.0**-23])
    (gradient,) = torch.autograd.grad(scale.sum(), raw)
    assert gradient.tolist() == [-1.0 if number < 0 else 1.0 for number in raw.tolist()]


def test_positive_scale_passes_gradcheck_away_from_zero() -> None:
    raw = torch.tensor([0.3, -0.2, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ts.quant.positive_scale, raw)
    assert torch.autograd.gradcheck(lambda alpha: ts.quant.pact_scale(alpha, -8, 7), raw)
    low = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda low, length: ts.quant.trainable_range_qparams(low, length, 0, 15), (low, raw)
    )


def test_trained_threshold_scale_is_an_exact_power_of_two() -> None:
    logs = torch.cat([torch.arange(-60, 61).float(), torch.rand(200) * 100 - 50]).requires_grad_()
    scale = ts.quant.trained_threshold_scale(logs, 127)
    assert scale.tolist() == [reference.trained_threshold_scale(number, 127) for number in logs.tolist()]
    (gradient,) = torch.autograd.grad(scale.sum(), logs)
    assert torch.allclose(gradient, scale.detach() * math.log(2), rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [1.5, -1.5])
def test_pact_is_its_paper(alpha: float) -> None:
    x = (torch.randn(1000) * 1.5).requires_grad_()
    dy = torch.randn(1000)
    raw = torch.tensor(alpha, requires_grad=True)
    y = ts.quant.learned_fake_quantize(x, ts.quant.pact_scale(raw, -8, 7), torch.tensor(-8), -8, 7, gradient="clip")
    values, to_x, to_alpha = reference.pact(x.detach().double(), 1.5, 15)
    assert torch.allclose(y.double(), values, atol=1e-6)
    dx, d_alpha = torch.autograd.grad(y, (x, raw), dy)
    assert torch.equal(dx, dy * to_x.float())
    assert d_alpha.item() == pytest.approx(math.copysign(1, alpha) * (dy * to_alpha).sum().item(), rel=1e-5)


def test_trainable_range_has_the_gradient_of_nncf() -> None:
    x = torch.randn(1000).requires_grad_()
    dy = torch.randn(1000)
    low, length = torch.tensor(-1.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)  # 0 is a grid point
    scale, zero_point = ts.quant.trainable_range_qparams(low, length, 0, 15)
    y = ts.quant.learned_fake_quantize(x, scale, zero_point, 0, 15)
    d_low, d_range = torch.autograd.grad(y, (low, length), dy)
    # The rounded value decides what is inside here, x itself in NNCF: keep x off the half step between the two.
    keep = ((x.detach() + 1) * 5).round().clamp(0, 15).eq(((x.detach() + 1) * 5).clamp(-0.0, 15.0).round())
    assert keep.all()
    values, nncf_low, nncf_range = reference.nncf_range(x.detach().double(), dy.double(), -1.0, 3.0, 16)
    assert torch.allclose(y.double(), values, atol=1e-5)
    beyond = (x < -1) & (x >= -1.1) | (x > 2) & (x <= 2.1)
    slack = dy[beyond].abs().sum().item() + 1e-3
    assert abs(d_low.item() - nncf_low) <= slack and abs(d_range.item() - nncf_range) <= slack


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ts.quant.trained_threshold_scale(torch.ones(()), 6), r"must be a power of two.*got quant_max 6"),
        (lambda: ts.quant.pact_scale(torch.ones(()), 3, 3), r"pact_scale: the grid has one point: .* = 3"),
        (lambda: ts.quant.trainable_range_qparams(torch.ones(2), torch.ones(3), 0, 3), r"one shape, got .2. and .3."),
    ],
)
def test_grids_that_cannot_be_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_raw_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="positive_scale: raw must be a floating-point tensor, got Int"):
        ts.quant.positive_scale(torch.ones(2, dtype=torch.int32))
