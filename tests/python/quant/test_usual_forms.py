# SPDX-License-Identifier: BSD-3-Clause
"""Forms that become others before a model is prepared; that they compute the same is held by test_operations."""

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts


def test_a_convolution_that_pads_is_left_in_the_given_model() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    prepared = ts.quant.prepare(nn.Sequential(conv), torch.zeros(1, 3, 8, 8))
    assert (conv.padding, conv.padding_mode) == ((1, 1), "reflect")
    assert isinstance(prepared.get_submodule("0"), ts.quant.QuantConv2d)
    assert ts.quant.float_layers(prepared) == []


def test_a_convolution_that_is_called_twice_pads_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 3, 2, padding="same")

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.relu(self.conv(x)))

    model, x = Twice().eval(), torch.randn(2, 3, 9)
    prepared = ts.quant.prepare(model, x)
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), model(x))


def test_sizes_of_data_are_those_of_the_tensor() -> None:
    class Shuffles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.data.size()
            return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    model = nn.Sequential(nn.Conv2d(3, 8, 1), Shuffles(), nn.Conv2d(8, 2, 1))
    prepared = ts.quant.prepare(model, torch.randn(1, 3, 4, 4))
    prepared(torch.randn(8, 3, 4, 4))
    assert ts.quant.float_layers(prepared) == []
    x = torch.randn(5, 3, 4, 4)
    assert torch.equal(ts.quant.convert(prepared.eval())(x), prepared(x))


@pytest.mark.parametrize("norm_first", [True, False])
def test_linear_layers_of_an_encoder_are_quantised(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    model = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False))
    x = torch.randn(3, 5, 4)
    prepared = ts.quant.prepare(model.eval(), x)
    for i in range(2):
        for name in ("linear1", "linear2"):
            assert isinstance(prepared.get_submodule(f"1.layers.{i}.{name}"), ts.quant.QuantLinear)
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_encoder_with_a_mask_stays_whole() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.register_buffer("mask", torch.full((5, 5), float("-inf")).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.first(x), self.mask)

    model, x = Causal().eval(), torch.randn(3, 5, 4)
    prepared = ts.quant.prepare(model, x)
    assert "layer" in ts.quant.float_layers(prepared)
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_batch_that_lies_elsewhere_may_have_any_size_in_the_example() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            n, places, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, places, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    prepared = ts.quant.prepare(Heads(), torch.randn(2, 5, 8))
    prepared(torch.randn(8, 5, 8))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ts.quant.convert(prepared.eval())(x), prepared(x))
