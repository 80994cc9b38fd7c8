# SPDX-License-Identifier: BSD-3-Clause
"""Networks that exist only in these tests, and a short training that gives them grids."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import torchslim as ts

SIDE = 20


def vgg() -> nn.Module:
    """Convolutions with bias, max and average pools, a linear layer on a flattened map, dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(20 * (SIDE // 4) ** 2, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.side: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.side = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.side(x))


def resnet() -> nn.Module:
    """Additions, 1×1 shortcuts."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _Residual(16, 16, 1),
        _Residual(16, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def depthwise() -> nn.Module:
    """Depthwise convolutions, ReLU6."""

    def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        ]

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        *separable(16, 24, 1),
        *separable(24, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


NETWORKS: list[Callable[[], nn.Module]] = [vgg, resnet, depthwise]


class _InputPlusItsConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.conv(x)
        return nn.functional.relu6(y + y)


#: Forms that no bundled network has.
ODD_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "the input is added": _InputPlusItsConvolution,
    "only linear layers": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 9), nn.ReLU6(), nn.Linear(9, 4)),
    "a pool first, no classifier": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
    "activations behind pools": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.ReLU6(), nn.Conv2d(8, 4, 3), nn.AvgPool2d(2), nn.ReLU()
    ),
    "oblong windows, groups, dilation": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=(2, 1), padding=(0, 2)), nn.Conv2d(8, 6, (1, 5), groups=2, dilation=(1, 2)), nn.ReLU()
    ),
    "the mean is the result": lambda: nn.Sequential(nn.Conv2d(3, 70, 7, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
}


def images(batch: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def trained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A prepared network after a few training steps, in eval mode."""
    torch.manual_seed(seed)
    model = ts.quant.prepare(make(), images(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(6):
        outputs = model(images(32, step)).flatten(1)
        loss = nn.functional.cross_entropy(outputs, torch.randint(outputs.shape[1], (32,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
