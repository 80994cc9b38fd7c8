# SPDX-License-Identifier: BSD-3-Clause
"""Files of networks with every operation: the lite interpreter computes what the integer reference does."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchslim as ts

sys.path.append(str(Path(__file__).parents[1] / "quant"))
from test_operations import CASES, Around


def trained(name: str) -> nn.Module:
    """The operation between two convolutions, on grids that have seen data."""
    torch.manual_seed(0)
    model = Around(CASES[name][0]).eval()
    model(torch.randn(1, 3, 8, 8))  # sets the size of what is lazy
    prepared = ts.quant.prepare(model.train(), torch.randn(1, 3, 8, 8))
    for _ in range(2):
        prepared(torch.randn(8, 3, 8, 8))
    return prepared.eval()


#: What int8 files lack: QNNPACK has one scale for the whole weight of a transposed convolution.
LACKS = {"transposed convolution"}


@pytest.mark.parametrize("name", LACKS)
def test_what_files_lack_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer 'function': the operation conv_transpose2d cannot be written"):
        ts.deploy.save(trained(name), torch.randn(1, 3, 8, 8), tmp_path / "net.ptl")


def test_convolutions_over_lengths(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 4, 3, 2, groups=4)
    )
    prepared = ts.quant.prepare(model, torch.randn(1, 3, 16))
    prepared(torch.randn(8, 3, 16))
    x = torch.randn(5, 3, 16)
    saved = ts.deploy.save(prepared.eval(), x[:1], tmp_path / "net.ptl")
    assert torch.equal(ts.deploy.load(saved.path)(x), ts.quant.convert(prepared)(x))


@pytest.mark.parametrize("name", [name for name in CASES if name not in LACKS])
def test_the_file_computes_what_the_reference_computes(name: str, tmp_path: Path) -> None:
    prepared = trained(name)
    x = torch.randn(5, 3, 8, 8)
    saved = ts.deploy.save(prepared, x[:1], tmp_path / "net.ptl")
    assert saved.kind == "int8"
    result, expected = ts.deploy.load(saved.path)(x), ts.quant.convert(prepared)(x)
    if CASES[name][1] == 0:
        assert torch.equal(result, expected)
        return
    # Sums of floats depend on how a batch is divided: now and then one falls to the other side of a step.
    step = ts.quant.convert(prepared).integer_graph.nodes[-1].scale
    steps = ((result - expected) / step).abs()
    assert steps.max() <= 1.5
    assert (steps > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("name", CASES)
def test_a_float_file_computes_what_the_model_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Around(CASES[name][0]).eval()
    x = torch.randn(5, 3, 8, 8)
    expected = model(x)
    saved = ts.deploy.save(model, x[:1], tmp_path / "net.ptl")
    assert saved.kind == "float"
    torch.testing.assert_close(ts.deploy.load(saved.path)(x), expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_tensor_that_two_operations_read_is_in_the_file_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.relu(self.linear(x)))

    saved = ts.deploy.save(Tied().eval(), torch.zeros(1, 256), tmp_path / "net.ptl")
    assert saved.bytes < 1.2 * 4 * 256 * 257
