# SPDX-License-Identifier: BSD-3-Clause
import warnings

import pytest
import torch
from graph_zoo import randomize
from torch import Tensor, nn

import torchslim as ts

MODELS = {
    "mobilenet_v1": lambda: ts.models.mobilenet_v1(width=0.25),
    "mobilenet_v2": lambda: ts.models.mobilenet_v2(width=0.25),
    "resnet": lambda: ts.models.resnet(width=0.25),
}


def traced_output(model: nn.Module, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad():
            return torch.jit.trace(model, x, check_trace=False)(x)


@pytest.mark.parametrize("name", MODELS)
def test_bundled_models_are_captured(name: str) -> None:
    model = randomize(MODELS[name]())
    x = torch.randn(2, 3, 32, 32)
    graph = ts.graph.capture(model, x)
    expected = model.eval()(x).detach()
    scale = expected.abs().max().item()
    torch.testing.assert_close(ts.graph.run_float(graph, x), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_a_prepared_model_is_captured_with_its_grids(name: str) -> None:
    x = torch.randn(2, 3, 32, 32)
    model = ts.quant.prepare(randomize(MODELS[name]()), x)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 32, 32))
    graph = ts.graph.capture(model, x)
    layers = [node for node in graph.nodes if node.kind in ("conv2d", "linear")]
    state = model.state_dict()
    for node in layers:
        assert node.weight_grid is not None
        assert node.weight_grid.axis == 0
        assert node.weight.value is not None
        assert torch.equal(node.weight.value, state[node.weight.name])
    for node in graph.nodes:
        if node.grid is not None and node.layer:
            assert torch.equal(node.grid.scale, state[f"{node.layer}.scale"])
    assert f"{layers[0].layer}.output_fake_quantize" in [node.layer for node in graph.nodes]
    assert torch.equal(ts.graph.run_float(graph, x), traced_output(model.eval(), x))
