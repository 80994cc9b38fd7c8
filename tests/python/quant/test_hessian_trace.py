# SPDX-License-Identifier: BSD-3-Clause
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchslim as ts


class Small(nn.Module):
    """A convolution, a linear layer and one that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.fc = nn.Linear(3, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(x)).mean((2, 3)))


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 2, 4, 4, generator=generator, dtype=torch.float64), torch.arange(8) % 2) for _ in range(count)
    ]


def exact_trace(model: nn.Module, name: str, batch: Any) -> float:
    """The diagonal of the Hessian, one element after the other."""
    weight = model.get_parameter(name)

    def of_weight(value: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, {name: value}, (batch[0],)), batch[1])

    hessian = torch.autograd.functional.hessian(of_weight, weight.detach())
    return hessian.reshape(weight.numel(), weight.numel()).trace().item()


def test_near_the_trace_of_the_whole_hessian() -> None:
    torch.manual_seed(0)
    model = Small().double().train()
    data = batches(2)
    traces = ts.quant.hessian_trace(model, loss, data, samples=1500)
    assert list(traces) == ["conv", "fc", "unused"]
    for name in ("conv", "fc"):
        expected = sum(exact_trace(model, f"{name}.weight", batch) for batch in data) / 2
        assert traces[name] == pytest.approx(expected, rel=0.1)
    assert traces["unused"] == 0.0
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_seed_gives_the_same_numbers_and_another_gives_others(threads: int) -> None:
    torch.manual_seed(0)
    model = Small().double()
    first, again = (ts.quant.hessian_trace(model, loss, batches(2), samples=4, seed=3) for _ in range(2))
    other = ts.quant.hessian_trace(model, loss, batches(2), samples=4, seed=4)
    assert first == again != other


def test_a_bundled_model_and_its_progress() -> None:
    model = ts.models.resnet(2, 8, in_channels=2)
    data = [(x.float(), y) for x, y in batches(2)]
    calls: list[tuple[int, int | None]] = []
    traces = ts.quant.hessian_trace(model, loss, iter(data), samples=1, progress=lambda *done: calls.append(done))
    assert "blocks.0.conv1.conv" in traces
    assert calls == [(1, None), (2, None)]


def test_refusals() -> None:
    model = Small()
    data = [(x.float(), y) for x, y in batches(1)]
    with pytest.raises(ValueError, match="the loader is empty"):
        ts.quant.hessian_trace(model, loss, [])
    with pytest.raises(ValueError, match="the loss must be one number"):
        ts.quant.hessian_trace(model, lambda model, batch: model(batch[0]), data)
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        ts.quant.hessian_trace(model, loss, data, samples=0)
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        ts.quant.hessian_trace(nn.ReLU(), loss, data)
    model.fc.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="the weight of layer 'fc' has no gradient"):
        ts.quant.hessian_trace(model, loss, data)


def test_a_prepared_model_is_refused_by_its_quantiser() -> None:
    x = torch.randn(4, 2, 8, 8)
    prepared = ts.quant.prepare(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, 2)), x)
    prepared(x)
    with pytest.raises(RuntimeError, match="torchslim::"):
        ts.quant.hessian_trace(prepared, loss, [(x, torch.arange(4) % 2)])
