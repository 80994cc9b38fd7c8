# SPDX-License-Identifier: BSD-3-Clause
"""Operations beside layers: each trains, and its integers are what eval computes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchslim as ts


class Around(nn.Module):
    """`function` between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.function = function
        self.tail = nn.LazyConv2d(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.function(self.head(x)))


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def attention(x: Tensor) -> Tensor:
    y = x.flatten(2).transpose(1, 2)
    return (torch.softmax(y @ y.transpose(1, 2), -1) @ y).transpose(1, 2).reshape(x.shape)


class Token(nn.Module):
    """A row of constants beside those of the input, as a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 8, 1, 8))
        self.register_buffer("border", torch.randn(8, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        border = self.border.expand(x.size(0), -1, -1, -1)
        return torch.cat([self.token.expand(x.shape[0], -1, -1, -1), x, border], 2)


class Heads(nn.Module):
    """Attention whose layer holds queries, keys and values together."""

    def __init__(self, layer: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if layer else None
        self.qkv = nn.Identity() if layer else nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        n, places, channels = y.shape
        if self.attention is not None:
            y = self.attention(y, y, y)[0]
        else:
            q, k, v = self.qkv(y).reshape(n, places, 3, 2, channels // 2).permute(2, 0, 3, 1, 4).unbind(0)
            y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(n, places, channels)
        return y.transpose(1, 2).reshape(x.shape)


#: The operation, and how many nodes of the integer graph compute in floats.
CASES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "hardswish": (nn.Hardswish(), 0),
    "hardswish in place": (nn.Hardswish(inplace=True), 0),
    "silu": (F.silu, 0),
    "sigmoid": (torch.sigmoid, 0),
    "hardsigmoid": (F.hardsigmoid, 0),
    "tanh": (torch.tanh, 0),
    "leaky relu": (nn.LeakyReLU(0.1), 0),
    "gelu": (nn.GELU(), 0),
    "elu": (F.elu, 0),
    "hardtanh": (nn.Hardtanh(-1, 1), 0),
    "clamp": (lambda x: x.clamp(-0.5, 2), 0),
    "numbers": (lambda x: (2 * x + 1) / 3 - 0.5, 0),
    "product": (lambda x: x * torch.relu(x), 0),
    "squeeze-excite": (lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)), 0),
    "squeeze-excite, factor first": (lambda x: x.mean((2, 3), keepdim=True) * x, 0),
    "sum in place": (lambda x: x.relu().add_(x), 0),
    "concatenation": (lambda x: torch.cat([x, F.relu(x), F.max_pool2d(x, 3, 1, 1)], 1), 0),
    "concatenation on one grid": (lambda x: torch.cat([x, x[:, :4]], 1), 0),
    "concatenation, relu": (lambda x: F.relu(torch.cat([x, -x], 1)), 0),
    "batch norm alone": (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU()), 0),
    "shuffle": (shuffle, 0),
    "channel shuffle": (nn.ChannelShuffle(2), 0),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1], 0),
    "split": (lambda x: torch.cat([x.split((3, 5), 1)[1], x.split((3, 5), 1)[0]], 1), 0),
    "slices": (lambda x: x[:, 1:, ::2], 0),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2.0), 0),
    "zero padding": (lambda x: F.pad(x, (0, 1, 2, 0)), 0),
    "reflection": (nn.ReflectionPad2d(1), 0),
    "adaptive maximum": (nn.AdaptiveMaxPool2d(2), 0),
    "pixel shuffle": (nn.PixelShuffle(2), 0),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 1),
    "average of 2 x 2": (nn.AdaptiveAvgPool2d(2), 1),
    "average that counts no padding": (nn.AvgPool2d(3, padding=1, count_include_pad=False), 1),
    "average, ceil mode": (nn.AvgPool2d(3, ceil_mode=True), 1),
    "transposed convolution": (nn.ConvTranspose2d(8, 8, 2, 2), 0),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), 1),
    "group norm, silu": (nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()), 1),
    "layer norm": (nn.LayerNorm([8, 8]), 1),
    "prelu of channels": (nn.PReLU(8), 1),
    "sum of other shapes": (lambda x: x + x.mean((2, 3), keepdim=True), 1),
    "softmax": (lambda x: x.softmax(1), 1),
    "attention": (attention, 8),
    "linear over the last dimension": (nn.Linear(8, 6), 0),
    "padding by reflection in a convolution": (nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), 0),
    "padding in a circle in a convolution": (nn.Conv2d(8, 6, 3, padding=(1, 0), padding_mode="circular"), 0),
    "same padding of an even kernel": (nn.Conv2d(8, 6, (2, 4), padding="same"), 0),
    "gated linear unit": (nn.GLU(1), 0),
    "uneven adaptive maximum": (nn.AdaptiveMaxPool2d(3), 0),
    "window as large as the image": (lambda x: F.avg_pool2d(x, (x.size(-2), x.size(-1))), 0),
    "concatenation rounded again": (lambda x: torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1) * 2 + 1, 0),
    "constants beside the input": (Token(), 1),
    "greater": (lambda x: torch.where(x > 0.1, x, -0.5 * x), 3),
    "norm of roots": (nn.RMSNorm([8, 8]), 6),
    "unit vectors": (lambda x: F.normalize(x, dim=1), 4),
    "local response": (nn.LocalResponseNorm(3), 12),
    "standardised": (lambda x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-3), 6),
    "heads in one layer": (Heads(layer=False), 8),
    "attention layer": (Heads(layer=True), 30),
}


@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_its_integers_are_those_of_eval(name: str) -> None:
    function, floats = CASES[name]
    torch.manual_seed(0)
    model = Around(function)
    x = torch.randn(4, 3, 8, 8)
    expected = model.eval()(x)
    prepared = ts.quant.prepare(model.train(), x[:1])
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        prepared(x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in prepared.parameters())
    ts.quant.disable_fake_quant(prepared)
    assert prepared.eval()(x).shape == expected.shape
    ts.quant.enable_fake_quant(prepared)
    converted = ts.quant.convert(prepared)
    y = torch.randn(5, 3, 8, 8)
    assert torch.equal(converted(y), prepared(y))
    assert sum(node.gives_floats for node in converted.integer_graph.nodes) <= floats


@pytest.mark.parametrize("name", CASES)
def test_without_rounding_it_computes_what_it_did(name: str) -> None:
    function, _ = CASES[name]
    torch.manual_seed(1)
    model = Around(function).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    prepared = ts.quant.prepare(model, x)
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), expected, rtol=1e-4, atol=1e-5)


def test_what_stays_in_float_is_listed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    assert ts.quant.float_layers(ts.quant.prepare(model, torch.zeros(1, 3, 4, 4))) == ["1"]
