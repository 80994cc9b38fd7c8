# SPDX-License-Identifier: BSD-3-Clause
"""What each target runs in integers, and what it cannot run."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts


def trained(model: nn.Module, shape: tuple[int, ...] = (3, 8, 8)) -> nn.Module:
    torch.manual_seed(0)
    prepared = ts.quant.prepare(model.train(), torch.randn(1, *shape))
    prepared(torch.randn(8, *shape))
    return prepared.eval()


def lowered(model: nn.Module) -> ts.deploy.IntegerGraph:
    return ts.deploy.lower(ts.graph.capture(model, torch.zeros(1, 3, 8, 8)))


class Several(nn.Module):
    """One operation of each arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.pool, self.dilated = nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = self.dilated(self.pool(y + y))
        result: Tensor = self.up(y * torch.sigmoid(y)).softmax(1)
        return result


def test_each_target_says_how_it_computes() -> None:
    graph = lowered(trained(Several()))
    by_target = {
        target: {fit.op: fit.arithmetic for fit in ts.deploy.fit_target(graph, target)}
        for target in ts.deploy.known_targets()
    }
    assert list(by_target) == ["qnnpack", "onnx", "xnnpack"]
    qnnpack = by_target["qnnpack"]
    assert {qnnpack[op] for op in ("input", "conv2d", "add")} == {"int8"}
    assert {qnnpack[op] for op in ("mul", "table", "conv_transpose2d")} == {"float on codes"}
    pools = [fit for fit in ts.deploy.fit_target(graph, "qnnpack") if fit.op == "max_pool2d"]
    assert [(fit.layer, fit.arithmetic) for fit in pools] == [("pool", "int8"), ("dilated", "float on codes")]
    for target in ("onnx", "xnnpack"):
        assert all(arithmetic == ("float" if op == "float" else "int8") for op, arithmetic in by_target[target].items())
    assert all(not fit.problem for target in by_target for fit in ts.deploy.fit_target(graph, target))


def test_rows_are_the_graph_s_nodes() -> None:
    graph = lowered(trained(Several()))
    fits = ts.deploy.fit_target(graph, "qnnpack")
    assert [(fit.layer, fit.op) for fit in fits] == [(node.layer, node.op) for node in graph.nodes]


def test_a_factor_that_xnnpack_does_not_take_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)))
    coarse, fine = (model.get_submodule(f"{layer}.output_fake_quantize") for layer in "01")
    assert isinstance(coarse.scale, Tensor) and isinstance(fine.scale, Tensor)
    coarse.scale.fill_(400.0)
    fine.scale.fill_(2.0**-12)
    problems = [fit.problem for fit in ts.deploy.fit_target(lowered(model), "xnnpack")]
    assert problems[:2] == ["", ""] and "in [2.32831e-10, 256), got" in problems[2]
    path = tmp_path / "net.pte"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"torchslim.deploy.save: layer '1' \(conv2d\): xnnpack takes input scale"):
        ts.deploy.save(model, torch.zeros(1, 3, 8, 8), path)
    assert path.read_text() == "old"
    assert not any(fit.problem for fit in ts.deploy.fit_target(lowered(model), "qnnpack"))


def test_unknown_target_lists_the_known() -> None:
    graph = lowered(trained(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ValueError, match="must be one of qnnpack, onnx, xnnpack, got 'coreml'"):
        ts.deploy.fit_target(graph, "coreml")
