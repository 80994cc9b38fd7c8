# SPDX-License-Identifier: BSD-3-Clause
"""Files of networks with every operation: the lite interpreter computes what the integer reference does."""

import sys
from pathlib import Path
from typing import Any

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


def agrees(model: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> bool:
    """Whether the file of the model, prepared, gives what the integer reference gives, for five images."""
    torch.manual_seed(0)
    prepared = ts.quant.prepare(model.train(), torch.randn(1, *shape))
    prepared(torch.randn(8, *shape))
    x = 2 * torch.randn(5, *shape)
    saved = ts.deploy.save(prepared.eval(), x[:1], tmp_path / "net.ptl")
    return torch.equal(ts.deploy.load(saved.path)(x), ts.quant.convert(prepared)(x))


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(8, 6, (2, 3), (3, 2), (0, 1), (2, 1), groups=2, dilation=(1, 2), bias=False),
        nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6()),
        nn.MaxPool2d(3, 1, 1, dilation=2),
        nn.MaxPool2d(1, 2),
        nn.AvgPool2d(1, 2),
    ],
    ids=str,
)
def test_what_qnnpack_has_no_kernel_for_is_exact_in_float(layer: nn.Module, tmp_path: Path) -> None:
    assert agrees(nn.Sequential(nn.Conv2d(3, 8, 3), layer), (3, 9, 8), tmp_path)


def test_sums_that_float32_does_not_hold_are_exact(tmp_path: Path) -> None:
    layer = nn.ConvTranspose2d(64, 4, 5)
    nn.init.constant_(layer.weight, 1.0)  # codes of 127: sums beyond 2^24, so steps of 1 matter
    assert agrees(nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), layer), (3, 6, 6), tmp_path)


class Attention(nn.Module):
    """Of queries that are computed, with what `options` says."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.inputs, self.options = nn.Linear(8, 8), options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inputs(x)
        return nn.functional.scaled_dot_product_attention(y, y.flip(1), y, **self.options)


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 0.3}, {"is_causal": True}, {"attn_mask": torch.randn(6, 6)}, {"attn_mask": torch.eye(6) == 0}],
    ids=["plain", "scale", "causal", "added mask", "mask of truths"],
)
def test_attention_is_written_in_what_older_runtimes_have(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention(options).eval()
    x = torch.randn(3, 6, 8)
    path = ts.deploy.save(model, x[:1], tmp_path / "net.ptl").path
    torch.testing.assert_close(ts.deploy.load(path)(x), model(x).detach(), rtol=1e-5, atol=1e-6)
    assert all(ts.deploy.check(path, runtime).ok for runtime in ts.deploy.known_runtimes())


@pytest.mark.parametrize("suffix", ["ptl", "onnx"])
def test_heads_that_queries_share_are_repeated(suffix: str, tmp_path: Path) -> None:
    class SharedHeads(Attention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inputs(x).unflatten(2, (4, 2)).transpose(1, 2)
            few = y[:, 1:3]
            return nn.functional.scaled_dot_product_attention(y, few, few, enable_gqa=True)

    torch.manual_seed(0)
    model = SharedHeads({}).eval()
    x = torch.randn(3, 6, 8)
    path = ts.deploy.save(model, x[:1], tmp_path / f"net.{suffix}").path
    torch.testing.assert_close(ts.deploy.load(path)(x), model(x).detach(), rtol=1e-5, atol=1e-6)


def test_transposed_over_lengths(tmp_path: Path) -> None:
    layers = nn.Conv1d(3, 8, 3), nn.ConvTranspose1d(8, 4, 4, 2, 1, groups=2), nn.BatchNorm1d(4), nn.ReLU()
    assert agrees(nn.Sequential(*layers), (3, 16), tmp_path)


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


@pytest.mark.parametrize("name", CASES)
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
