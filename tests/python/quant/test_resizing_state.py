# SPDX-License-Identifier: BSD-3-Clause
"""Quantisers and observers load a state of other shapes whole, or refuse it and stay as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchslim.quant import (
    FakeQuantize,
    FloatFakeQuantize,
    FloatFormat,
    HistogramObserver,
    LearnedFakeQuantize,
    LevelFakeQuantize,
    MinMaxObserver,
    apot_levels,
)

State = dict[str, Tensor]


def learned() -> nn.Module:
    module = LearnedFakeQuantize(axis=1, symmetric=False)
    module.initialize(torch.randn(5, 2))
    return module


def observing(module: nn.Module) -> nn.Module:
    module(torch.randn(5, 2))
    return module


#: Of each module one with two channels, and the tensors that have as many.
MODULES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "FakeQuantize": (lambda: observing(FakeQuantize(axis=1)), ["min_val", "max_val", "scale", "zero_point"]),
    "MinMaxObserver": (lambda: observing(MinMaxObserver(axis=1)), ["min_val", "max_val"]),
    "HistogramObserver": (lambda: observing(HistogramObserver(8, axis=1)), ["min_val", "max_val", "histogram"]),
    "FloatFakeQuantize": (
        lambda: FloatFakeQuantize(FloatFormat.e4m3fn(), axis=1).fit_scale(torch.ones(5, 2)),
        ["scale"],
    ),
    "LevelFakeQuantize": (lambda: LevelFakeQuantize(apot_levels(3), axis=1).fit_scale(torch.ones(5, 2)), ["scale"]),
    "LearnedFakeQuantize": (learned, ["scale", "zero_point"]),
}


def with_channels(state: State, names: list[str], channels: int) -> State:
    return {
        name: torch.ones(channels, *tensor.shape[1:]).to(tensor) if name in names else tensor
        for name, tensor in state.items()
    }


def copied(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_refused(module: nn.Module, state: State, message: str, *, strict: bool = True) -> None:
    before = copied(module.state_dict())
    with pytest.raises(RuntimeError, match=f"{message}; its state is unchanged"):
        module.load_state_dict(state, strict=strict)
    after = module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("assign", [False, True])
def test_other_channels_are_taken(name: str, assign: bool) -> None:
    make, names = MODULES[name]
    module = make()
    state = with_channels(module.state_dict(), names, 3)
    module.load_state_dict(copied(state), assign=assign)
    assert all(torch.equal(module.state_dict()[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "odd"), [(name, odd) for name, (_, names) in MODULES.items() for odd in names if names != ["scale"]]
)
def test_a_tensor_of_another_shape_is_refused_with_all_others(name: str, odd: str) -> None:
    make, names = MODULES[name]
    module = make()
    others = [key for key in names if key != odd]
    assert_refused(module, with_channels(module.state_dict(), others, 3), f"{name}: .* must have shape .*, got .*")
    assert_refused(module, with_channels(module.state_dict(), [odd], 3), f"{name}: .* must have shape .*, got .*")
    partial = with_channels(module.state_dict(), names, 3)
    del partial[odd]
    assert_refused(module, partial, rf"{name}: {odd} of shape \(3.*\) is missing", strict=False)


@pytest.mark.parametrize("name", MODULES)
def test_a_state_of_one_grid_does_not_fit_channels(name: str) -> None:
    make, names = MODULES[name]
    module = make()
    state = module.state_dict()
    state.update({key: state[key].select(0, 0) for key in names})
    assert_refused(module, state, rf"{name}: .* must have shape \(2.*\), got \(.*\)")


def test_groups_of_another_tensor_are_taken() -> None:
    module, other = (FakeQuantize(axis=1, group_size=2) for _ in range(2))
    other(torch.randn(3, 8))
    module.load_state_dict(other.state_dict())
    assert module.scale.shape == module.observer.min_val.shape == (3, 4)
    state = {**other.state_dict(), "scale": torch.ones(4)}
    assert_refused(module, state, r"FakeQuantize: scale must have shape \(3, 4\), got \(4,\)")


def test_a_state_of_channels_does_not_fit_one_grid() -> None:
    channels = observing(FakeQuantize(axis=1)).state_dict()
    assert_refused(observing(FakeQuantize()), channels, r"FakeQuantize: min_val must have shape \(\), got \(2,\)")


def test_one_element_is_a_number() -> None:
    module = FakeQuantize()
    state = observing(FakeQuantize()).state_dict()
    module.load_state_dict({**state, "scale": state["scale"].reshape(1)})
    assert module.scale.shape == () and module.scale == state["scale"]


def test_a_flag_of_another_shape_is_refused_with_all_others() -> None:
    module = observing(FakeQuantize(axis=1))
    state = with_channels(module.state_dict(), ["min_val", "max_val", "scale", "zero_point"], 3)
    state["observer_enabled"] = torch.ones(2, dtype=torch.uint8)
    assert_refused(module, state, r"FakeQuantize: observer_enabled must have shape \(1,\), got \(2,\)")


def test_what_does_not_fit_a_child_does_not_fit_its_parent() -> None:
    model = nn.Sequential(observing(FakeQuantize(HistogramObserver(8), axis=1)))
    other = nn.Sequential(observing(FakeQuantize(HistogramObserver(16), axis=1)))
    message = r"HistogramObserver: 0.observer.histogram must have shape \(2, 8\), got \(2, 16\)"
    assert_refused(model, other.state_dict(), message)


def test_optimisers_keep_the_parameter() -> None:
    module = LearnedFakeQuantize(axis=1)
    parameter = module.scale
    module.load_state_dict(with_channels(learned().state_dict(), ["scale", "zero_point"], 3))
    assert module.scale is parameter and parameter.shape == (3,)
