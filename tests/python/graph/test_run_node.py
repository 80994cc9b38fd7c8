# SPDX-License-Identifier: BSD-3-Clause
"""A graph run node by node through torch's own operators computes what the model does."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim.graph.run_node import run_node

sys.path.append(str(Path(__file__).parents[1] / "quant"))
from test_operations import CASES, Around

MODELS: dict[str, nn.Module] = {
    "lengths": nn.Sequential(
        nn.Conv1d(3, 4, 3, 2, 1, groups=1), nn.BatchNorm1d(4), nn.AvgPool1d(2), nn.ConvTranspose1d(4, 2, 3, 2, 1, 1)
    ),
    "images": nn.Sequential(
        nn.ConvTranspose2d(3, 4, (3, 2), 2, 1, (1, 0), dilation=(1, 2)),
        nn.ReLU6(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    ),
}


def through_nodes(graph: ts.graph.Graph, x: Tensor) -> Tensor:
    values: list[Tensor] = []
    for node in graph.nodes:
        inputs = [values[i] for i in node.inputs]
        values.append(run_node(node, inputs) if inputs else x)
    return values[-1]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("folded", [False, True])
def test_operations(name: str, folded: bool) -> None:
    torch.manual_seed(0)
    model, x = Around(CASES[name][0]).eval(), torch.randn(2, 3, 8, 8)
    model(x)
    graph = ts.graph.capture(model, x)
    if folded:
        graph = ts.graph.fold_batch_norms(graph)
    torch.testing.assert_close(through_nodes(graph, x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_windows(name: str) -> None:
    model, x = MODELS[name].eval(), torch.randn(2, 3, *([9] if name == "lengths" else [9, 10]))
    torch.testing.assert_close(through_nodes(ts.graph.capture(model, x), x), model(x), rtol=1e-4, atol=1e-5)


def test_tensors_of_the_model_can_be_replaced() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2)).eval(), torch.randn(4, 3)
    graph = ts.graph.capture(model, x)
    assert torch.equal(run_node(graph.nodes[1], [x], torch.zeros_like), torch.zeros(4, 2))


def test_a_quantiser_is_refused() -> None:
    prepared, x = ts.quant.prepare(nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)), torch.randn(4, 3)
    prepared(x)
    graph = ts.graph.capture(prepared.eval(), x)
    with pytest.raises(ValueError, match="a fake_quantize cannot be run alone"):
        run_node(graph.nodes[1], [x])
