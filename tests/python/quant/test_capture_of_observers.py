# SPDX-License-Identifier: BSD-3-Clause
"""`torch.compile`, `torch.export`, autocast and copies of every observer, alone and inside `FakeQuantize`."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from quant_tools import OBSERVERS
from torch import Tensor, nn
from torch.export.graph_signature import OutputKind

from torchslim.quant import FakeQuantize, MinMaxObserver

#: By name, and what else becomes a child of the quantiser.
KINDS: dict[str, Any] = {
    "moving_average": "moving_average",
    "min_max": "min_max",
    "histogram": "histogram",
    "percentile": "percentile",
    "mse": "mse",
    "entropy": "entropy",
    "skipping": MinMaxObserver(non_finite="skip"),
}


def batches(count: int = 3) -> list[Tensor]:
    return [torch.randn(4, 5) * (9 + n) for n in range(count)]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def step(model: Any, batch: Tensor) -> tuple[Tensor, Tensor]:
    x = batch.clone().requires_grad_()
    y = model(x)
    y.sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


# ---- FakeQuantize with every observer ----


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seen_before", [False, True])
def test_a_quantiser_compiles_whole_in_training_and_eval(kind: str, axis: int | None, seen_before: bool) -> None:
    eager = FakeQuantize(KINDS[kind], axis=axis)
    if seen_before:
        eager(torch.randn(4, 5))
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in batches():
        for expected, got in zip(step(eager, batch), step(compiled, batch), strict=True):
            assert torch.equal(expected, got)
        assert_same_state(eager, twin)
    (x,) = batches(1)
    assert torch.equal(torch.compile(twin.eval(), fullgraph=True, backend="aot_eager")(x), eager.eval()(x))
    assert_same_state(eager, twin)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantiser_with_an_activation_or_without_rounding_compiles_whole(kind: str) -> None:
    makes: list[Callable[[], FakeQuantize]] = [
        lambda: FakeQuantize(KINDS[kind], activation="relu6"),
        lambda: FakeQuantize(KINDS[kind]).disable_fake_quant(),
        lambda: FakeQuantize(KINDS[kind]).disable_observer(),
    ]
    for make in makes:
        eager, twin = make(), make()
        compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
        for batch in batches():
            assert all(torch.equal(a, b) for a, b in zip(step(eager, batch), step(compiled, batch), strict=True))
        assert_same_state(eager, twin)


def test_a_quantiser_compiles_for_shapes_that_change() -> None:
    eager, twin = FakeQuantize("histogram"), FakeQuantize("histogram")
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (3, 4, 0, 7):
        x = torch.randn(size, 5)
        assert torch.equal(compiled(x), eager(x))
    assert_same_state(eager, twin)


def ops_of(graph: torch.fx.Graph) -> list[str]:
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return [name.removesuffix(".default") for name in names if name.startswith("torchslim.")]


#: What an export in training holds, in order, with one grid and with one for each channel.
SEARCHES = {"histogram": "l2_range", "percentile": "percentile_range", "mse": "mse_range", "entropy": "entropy_range"}


def ops_in_training(kind: str, axis: int | None) -> list[str]:
    if kind in ("moving_average", "min_max"):
        return ["torchslim.observe_fake_quantize" + ("" if axis is None else ".channels")]
    search = [f"torchslim.{SEARCHES[kind]}"] if kind in SEARCHES else []
    observe = "torchslim.observe_histogram" if search else "torchslim.observe_range"
    return [observe, *search, "torchslim.update_qparams", "torchslim.fake_quantize.tensor_qparams"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantiser_exports_with_its_state(kind: str, axis: int | None, strict: bool) -> None:
    quantiser = FakeQuantize(KINDS[kind], axis=axis)
    quantiser(torch.randn(4, 5))
    twin, before, (x,) = copy.deepcopy(quantiser), state_of(quantiser), batches(1)
    exported = torch.export.export(quantiser, (x,), strict=strict)  # shares its buffers
    assert all(torch.equal(before[name], tensor) for name, tensor in quantiser.state_dict().items())
    assert ops_of(exported.graph) == ops_in_training(kind, axis)
    changed = {
        spec.target
        for spec in exported.run_decompositions({}).graph_signature.output_specs
        if spec.kind == OutputKind.BUFFER_MUTATION
    }
    inner = {name for name in before if name.startswith("observer.")}
    assert changed == {"min_val", "max_val", "scale", "zero_point"} | inner
    module = exported.module()
    assert torch.equal(module(x), twin(x))
    moved = dict(module.named_buffers())
    assert all(torch.equal(moved[name], twin.state_dict()[name]) for name in changed)
    assert not torch.equal(before["scale"], moved["scale"])
    exported = torch.export.export(quantiser.eval(), (x,), strict=strict)
    assert ops_of(exported.graph) == ["torchslim.fake_quantize.tensor_qparams"]
    assert torch.equal(exported.module()(x), quantiser(x))


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantiser_runs_under_autocast_and_copies(kind: str, axis: int | None) -> None:
    x, other = torch.randn(40, 5), torch.randn(40, 5) * 9
    plain, cast = FakeQuantize(KINDS[kind], axis=axis), FakeQuantize(KINDS[kind], axis=axis)
    with torch.autocast("cpu", torch.bfloat16):
        y = cast(x)
    assert y.dtype == torch.float32 and torch.equal(y, plain(x))
    assert_same_state(plain, cast)
    twin = copy.deepcopy(plain)
    before = state_of(twin)
    assert torch.equal(twin(other), plain(other))
    assert_same_state(plain, twin)
    plain(100 * other)
    assert not torch.equal(plain.max_val, twin.max_val)
    assert not torch.equal(before["scale"], twin.scale)


# ---- observers by themselves ----


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"axis": 0, "group_size": 2}, {"non_finite": "skip"}])
@pytest.mark.parametrize("kind", OBSERVERS)
def test_an_observer_exports_as_one_node_that_changes_its_buffers(kind: Any, options: Any, strict: bool) -> None:
    observer = kind(**options)
    observer(torch.randn(4, 5))
    (x,) = batches(1)
    twin = copy.deepcopy(observer)
    exported = torch.export.export(observer, (x,), strict=strict)  # shares its buffers
    name = "observe_range" if observer.histogram is None else "observe_histogram"
    assert ops_of(exported.graph) == [f"torchslim.{name}"]
    specs = exported.run_decompositions({}).graph_signature.output_specs
    changed = {spec.target for spec in specs if spec.kind == OutputKind.BUFFER_MUTATION}
    assert changed == set(observer.state_dict())
    module = exported.module()
    assert torch.equal(module(x), x)
    twin(x)
    moved = dict(module.named_buffers())
    assert all(torch.equal(moved[name], tensor) for name, tensor in twin.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"axis": 0, "group_size": 2}])
@pytest.mark.parametrize("kind", OBSERVERS)
def test_an_observer_compiles_whole_from_the_first_tensor_on(kind: Any, options: Any) -> None:
    eager, twin = kind(**options), kind(**options)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in batches():
        assert torch.equal(compiled(batch), eager(batch))
        assert_same_state(eager, twin)
    choose: Any = torch.compile(twin.calculate_range, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(choose(), eager.calculate_range(), strict=True))


@pytest.mark.parametrize("kind", OBSERVERS)
def test_an_observer_copies_and_runs_under_autocast(kind: Any) -> None:
    x = torch.randn(100)
    plain, cast = kind(), kind()
    with torch.autocast("cpu", torch.bfloat16):
        assert cast(x) is x
    plain(x)
    assert_same_state(plain, cast)
    twin = copy.deepcopy(plain)
    before = state_of(twin)
    plain(100 * x)
    assert all(torch.equal(before[name], tensor) for name, tensor in twin.state_dict().items())
    assert not torch.equal(plain.max_val, twin.max_val)
