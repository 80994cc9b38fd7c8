# SPDX-License-Identifier: BSD-3-Clause
"""Models that a plain symbolic trace cannot take: loops over chunks, decisions by sizes."""

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant.tracing import trace


class Mixed(nn.Module):
    """One convolution for each chunk of the channels, padded by what the size asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 2 * k + 1, padding=k) for k in range(2))

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, _ = x.size()
        if h % 2 == 1:
            x = nn.functional.pad(x, (0, 1, 0, 1))
        parts = [conv(part) for conv, part in zip(self.convs, x.chunk(2, 1), strict=True)]
        return torch.cat(parts, 1).view(n, x.shape[1], -1).mean(2)


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("size", [7, 8])
def test_sizes_are_numbers_and_the_batch_is_free(size: int) -> None:
    model = Mixed().eval()
    x = torch.randn(5, 8, size, size)
    graph = trace(model, torch.randn(2, 8, size, size))
    assert torch.equal(torch.fx.GraphModule(model, graph)(x), model(x))
    prepared = ts.quant.prepare(model, x[:2]).train()
    prepared(x)
    assert torch.equal(ts.quant.convert(prepared.eval())(x), prepared(x))


def test_a_decision_on_values_is_refused_with_the_users_line() -> None:
    with pytest.raises(ValueError, match=r"cannot be traced \(test_tracing.py:\d+: return x if x.sum"):
        ts.quant.prepare(Decides(), torch.zeros(1, 3, 4, 4))


def test_batch_norms_do_not_move_while_tracing() -> None:
    model = nn.Sequential(Mixed(), nn.Unflatten(1, (8, 1, 1)), nn.BatchNorm2d(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, torch.randn(2, 8, 8, 8))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and model[2].training
