# SPDX-License-Identifier: BSD-3-Clause
"""Small networks, each with a way of writing things that capture must see through."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomize(model: nn.Module) -> nn.Module:
    """Statistics and gammas as after training, so that a batch norm left out would show."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(-1, 1.5)
                    module.bias.normal_(0, 0.3)
    return model


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(192, 20),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(20, 10),
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return y.relu_()


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1))
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu_(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False),
            nn.BatchNorm2d(8, affine=False),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 12, 1, groups=4),
            nn.Hardtanh(0, 6),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        )
        self.head = nn.Linear(12, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        x = F.avg_pool2d(x, x.shape[2:])
        return self.head(x.view(x.size(0), -1))


class Functional(nn.Module):
    """Parameters of its own, no layers; a convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) / 6)
        self.first = nn.Parameter(torch.randn(4, 3, 3, 3) / 5)
        self.matrix = nn.Parameter(torch.randn(7, 4))
        self.register_buffer("offset", torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first, padding="same").clamp(min=0)
        x = F.conv2d(x, self.kernel, padding=(2, 2), dilation=2).clamp(0, 6)
        x = torch.clamp_min(F.conv2d(x, self.kernel, stride=2), 0)
        x = torch.add(x, F.relu6(F.conv2d(x, self.kernel, padding=1)))
        x = F.dropout(x, 0.5, self.training)
        x = x.mean([-1, -2], keepdim=True).squeeze(-1).squeeze(-1)
        return x @ self.matrix.t() + self.offset


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(12, 16)
        self.b = nn.Linear(16, 16, bias=False)
        self.c = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        x = F.relu(self.a(x))
        x = x + self.b(x).relu()
        return torch.addmm(self.c.bias, x, self.c.weight.t())


IMAGE = (2, 3, 18, 18)
ZOO = {
    "vgg": (vgg, (2, 3, 13, 13)),
    "resnet": (ResNet, IMAGE),
    "depthwise": (Depthwise, IMAGE),
    "functional": (Functional, IMAGE),
    "mlp": (Mlp, (2, 3, 4)),
}
