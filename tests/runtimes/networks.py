# SPDX-License-Identifier: BSD-3-Clause
"""The networks whose files are run on other runtimes: families, forms that those lack, and each operation by itself."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "python/quant"))
sys.path.append(str(Path(__file__).parents[1] / "python/deploy"))
from deploy_zoo import NETWORKS, ODD_NETWORKS, SIDE, depthwise, resnet, vgg
from test_operations import CASES, Around

#: Of pytorchcv, for images of 32 x 32.
SMALL_IMAGES = ("resnet20_cifar10", "seresnet20_cifar10", "densenet40_k12_cifar10")

#: Of pytorchcv, for larger images; their last pool takes any size here.
MOBILE = (
    "mobilenet_wd4", "mobilenetv2_wd4", "mobilenetv3_small_w7d20", "mnasnet_b1", "ghostnet",
    "shufflenetv2_wd2", "shufflenet_g3_wd4", "squeezenet_v1_1",
)  # fmt: skip


class Network(NamedTuple):
    """A network to be built, the shape of one image, and what it is prepared with."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    config: dict[str, Any] | None = None


def lengths() -> nn.Module:
    """Convolutions over (N, C, L)."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 4, 3, 2, groups=4)
    )


class UNet(nn.Module):
    """Down twice, up by nearest neighbours, with concatenated shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = self._block(3, 8), self._block(8, 12), self._block(12, 16)
        self.up_second, self.up_first = self._block(16 + 12, 12), self._block(12 + 8, 8)
        self.last = nn.Conv2d(8, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        y = self.third(F.max_pool2d(second, 2))
        y = self.up_second(torch.cat([F.interpolate(y, scale_factor=2.0), second], 1))
        y = self.up_first(torch.cat([F.interpolate(y, scale_factor=2.0), first], 1))
        result: Tensor = self.last(y)
        return result


class Inception(nn.Module):
    """Branches of different windows, concatenated, twice."""

    class Branches(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Conv2d(inputs, 8, 1), nn.ReLU())
            self.three = nn.Sequential(nn.Conv2d(inputs, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
            self.wide = nn.Sequential(nn.Conv2d(inputs, 8, (1, 7), padding=(0, 3)), nn.BatchNorm2d(8), nn.ReLU())
            self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(inputs, 4, 1), nn.ReLU6())

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.one(x), self.three(x), self.wide(x), self.pool(x)], 1)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(self.Branches(3), nn.MaxPool2d(2), self.Branches(28), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(28, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.body(x).flatten(1))
        return result


class Attention(nn.Module):
    """Attention as one operator, which came with torch 2.0: plain, in order, and with masks."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.out = nn.Linear(32, 32), nn.Linear(32, 32)
        self.register_buffer("seen", torch.eye(12, dtype=torch.bool).logical_not())
        self.register_buffer("bias", torch.randn(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inputs(x)
        y = y + F.scaled_dot_product_attention(y, y, y)
        y = y + F.scaled_dot_product_attention(y, y, y, is_causal=True)
        y = y + F.scaled_dot_product_attention(y, y, y, self.seen, scale=0.3)
        result: Tensor = self.out(y + F.scaled_dot_product_attention(y, y, y, self.bias))
        return result


class SharedHeads(nn.Module):
    """Attention of more queries than keys and values, which came with torch 2.5."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.out = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inputs(x).unflatten(2, (4, 8)).transpose(1, 2)
        few = y[:, :2]
        y = F.scaled_dot_product_attention(y, few, few, enable_gqa=True)
        result: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return result


class Decoder(nn.Module):
    """Back to the image's size by transposed convolutions, and the pools that QNNPACK has no kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1, dilation=2), nn.MaxPool2d(1, 2), nn.Flatten(2),
            nn.ConvTranspose1d(64, 64, 3, 1, 1, groups=2), nn.Unflatten(2, (3, 3)),
            nn.ConvTranspose2d(64, 64, 5, 2, 2, output_padding=1), nn.BatchNorm2d(64), nn.ReLU6(),
            nn.ConvTranspose2d(64, 64, 4, 2, 1, groups=64), nn.Conv2d(64, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


class Encoder(nn.Module):
    """A layer of a transformer's encoder over (N, S, 32): softmax and norms stay in float."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm_attention, self.norm_linear = nn.LayerNorm(32), nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_attention(x)
        scores = self.query(y) @ self.key(y).transpose(1, 2) / 32**0.5
        x = x + self.out(scores.softmax(-1) @ self.value(y))
        result: Tensor = x + self.narrow(F.gelu(self.wide(self.norm_linear(x))))
        return result


def collected(name: str) -> nn.Module:
    """A network of pytorchcv with random weights, for images of any size."""
    import pytorchcv.model_provider as provider

    model: nn.Module = provider.get_model(name, pretrained=False)
    for module in model.modules():
        if isinstance(getattr(module, "final_pool", None), nn.AvgPool2d):
            module.final_pool = nn.AdaptiveAvgPool2d(1)
    return model


def around(name: str) -> nn.Module:
    """The operation between two convolutions."""
    model = Around(CASES[name][0]).eval()
    model(torch.randn(1, 3, 8, 8))  # sets the size of what is lazy
    return model


def networks() -> dict[str, Network]:
    """All of them by name; each is built with the seed that is set."""
    found = {name: Network(lambda name=name: collected(name), (3, 32, 32)) for name in SMALL_IMAGES}
    found |= {name: Network(lambda name=name: collected(name), (3, 64, 64)) for name in MOBILE}
    found |= {"unet": Network(UNet, (3, 16, 16)), "inception": Network(Inception, (3, 16, 16))}
    found |= {"encoder": Network(Encoder, (12, 32))}
    found |= {"attention": Network(Attention, (12, 32)), "decoder": Network(Decoder, (3, 16, 16))}
    found |= {"attention, shared heads": Network(SharedHeads, (12, 32))}
    found["lengths"] = Network(lengths, (3, 16))
    found["4 bits"] = Network(depthwise, (3, SIDE, SIDE), {"bits": 4})
    found["learned grids of 6 bits"] = Network(
        resnet, (3, SIDE, SIDE), {"bits": 6, "activation": {"quantizer": "lsq+"}}
    )
    found["symmetric"] = Network(vgg, (3, SIDE, SIDE), {"symmetric": True})
    found["a linear layer in float"] = Network(resnet, (3, SIDE, SIDE), {"kinds": {"linear": None}})
    found |= {make.__name__: Network(make, (3, SIDE, SIDE)) for make in NETWORKS}
    found |= {name: Network(make, (3, SIDE, SIDE)) for name, make in ODD_NETWORKS.items()}
    found |= {name: Network(lambda name=name: around(name), (3, 8, 8)) for name in CASES}
    return found
