# SPDX-License-Identifier: BSD-3-Clause
import copy

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import LearnedActivation, LearnedFakeQuantize, Pact

KINDS = LearnedActivation.names()


def fed(quantizer: str, bits: int = 8, activation: str = "none") -> LearnedActivation:
    torch.manual_seed(0)
    module = LearnedActivation.of(quantizer, bits, activation)
    module(torch.randn(1000))
    return module


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("quantizer", KINDS)
def test_it_is_fake_quantize_on_the_grid_that_it_tells(quantizer: str, bits: int, activation: str) -> None:
    if quantizer == "pact" and activation == "none":
        pytest.skip("PACT goes only behind a ReLU")
    module = fed(quantizer, bits, activation).eval()
    x = 3 * torch.randn(100)
    y = {"none": x, "relu": torch.relu(x), "relu6": nn.functional.relu6(x)}[activation]
    assert -128 <= module.quant_min <= int(module.zero_point) <= module.quant_max <= 127
    expected = ts.quant.fake_quantize(y, module.scale, module.zero_point, module.quant_min, module.quant_max)
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("quantizer", ["lsq", "tqt"])
def test_behind_a_relu_symmetric_grids_use_all_their_codes(quantizer: str) -> None:
    module = fed(quantizer, 8, "relu")
    assert (module.quant_min, module.quant_max, int(module.zero_point)) == (-128, 127, -128)
    module = fed(quantizer, 4, "relu")
    assert (module.quant_min, module.quant_max, int(module.zero_point)) == (0, 15, 0)


@pytest.mark.parametrize("quantizer", KINDS)
def test_its_grid_trains_unless_the_observer_is_disabled(quantizer: str) -> None:
    module = fed(quantizer, 4, "relu")
    x = 3 * torch.randn(100)
    module.disable_observer()(x).sum()
    assert all(p.grad is None for p in module.parameters())
    module.enable_observer()(x).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_while_it_does_not_round_each_batch_sets_it_anew() -> None:
    module = LearnedActivation.of("range").disable_fake_quant()
    x = torch.tensor([-1.0, 2.0])
    assert module(x) is x
    module(4 * x)
    assert float(module.learned.input_range) == 12
    module.eval()(100 * x)
    assert float(module.learned.input_range) == 12
    module.train().disable_observer()(100 * x)
    assert float(module.learned.input_range) == 12
    module.enable_observer().enable_fake_quant()(100 * x)
    assert float(module.learned.input_range) == 12


def test_no_grid_is_finer_than_runtimes_can_hold_and_it_can_grow_again() -> None:
    module = fed("lsq", 8)
    with torch.no_grad():
        module.learned.scale.fill_(1e-6)
    assert float(module.scale) == 2.0**-12
    x = torch.randn(100)
    y = module(x)
    assert torch.equal(y, ts.quant.fake_quantize(x, module.scale, module.zero_point, -128, 127))
    y.backward(torch.sign(x))
    assert module.learned.scale.grad.abs() > 0


def test_eval_before_any_batch_is_refused() -> None:
    module = LearnedActivation.of("lsq").eval()
    assert not module.has_grid()
    with pytest.raises(ValueError, match="the grid has no values yet"):
        module(torch.ones(2))


@pytest.mark.parametrize("quantizer", KINDS)
def test_it_saves_loads_and_copies(quantizer: str) -> None:
    module = fed(quantizer, 4, "relu").disable_observer()
    fresh = LearnedActivation.of(quantizer, 4, "relu")
    fresh.load_state_dict(module.state_dict())
    x = torch.randn(50)
    assert torch.equal(fresh.eval()(x), module.eval()(x))
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    assert not fresh.observer_enabled


def test_under_a_trace_it_is_one_node_with_a_constant_grid() -> None:
    module = fed("lsq+", 4, "relu").eval()
    traced = torch.jit.trace(module, torch.randn(5))
    ops = [node.kind() for node in traced.inlined_graph.nodes() if node.kind().startswith(("aten", "torchslim"))]
    assert ops == ["aten::relu", "torchslim::fake_quantize"]
    x = torch.randn(7)
    assert torch.equal(traced(x), module(x))


@pytest.mark.parametrize(
    ("learned", "activation", "message"),
    [
        (lambda: LearnedFakeQuantize(-8, 7, axis=0), "none", "one grid for the tensor, got axis 0"),
        (lambda: LearnedFakeQuantize(-8, 7), "tanh", "must be one of none, relu, relu6, got tanh"),
        (lambda: Pact(0, 511), "relu", r"at most 256 codes, got \[0, 511\]"),
    ],
)
def test_what_no_prepared_model_can_hold(learned: type[LearnedFakeQuantize], activation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedActivation(learned(), activation)


def test_it_compiles_whole() -> None:
    module = fed("lsq", 4, "relu")

    def loss(x: Tensor) -> Tensor:
        return module(x).square().sum()

    x = torch.randn(50)
    assert torch.equal(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), loss(x))
