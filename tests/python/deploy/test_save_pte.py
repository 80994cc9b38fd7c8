# SPDX-License-Identifier: BSD-3-Clause
"""ExecuTorch files: XNNPACK runs all layers, and computes what the integer reference does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deploy_zoo import NETWORKS, images, trained
from executorch.runtime import Runtime
from torch import Tensor, nn

import torchslim as ts

sys.path.append(str(Path(__file__).parents[1] / "quant"))
from test_operations import CASES, Around


def in_executorch(path: Path, x: Tensor) -> Tensor:
    method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None
    result: Tensor = method.execute([x])[0]
    return result


@pytest.mark.parametrize("make", NETWORKS)
def test_networks(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    prepared, x = trained(make), images(4)
    saved = ts.deploy.save(prepared, x, tmp_path / "net.pte")
    assert (saved.kind, saved.records, saved.bytes) == ("int8", 1, saved.path.stat().st_size)
    converted = ts.quant.convert(prepared)
    step = converted.integer_graph.nodes[-1].scale
    away = ((in_executorch(saved.path, x) - converted(x)) / step).abs()
    assert away.max() <= 1.5
    assert (away > 0.5).float().mean() <= 0.2


def test_the_manifest_can_be_read_and_checked(tmp_path: Path) -> None:
    prepared, x = trained(NETWORKS[1]), images(1)
    labels = ['a "quoted" ü'] * 10
    saved = ts.deploy.save(prepared, x, tmp_path / "net.pte", mean=[0.5] * 3, std=[0.25] * 3, labels=labels)
    file = ts.deploy.load(saved.path)
    manifest = file.manifest
    assert manifest["labels"] == labels
    assert manifest["input"]["shape"] == [1, 3, 20, 20]
    grid, out = manifest["input_grid_uint8"], manifest["output_grid_uint8"]
    codes = (89 * torch.arange(3 * 20 * 20) + 7) % 256
    sample = grid["scale"] * (codes - grid["zero_point"]).float().view(1, 3, 20, 20)
    steps = torch.round(file(sample) / out["scale"]).long() + out["zero_point"]
    assert (steps.flatten() - torch.tensor(manifest["sample"]["output_uint8"])).abs().max() <= 1
    with pytest.raises(ValueError, match="mean and std must have one number for each of the 3 input channels, got 1"):
        ts.deploy.save(prepared, x, tmp_path / "net.pte", mean=[0.5], std=[0.25])


def test_a_float_file(tmp_path: Path) -> None:
    model, x = NETWORKS[1]().eval(), images(2)
    saved = ts.deploy.save(model, x, tmp_path / "net.pte")
    assert saved.kind == "float"
    torch.testing.assert_close(in_executorch(saved.path, x), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["squeeze-excite", "hardswish", "concatenation", "concatenation, relu", "shuffle",
     "attention", "prelu of channels", "adaptive maximum",
     "attention layer"],
)  # fmt: skip
def test_operations(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Around(CASES[name][0]).eval(), torch.randn(2, 3, 8, 8)
    model(x)
    prepared = ts.quant.prepare(model.train(), x)
    prepared(torch.randn(16, 3, 8, 8))
    saved = ts.deploy.save(prepared.eval(), x, tmp_path / "net.pte")
    converted = ts.quant.convert(prepared)
    away = ((in_executorch(saved.path, x) - converted(x)) / converted.integer_graph.nodes[-1].scale).abs()
    assert away.max() <= 2.5
    assert (away > 0.5).float().mean() < 0.05


def test_what_executorch_does_not_take_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1)).eval()
    with pytest.raises(ValueError, match=r"was not written: ExecuTorch does not take the network \("):
        ts.deploy.save(model, torch.randn(1, 3, 4, 4, 4), tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"torchslim.deploy.save: 0.weight holds NaN or infinity; nothing was written"):
        ts.deploy.save(model, torch.randn(1, 3), tmp_path / "net.pte")
