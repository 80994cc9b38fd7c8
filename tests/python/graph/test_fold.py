# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch
from graph_zoo import ZOO, randomize
from torch import Tensor, nn

import torchslim as ts


@pytest.mark.parametrize("name", ZOO)
def test_folded_graph_computes_the_same_without_batch_norms(name: str) -> None:
    make, shape = ZOO[name]
    model = randomize(make())
    x = torch.randn(shape)
    graph = ts.graph.capture(model, x)
    before = graph.to_json()
    folded = ts.graph.fold_batch_norms(graph)
    assert "batch_norm2d" not in [node.kind for node in folded.nodes]
    torch.testing.assert_close(ts.graph.run_float(folded, x), ts.graph.run_float(graph, x), rtol=1e-5, atol=1e-5)
    assert graph.to_json() == before


class TwoReaders(nn.Module):
    """The first batch norm has no convolution before it, the second shares its convolution with an add."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.first(x))
        return y + self.norm(y)


def test_a_batch_norm_that_cannot_be_folded_becomes_a_depthwise_convolution() -> None:
    model = randomize(TwoReaders())
    x = torch.randn(2, 3, 8, 8)
    graph = ts.graph.capture(model, x)
    folded = ts.graph.fold_batch_norms(graph)
    assert [node.kind for node in folded.nodes] == ["input", "conv2d", "conv2d", "conv2d", "add"]
    assert [node.window.groups for node in folded.nodes[1:4]] == [3, 1, 4]
    torch.testing.assert_close(ts.graph.run_float(folded, x), model.eval()(x).detach(), rtol=1e-5, atol=1e-5)


def test_a_fold_that_is_not_finite_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[1].running_var.fill_(-1.0)
    graph = ts.graph.capture(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"batch norm `1` gives values that are not finite"):
        ts.graph.fold_batch_norms(graph)
