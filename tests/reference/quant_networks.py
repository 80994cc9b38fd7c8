# SPDX-License-Identifier: BSD-3-Clause
"""Small networks that exist only in tests: each holds what another lacks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Vgg(nn.Module):
    """Convolutions with biases and functional activations, max pools, view, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding="same")
        self.fc1 = nn.Linear(12 * 4 * 4, 16)
        self.fc2 = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        x = F.dropout(x.view(x.size(0), -1), 0.1, self.training)
        return self.fc2(torch.relu(self.fc1(x)))


class Residual(nn.Module):
    """Batch norms, a 1×1 shortcut, `+=` with an in-place ReLU that is used many times, an average over dims."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, 2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_bn(self.stem(x)))
        y = self.bn1(self.conv1(x))
        y += x
        z = self.bn2(self.conv2(y))
        z += self.shortcut(y)
        return self.classifier(self.relu(z).mean((2, 3)))


class Depthwise(nn.Sequential):
    """Depthwise convolutions with ReLU6 in two spellings, a batch norm behind a biased convolution, average pools."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardtanh(0.0, 6.0),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16, affine=False),
            nn.Identity(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(16, 5, bias=False),
        )


NETWORKS = [Vgg, Residual, Depthwise]


def example() -> Tensor:
    """A batch that every network here takes."""
    return torch.randn(8, 3, 16, 16)


def shake(model: nn.Module) -> None:
    """Gives batch norms random parameters and statistics, negative and zero gammas among them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                with torch.no_grad():
                    module.weight[0] = 0.0
