# SPDX-License-Identifier: BSD-3-Clause
"""What every op and module of the room refuses by name: a second backward, and tensors on different devices."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torchslim as ts
from torchslim import quant

ops = torch.ops.torchslim

FORMAT = (4, 3, 7, "nan", True)


def state(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    low, high = torch.full(shape, math.inf), torch.full(shape, -math.inf)
    return low, high, torch.ones(shape), torch.zeros(shape, dtype=torch.int32)


def grid(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.full(shape, 0.1), torch.zeros(shape, dtype=torch.int32)


def levels() -> Tensor:
    return torch.tensor([-1.0, 0.0, 1.0])


def bins(*shape: int) -> Tensor:
    return torch.zeros(*shape, 8, dtype=torch.int64)


#: Arguments after the first, a float tensor of shape (2, 4) that wants a gradient, for each op; one line for each way.
STRAIGHT_THROUGH: dict[str, list[tuple[Any, ...]]] = {
    "fake_quantize": [(0.1, 0, -8, 7)],
    "fake_quantize.tensor_qparams": [(*grid(), -8, 7), (*grid(4), -8, 7, 1)],
    "clamp_fake_quantize": [(*grid(), -8, 7, 0.0, 6.0)],
    "fake_quantize_passthrough": [(*grid(), -8, 7), (*grid(4), -8, 7, 1)],
    "fake_quantize_stochastic": [(*grid(), -8, 7, None, torch.tensor(5)), (*grid(4), -8, 7, 1, torch.tensor(5))],
    "fake_quantize_weight": [(), (4,)],
    "binary_fake_quantize": [(), (0, "passthrough")],
    "ternary_fake_quantize": [(), (0, "clipped")],
    "float_fake_quantize": [FORMAT, (*FORMAT, torch.ones(4), 1, "passthrough")],
    "block_float_fake_quantize": [(2, 1, 1, "none", 4, 1), (2, 1, 1, "none", 4, 1, "passthrough")],
    "level_fake_quantize": [(levels(), torch.tensor(1.0)), (levels(), torch.ones(4), 1, "passthrough")],
    "learned_fake_quantize": [(torch.tensor(0.1), torch.tensor(0.0), -8, 7), (torch.ones(4), torch.zeros(4), -8, 7, 1)],
    "observe_fake_quantize": [(*state(), 0.1, -8, 7, False)],
    "observe_fake_quantize.channels": [(*state(4), 1, 0.1, -8, 7, False)],
    "round_average": [(torch.tensor(0.1), 4)],
    "round_bias": [],  # takes one dimension; below
}

#: Views and an op of the above: it refuses by the name of that.
COMPOSITES = {"fake_quantize_group": "fake_quantize"}

#: Smooth functions of a few parameters, right to any order.
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "positive_scale": ops.positive_scale,
    "pact_scale": lambda x: ops.pact_scale(x, -8, 7),
    "trained_threshold_scale": lambda x: ops.trained_threshold_scale(x, 7),
    "trainable_range_qparams": lambda x: torch.stack(ops.trainable_range_qparams(x, x + 3, -8, 7)),
}

WITHOUT_GRADIENT = {
    "observe_channels",
    "observe_histogram",
    "observe_range",
    "update_qparams",
    "l2_range",
    "percentile_range",
    "mse_range",
    "entropy_range",
    "weight_scale",
}


def registered() -> set[str]:
    names = {
        name.removeprefix("torchslim::") for name in torch._C._dispatch_get_all_op_names() if "torchslim::" in name
    }
    return {name for name in names if not name.startswith(("_", "kd_loss"))}


def test_every_op_is_here() -> None:
    assert registered() == {*STRAIGHT_THROUGH, *COMPOSITES, *SMOOTH, *WITHOUT_GRADIENT}


def operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(ops, packet), overload or "default")


def assert_refuses_a_second_backward(name: str, run: Callable[[Tensor], Any], x: Tensor) -> None:
    y = run(x)
    y = y[0] if isinstance(y, tuple) else y
    (gradient,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    assert gradient.requires_grad  # and does not count as a constant in silence
    with pytest.raises(RuntimeError, match=rf"torchslim::{name}: the gradient cannot be differentiated again"):
        torch.autograd.grad(gradient.sum(), x)


@pytest.mark.parametrize("name", STRAIGHT_THROUGH)
def test_a_second_backward_is_refused_by_name(name: str) -> None:
    for arguments in STRAIGHT_THROUGH[name]:
        x = torch.randn(2, 4, requires_grad=True)
        assert_refuses_a_second_backward(name.partition(".")[0], lambda x: operator(name)(x, *arguments), x)  # noqa: B023


def test_a_second_backward_of_a_bias_a_group_and_a_learned_scale_is_refused() -> None:
    x = torch.randn(4, requires_grad=True)
    assert_refuses_a_second_backward("round_bias", lambda x: ops.round_bias(x, torch.tensor(0.1), torch.ones(4)), x)
    x = torch.randn(2, 4, requires_grad=True)
    group = lambda x: ops.fake_quantize_group(x, *grid(2, 2), -8, 7, 2)  # noqa: E731
    assert_refuses_a_second_backward("fake_quantize", group, x)
    scale = torch.tensor(0.1, requires_grad=True)
    learned = lambda s: ops.learned_fake_quantize(torch.randn(9), s, torch.tensor(0.0), -8, 7)  # noqa: E731
    assert_refuses_a_second_backward("learned_fake_quantize", learned, scale)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_second_backward_is_right_where_the_op_is_smooth(name: str) -> None:
    x = torch.tensor([0.7, 1.3, 2.2], dtype=torch.float64, requires_grad=True)
    if name == "trained_threshold_scale":  # a power of two: its gradient is that without the rounding
        (first,) = torch.autograd.grad(SMOOTH[name](x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(second, SMOOTH[name](x) * math.log(2) ** 2)
    else:
        assert torch.autograd.gradgradcheck(SMOOTH[name], (x,))


#: The op that a module runs in training, and the module.
MODULES: list[tuple[str, Callable[[], torch.nn.Module]]] = [
    ("observe_fake_quantize", quant.FakeQuantize),
    ("observe_fake_quantize", lambda: quant.FakeQuantize(axis=1)),
    ("clamp_fake_quantize", lambda: quant.FakeQuantize("mse", activation="relu")),
    ("fake_quantize", lambda: quant.FakeQuantize("histogram")),
    ("learned_fake_quantize", quant.LearnedFakeQuantize),
    ("learned_fake_quantize", quant.Pact),
    ("learned_fake_quantize", quant.TrainedThreshold),
    ("learned_fake_quantize", quant.TrainableRange),
    ("float_fake_quantize", lambda: quant.FloatFakeQuantize(quant.FloatFormat.e4m3fn())),
    ("level_fake_quantize", lambda: quant.LevelFakeQuantize(levels())),
]


@pytest.mark.parametrize(("name", "make"), MODULES)
def test_a_second_backward_of_a_module_is_refused_by_name(name: str, make: Callable[[], torch.nn.Module]) -> None:
    module = make()
    module(torch.randn(2, 4).abs())
    assert_refuses_a_second_backward(name, module, torch.randn(2, 4, requires_grad=True))


# ---- devices ----


def on_other_device() -> list[Any]:
    """(op, arguments, the number of the one to move, its name)"""
    x = torch.randn(2, 4)
    cases: list[Any] = []
    for name, arguments in [
        ("fake_quantize.tensor_qparams", (x, *grid(), -8, 7)),
        ("clamp_fake_quantize", (x, *grid(), -8, 7, 0.0, 6.0)),
        ("fake_quantize_passthrough", (x, *grid(4), -8, 7, 1)),
        ("fake_quantize_stochastic", (x, *grid(4), -8, 7, 1, torch.tensor(5))),
        ("fake_quantize_group", (x, *grid(2, 2), -8, 7, 2)),
        ("learned_fake_quantize", (x, torch.tensor(0.1), torch.tensor(0.0), -8, 7)),
        ("float_fake_quantize", (x, *FORMAT, torch.ones(4), 1)),
        ("level_fake_quantize", (x, levels(), torch.tensor(1.0))),
        ("observe_fake_quantize", (x, *state(), 0.1, -8, 7, False)),
        ("observe_fake_quantize.channels", (x, *state(4), 1, 0.1, -8, 7, False)),
        ("observe_channels", (x, *state(4), 1, 0.1, -8, 7, False)),
        ("observe_range", (x, *state()[:2])),
        ("observe_histogram", (x, bins(), *state()[:2])),
        ("update_qparams", (*state(4), -8, 7, False, True)),
        ("l2_range", (bins(), *state()[:2], 16)),
        ("percentile_range", (bins(), *state()[:2], 99.0)),
        ("mse_range", (bins(), *state()[:2], -8, 7, False)),
        ("entropy_range", (bins(), *state()[:2], -8, 7, False)),
        ("trainable_range_qparams", (torch.ones(2), torch.ones(2), -8, 7)),
        ("round_average", (x, torch.tensor(0.1), 4)),
        ("round_bias", (torch.ones(4), torch.tensor(0.1), torch.ones(4))),
    ]:
        names = [argument.name for argument in operator(name)._schema.arguments]
        for index in range(1, len(arguments)):
            if isinstance(arguments[index], Tensor):
                cases.append(pytest.param(name, arguments, index, names[index], id=f"{name} {names[index]}"))
    return cases


@pytest.mark.parametrize(("name", "arguments", "index", "argument"), on_other_device())
def test_tensors_on_different_devices_are_refused(name: str, arguments: Any, index: int, argument: str) -> None:
    copies = [value.clone() if isinstance(value, Tensor) else value for value in arguments]
    copies[index] = copies[index].to("meta")
    message = (
        rf"torchslim::\w+: {argument} must be on (the CPU or on )?the input's device cpu, got meta; move it with to"
    )
    with pytest.raises(ValueError, match=message):
        operator(name)(*copies)
    for value, before in zip(copies, arguments, strict=True):
        if isinstance(value, Tensor) and not value.is_meta:
            assert torch.equal(value, before)


@pytest.mark.parametrize(("name", "arguments", "index", "argument"), on_other_device())
def test_an_input_without_data_is_refused(name: str, arguments: Any, index: int, argument: str) -> None:
    with pytest.raises(ValueError, match=r"must be on .*the input's device meta, got cpu|seed must be on"):
        operator(name)(arguments[0].to("meta"), *arguments[1:])


@pytest.mark.parametrize(("name", "make"), MODULES)
def test_a_module_refuses_a_tensor_on_another_device(name: str, make: Callable[[], torch.nn.Module]) -> None:
    module = make()
    module(torch.randn(2, 4).abs())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"torchslim::\w+: \w+ must be on the input's device meta, got cpu"):
        module(torch.randn(2, 4, device="meta"))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("kind", ["MinMax", "MovingAverage", "Histogram", "Percentile", "Mse", "Entropy"])
@pytest.mark.parametrize("axis", [None, 1])
def test_an_observer_refuses_a_tensor_on_another_device(kind: str, axis: int | None) -> None:
    observer = getattr(quant, f"{kind}Observer")(axis=axis)
    observer(torch.randn(2, 4))
    before = {key: value.clone() for key, value in observer.state_dict().items()}
    with pytest.raises(ValueError, match=r"min_val must be on the input's device meta, got cpu"):
        observer(torch.randn(2, 4, device="meta"))
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())


def test_functions_refuse_tensors_on_different_devices() -> None:
    here, there = torch.ones(3), torch.ones(3, device="meta")
    for choose in (quant.choose_qparams, quant.channel_qparams):
        with pytest.raises(
            ValueError, match=f"torchslim::{choose.__name__}: max_val must be on the input's device cpu"
        ):
            choose(-here, there, -8, 7)
    assert ts.quant.fake_quantize(there, there.new_ones(()), there.new_zeros(()), -8, 7).is_meta
