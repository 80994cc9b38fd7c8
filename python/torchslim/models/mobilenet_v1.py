# SPDX-License-Identifier: BSD-3-Clause
"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861, table 1)."""

from collections.abc import Sequence

from torch import Tensor, nn

from torchslim.models.blocks import ConvBnAct, DepthwiseSeparable, initialize, scale_channels

_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class MobileNetV1(nn.Module):
    """A 3×3 convolution, depthwise-separable blocks, global average pool, linear; see `mobilenet_v1`.

    Children `features.0` (`ConvBnAct`), `features.i` (`DepthwiseSeparable`) and `classifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width: float = 1.0,
        in_channels: int = 3,
        channels: Sequence[int] = _CHANNELS,
        strides: Sequence[int] = _STRIDES,
    ) -> None:
        """Takes the arguments of `mobilenet_v1`."""
        super().__init__()
        if len(channels) != len(strides) or not channels:
            raise ValueError(
                "torchslim.models.mobilenet_v1: channels and strides need one entry a layer each, "
                f"got {len(channels)} and {len(strides)}"
            )
        widths = [scale_channels(c, width) for c in channels]
        layers: list[nn.Module] = [ConvBnAct(in_channels, widths[0], 3, strides[0])]
        for i in range(1, len(widths)):
            layers.append(DepthwiseSeparable(widths[i - 1], widths[i], strides[i]))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(widths[-1], num_classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.features(images))))
        return logits


def mobilenet_v1(
    num_classes: int = 10,
    width: float = 1.0,
    in_channels: int = 3,
    channels: Sequence[int] = _CHANNELS,
    strides: Sequence[int] = _STRIDES,
) -> MobileNetV1:
    """Returns a MobileNetV1 with fresh weights; by default the paper's, for images of about 224 pixels.

    Args:
        num_classes: size of the output.
        width: multiplies all channels, then rounds to multiples of 8; 1 keeps them as given.
        in_channels: channels of the images.
        channels: output channels of the first convolution and of each block after it.
        strides: their strides, as many.

    Raises:
        ValueError: `channels` and `strides` differ in length or are empty, or `width` is not positive.

    Example:
        >>> student = mobilenet_v1(
        ...     10, in_channels=1, channels=(16, 32, 64, 80, 80, 80), strides=(2, 1, 2, 1, 1, 1)
        ... )
        >>> sum(p.numel() for p in student.parameters())
        25130
    """
    return MobileNetV1(num_classes, width, in_channels, channels, strides)
