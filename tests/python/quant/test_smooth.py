# SPDX-License-Identifier: BSD-3-Clause
import copy
import math

import pytest
import torch
from reference.smooth import scale_of
from torch import Tensor, nn

from torchslim.quant import fake_quantize, smooth, smooth_scale
from torchslim.quant.qparams import choose_qparams


class Block(nn.Module):
    """A transformer block: a norm that three layers read, and two linear layers with a ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        scores = torch.softmax(self.q(y) @ self.k(y).transpose(1, 2), -1)
        x = x + self.out(scores @ self.v(y))
        return x + self.down(self.relu(self.up(self.norm2(x))))


def block() -> tuple[Block, list[Tensor]]:
    """A block in which some channels of the norms are large, as in language models, and data."""
    torch.manual_seed(0)
    model = Block().eval()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight[2] = 60.0
            norm.bias[5] = -20.0
    return model, [torch.randn(4, 10, 8) for _ in range(3)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_scale_is_that_of_the_reference(alpha: float) -> None:
    torch.manual_seed(0)
    input_max, weights = torch.rand(6), [torch.randn(4, 6), torch.randn(3, 6)]
    input_max[1] = 0
    for weight in weights:
        weight[:, 2] = 0
    scale = smooth_scale(input_max, weights, alpha)
    torch.testing.assert_close(scale, torch.tensor(scale_of(input_max, weights, alpha)), rtol=1e-6, atol=0)
    assert scale[1] == scale[2] == 1


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_the_model_computes_the_same(alpha: float) -> None:
    model, data = block()
    before = copy.deepcopy(model)
    heard: list[tuple[int, int]] = []
    found = smooth(model.train(), data, alpha, progress=lambda *step: heard.append(step))
    assert model.training and heard == [(1, 3), (2, 3), (3, 3)]
    assert [(g.before, g.after) for g in found] == [("norm1", ("q", "k", "v")), ("norm2", ("up",)), ("up", ("down",))]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(data[0]), before(data[0]), rtol=1e-4, atol=1e-4)
        largest = before.norm1(torch.cat(data))
    expected = smooth_scale(
        largest.abs().flatten(0, 1).amax(0), [layer.weight for layer in (before.q, before.k, before.v)], alpha
    )
    torch.testing.assert_close(found[0].scale, expected)
    torch.testing.assert_close(model.norm1.weight, before.norm1.weight / expected)
    torch.testing.assert_close(model.q.weight, before.q.weight * expected)


def test_rounding_both_loses_less() -> None:
    model, data = block()
    expected = model.q(model.norm1(data[0])).detach()

    def error() -> float:
        x = model.norm1(data[0]).detach()
        scale, zero_point = choose_qparams(x.min(), x.max(), -128, 127, False)
        x = fake_quantize(x, scale, zero_point, -128, 127)
        rounded, _ = torch.ops.torchslim.fake_quantize_weight(model.q.weight.detach())
        return float((x @ rounded.T + model.q.bias.detach() - expected).square().mean())

    before = error()
    smooth(model, data)
    assert error() < 0.5 * before


def test_what_anything_else_reads_stays() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear, self.gelu, self.last = nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return y + self.last(self.gelu(self.linear(y)))

    with pytest.raises(ValueError, match=r"torchslim.quant.smooth: found no LayerNorm or linear layer whose result"):
        smooth(Residual(), [torch.randn(2, 4)])


def test_groups_by_name() -> None:
    model, data = block()
    before = copy.deepcopy(model)
    found = smooth(model, data, groups={"norm2": ["up"]})
    assert [(g.before, g.after) for g in found] == [("norm2", ("up",))]
    assert torch.equal(model.norm1.weight, before.norm1.weight)
    assert not torch.equal(model.norm2.weight, before.norm2.weight)
    torch.testing.assert_close(model(data[0]), before(data[0]), rtol=1e-4, atol=1e-4)


def test_refuses_and_leaves_the_model() -> None:
    model, data = block()
    before = copy.deepcopy(model.state_dict())
    for arguments, message in (
        ({"loader": []}, r"there is no batch"),
        ({"loader": [data[0] * math.nan]}, r"batch 0 holds NaN or infinity"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5$"),
        ({"groups": {"norm3": ["up"]}}, r"the model holds no 'norm3'$"),
        ({"groups": {"relu": ["down"]}}, r"'relu' must be a LayerNorm or Linear, got ReLU$"),
        ({"groups": {"norm2": ["relu"]}}, r"'relu', behind 'norm2', must be a Linear, got ReLU$"),
        ({"groups": {"norm2": []}}, r"expected a layer behind 'norm2'$"),
        ({"groups": {"norm2": ["down"]}}, r"'down' takes 16 features, 'norm2' gives 8$"),
    ):
        with pytest.raises(ValueError, match=message):
            smooth(**{"model": model, "loader": data, **arguments})
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    plain = nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"LayerNorm '0' must have a weight over one dimension"):
        smooth(plain, [torch.randn(2, 4)], groups={"0": ["1"]})
    for arguments, message in (
        ((torch.tensor([-1.0]), [torch.ones(1, 1)]), r"input_max must be >= 0 and finite$"),
        ((torch.ones(2), [torch.ones(1, 3)]), r"expected weights of shape \(O, 2\), got \[1, 3\]$"),
        ((torch.ones(2), []), r"expected the weight of one layer at least$"),
        ((torch.ones(1), [torch.ones(1, 1) * math.inf]), r"a weight holds NaN or infinity$"),
    ):
        with pytest.raises(ValueError, match="torchslim::quant::smooth_scale: " + message):
            smooth_scale(*arguments)
