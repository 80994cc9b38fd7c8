# SPDX-License-Identifier: BSD-3-Clause
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fake_quantize import choose_qparams, fake_quantize, moved_range
from torch import Tensor

import torchslim as ts
from torchslim import _C

ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
}


class State(NamedTuple):
    min_val: Tensor
    max_val: Tensor
    scale: Tensor
    zero_point: Tensor


def fresh(shape: tuple[int, ...] = ()) -> State:
    return State(
        torch.full(shape, math.inf),
        torch.full(shape, -math.inf),
        torch.ones(shape),
        torch.zeros(shape, dtype=torch.int32),
    )


def observe(
    x: Tensor, state: State, *, constant: float = 0.01, symmetric: bool = False, activation: str = "none"
) -> Tensor:
    grid = (-127, 127) if symmetric else (-128, 127)
    y: Tensor = torch.ops.torchslim.observe_fake_quantize(
        x, *state, constant, *grid, symmetric, *ACTIVATIONS[activation]
    )
    return y


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.floats(-20, 20, width=16), min_size=1, max_size=20), min_size=1, max_size=3),
    st.sampled_from([0.01, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from(list(ACTIVATIONS)),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_equals_the_written_out_loop(
    batches: list[list[float]], constant: float, symmetric: bool, activation: str, dtype: torch.dtype
) -> None:
    grid = (-127, 127) if symmetric else (-128, 127)
    clamp_min, clamp_max = ACTIVATIONS[activation]
    low, high = -math.inf if clamp_min is None else clamp_min, math.inf if clamp_max is None else clamp_max
    state = fresh()
    for elements in batches:
        x = torch.tensor(elements, dtype=dtype).requires_grad_()
        before = (state.min_val.item(), state.max_val.item())
        y = observe(x, state, constant=constant, symmetric=symmetric, activation=activation)
        expected_range = moved_range(before, x.detach(), constant, low, high)
        assert (state.min_val.item(), state.max_val.item()) == tuple(torch.tensor(expected_range).tolist())
        scale, zero_point = choose_qparams(state.min_val.item(), state.max_val.item(), *grid, symmetric)
        assert (state.scale.item(), state.zero_point.item()) == (scale, zero_point)
        values, passes = fake_quantize(x.detach(), scale, zero_point, *grid, clamp_min=low, clamp_max=high)
        assert torch.equal(y.detach(), values)
        assert torch.equal(torch.autograd.grad(y, x, torch.ones_like(y))[0], passes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_activation_then_aten(activation: str, memory_format: torch.memory_format) -> None:
    x = (torch.randn(4, 8, 33, 33) * 4).to(memory_format=memory_format).requires_grad_()
    state = fresh()
    y = observe(x, state, activation=activation)
    activated = {"none": lambda: x, "relu": lambda: x.relu(), "relu6": lambda: torch.nn.functional.relu6(x)}
    aten = torch.fake_quantize_per_tensor_affine(activated[activation](), state.scale, state.zero_point, -128, 127)
    grad = torch.randn_like(x)
    assert torch.equal(y, aten) and y.stride() == x.stride()
    assert torch.equal(*(torch.autograd.grad(value, x, grad)[0] for value in (y, aten)))


def test_moves_as_torch_ao_does() -> None:
    observer = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=0.01)
    state = fresh()
    for _ in range(5):
        x = torch.randn(1000)
        observer(x)
        observe(x, state)
    torch.testing.assert_close(state.min_val, observer.min_val)
    torch.testing.assert_close(state.max_val, observer.max_val)


def test_any_number_of_threads_and_any_instruction_set_give_the_same_bits() -> None:
    x = torch.randn(1_000_003)
    results = []
    before = torch.get_num_threads()
    try:
        for threads, capability in [(1, None), (2, None), (1, "portable"), (2, "portable")]:
            torch.set_num_threads(threads)
            _C.force_cpu_capability(capability)
            state = fresh()
            results.append((observe(x, state), *state))
    finally:
        torch.set_num_threads(before)
        _C.force_cpu_capability(None)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 17, 99_999])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_what_is_not_finite_is_refused_and_changes_nothing(bad: float, position: int, activation: str) -> None:
    state = fresh()
    observe(torch.randn(100_000), state)
    before = [tensor.clone() for tensor in state]
    x = torch.randn(100_000)
    x[position] = bad
    with pytest.raises(ValueError, match="torchslim::observe_fake_quantize: the observed tensor holds NaN or infinity"):
        observe(x, state, activation=activation)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))


def test_an_empty_tensor_moves_nothing() -> None:
    state = fresh()
    assert observe(torch.empty(0, 3), state).shape == (0, 3)
    assert state.min_val == math.inf and state.scale == 1


def test_a_tiny_range_gets_the_smallest_scale() -> None:
    state = fresh()
    y = observe(torch.tensor([-1e-9, 1e-9]), state)
    assert state.scale == 2.0**-12 and torch.equal(y, torch.zeros(2))


def test_extremes_are_kept_if_asked() -> None:
    state = fresh()
    for x in ([-1.0, 0.5], [0.0, 2.0], [0.0, 1.0]):
        torch.ops.torchslim.observe_fake_quantize(torch.tensor(x), *state, 1.0, -128, 127, False, None, None, True)
    assert (state.min_val.item(), state.max_val.item()) == (-1.0, 2.0)


def test_a_changed_state_is_noticed_by_autograd() -> None:
    state = fresh()
    factor = torch.ones((), requires_grad=True)
    product = factor * state.scale
    observe(torch.randn(10), state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_channels_equal_the_weight_rule() -> None:
    weight = torch.randn(5, 3, 2, 2)
    weight[2] = 0
    state = fresh((5,))
    torch.ops.torchslim.observe_channels(weight, *state, 0, 1.0, -127, 127, True)
    scale, zero_point = ts.quant.weight_qparams(weight)
    assert torch.equal(state.scale, scale) and torch.equal(state.zero_point, zero_point)


CHANNEL_LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3),
    "every second": lambda x: x[:, ::2, 1:],
}


@pytest.mark.parametrize("axis", range(-1, 4))
@pytest.mark.parametrize("layout", CHANNEL_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_channels_equal_ranges_then_fake_quantize(dtype: torch.dtype, layout: str, axis: int) -> None:
    state = [torch.empty(0)] * 4
    for batch in range(2):
        x = CHANNEL_LAYOUTS[layout]((torch.randn(5, 70, 6, 5) * 3).to(dtype)).detach().requires_grad_()
        others = [dim for dim in range(4) if dim != axis % 4]
        low, high = x.detach().amin(others).float(), x.detach().amax(others).float()
        if batch == 0:
            state = list(fresh(tuple(low.shape)))
            expected = [low, high]
        else:
            expected = [old + 0.25 * (new - old) for old, new in zip(expected, (low, high), strict=True)]
        y = torch.ops.torchslim.observe_fake_quantize(x, *state, axis, 0.25, -128, 127, False)
        torch.testing.assert_close(state[0], expected[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(state[1], expected[1], rtol=1e-6, atol=1e-7)
        plain = ts.quant.fake_quantize(x, state[2], state[3], -128, 127, axis)
        assert torch.equal(y, plain) and y.stride() == plain.stride()
        grad = torch.randn_like(y)
        assert torch.equal(torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(plain, x, grad)[0])


@pytest.mark.parametrize("shape", [(64, 1000), (5, 3), (1000, 3), (70_000, 2), (3, 70_000)])
def test_channels_have_the_same_bits_with_any_threads_and_instruction_set(shape: tuple[int, int]) -> None:
    x = torch.randn(shape)

    def run() -> list[Tensor]:
        state = fresh((shape[1],))
        return [torch.ops.torchslim.observe_fake_quantize(x, *state, 1, 0.1, -128, 127, False), *state]

    before, expected = torch.get_num_threads(), run()
    assert torch.equal(expected[1], x.amin(0)) and torch.equal(expected[2], x.amax(0))
    try:
        torch.set_num_threads(1)
        assert all(map(torch.equal, run(), expected))
        _C.force_cpu_capability("portable")
        assert all(map(torch.equal, run(), expected))
    finally:
        _C.force_cpu_capability(None)
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_channels_that_are_not_finite_are_refused_and_change_nothing(
    bad: float, layout: torch.memory_format
) -> None:
    state = fresh((70,))
    x = torch.randn(2, 70, 5, 5).contiguous(memory_format=layout)
    x[1, 33, 2, 2] = bad
    with pytest.raises(ValueError, match=r"NaN or infinity in channel 33, range"):
        torch.ops.torchslim.observe_fake_quantize(x, *state, 1, 0.1, -128, 127, False)
    assert torch.equal(state.scale, torch.ones(70)) and state.min_val.isinf().all()


def test_an_empty_tensor_moves_no_channel() -> None:
    state = fresh((3,))
    y = torch.ops.torchslim.observe_fake_quantize(torch.empty(0, 3), *state, 1, 0.1, -128, 127, False)
    assert y.shape == (0, 3) and state.min_val.isinf().all()


def test_channels_that_are_not_finite_are_refused_and_change_nothing() -> None:
    state = fresh((2,))
    with pytest.raises(ValueError, match=r"torchslim::observe_channels: .* NaN or infinity in channel 1, range"):
        torch.ops.torchslim.observe_channels(torch.tensor([[1.0], [math.nan]]), *state, 0, 1.0, -127, 127, True)
    assert torch.equal(state.scale, torch.ones(2)) and state.min_val.isinf().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"min_val": torch.zeros(2)}, ValueError, r"min_val must have one element, shape \[\], got shape \[2\]"),
        ({"scale": torch.ones((), dtype=torch.float64)}, TypeError, "scale must be Float, got Double"),
        ({"zero_point": torch.zeros((), dtype=torch.int64)}, TypeError, "zero_point must be Int, got Long"),
        ({"constant": 0.0}, ValueError, r"averaging_constant must be in \(0, 1\], got 0"),
        ({"quant_max": -128}, ValueError, "the grid has one point: quant_min = quant_max = -128"),
        ({"clamp": (1.0, 1.0)}, ValueError, "clamp_min must be < clamp_max, got 1 and 1"),
        ({"x": torch.zeros(2, dtype=torch.int32)}, TypeError, "expected a float32, .* got Int; convert it first"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {
        "x": torch.zeros(2),
        **fresh()._asdict(),
        "constant": 0.01,
        "quant_min": -128,
        "quant_max": 127,
        "symmetric": False,
        "clamp": (None, None),
        **change,
    }
    *first, clamp = arguments.values()
    with pytest.raises(error, match=f"torchslim::observe_fake_quantize: {message}"):
        torch.ops.torchslim.observe_fake_quantize(*first, *clamp)
