# SPDX-License-Identifier: BSD-3-Clause
"""What the networks are made of; C++ has the same, under the same names, in `torchslim/models/blocks.h`."""

from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}


class ConvBnAct(nn.Sequential):
    """Convolution without bias, batch normalisation, activation: children `conv`, `bn`, `act`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: height and width of the kernel, odd; padding keeps the image size when the stride is 1.
        stride: of the convolution.
        groups: `in_channels` gives a depthwise convolution.
        activation: `none`, `relu` or `relu6`.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d
    act: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
    ) -> None:
        """Makes the three layers, with PyTorch's initial weights."""
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"torchslim.models.ConvBnAct: activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}"
            )
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = _ACTIVATIONS[activation]()


class DepthwiseSeparable(nn.Module):
    """A 3×3 convolution per channel, then a 1×1 convolution across them: MobileNetV1's block.

    Children `depthwise` and `pointwise`, both `ConvBnAct`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: str = "relu") -> None:
        """Makes the layers, with PyTorch's initial weights."""
        super().__init__()
        self.depthwise = ConvBnAct(in_channels, in_channels, 3, stride, in_channels, activation)
        self.pointwise = ConvBnAct(in_channels, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, (N, out_channels, H/stride, W/stride)."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter per channel, narrow by 1×1 without activation: MobileNetV2's block.

    Children `expand` (absent where `expansion` is 1), `depthwise`, `project`, all `ConvBnAct`. The input is
    added where the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        """Makes the layers, with PyTorch's initial weights."""
        super().__init__()
        hidden = in_channels * expansion
        self.expand = None if expansion == 1 else ConvBnAct(in_channels, hidden, 1, activation="relu6")
        self.depthwise = ConvBnAct(hidden, hidden, 3, stride, hidden, "relu6")
        self.project = ConvBnAct(hidden, out_channels, 1, activation="none")
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, (N, out_channels, H/stride, W/stride)."""
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, then ReLU: ResNet's block.

    Children `conv1`, `conv2` and, where the shape changes, `shortcut` (1×1), all `ConvBnAct`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Makes the layers, with PyTorch's initial weights."""
        super().__init__()
        self.conv1 = ConvBnAct(in_channels, out_channels, 3, stride)
        self.conv2 = ConvBnAct(out_channels, out_channels, 3, activation="none")
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = None if same_shape else ConvBnAct(in_channels, out_channels, 1, stride, activation="none")
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, (N, out_channels, H/stride, W/stride)."""
        residual: Tensor = x if self.shortcut is None else self.shortcut(x)
        y: Tensor = self.act(self.conv2(self.conv1(x)) + residual)
        return y


def scale_channels(channels: int, width: float) -> int:
    """Returns `channels × width` as a multiple of 8, at most 10 % below it; `channels` where `width` is 1.

    The rule of the MobileNet papers' code; it gives the papers' numbers for widths 0.25, 0.5 and 0.75.
    """
    if width <= 0:
        raise ValueError(f"torchslim.models: width must be > 0, got {width}")
    if width == 1:
        return channels
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def initialize(model: nn.Module) -> None:
    """Sets the weights as torchvision's MobileNets do: the same draws in the same order as C++ for one seed.

    Convolutions: normal, variance 2/fan_out (He et al. 2015, arXiv:1502.01852, eq. 14). Linear: normal,
    standard deviation 0.01. Batch normalisation: 1 and 0. Biases: 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
