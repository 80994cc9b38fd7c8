# SPDX-License-Identifier: BSD-3-Clause
"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2)."""

from collections.abc import Sequence

from torch import Tensor, nn

from torchslim.models.blocks import ConvBnAct, InvertedResidual, initialize, scale_channels

#: Rows of the paper's table 2: expansion, channels, number of blocks, stride of the first of them.
Stage = tuple[int, int, int, int]
_STAGES: tuple[Stage, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SMALLEST_MAP = 3  # pixels; what the paper's smallest input, 96 pixels, comes to


class MobileNetV2(nn.Module):
    """A 3×3 convolution, inverted residuals, a 1×1 convolution, average pool, linear; see `mobilenet_v2`.

    Children `features.i` (first and last `ConvBnAct`, the others `InvertedResidual`) and `classifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width: float = 1.0,
        in_channels: int = 3,
        input_size: int = 224,
        stem_channels: int = 32,
        stages: Sequence[Stage] = _STAGES,
        last_channels: int = 1280,
    ) -> None:
        """Takes the arguments of `mobilenet_v2`."""
        super().__init__()
        if not stages:
            raise ValueError("torchslim.models.mobilenet_v2: stages must hold at least one row")
        strides = _fit_strides([2, *(stride for _, _, _, stride in stages)], input_size)
        channels = scale_channels(stem_channels, width)
        layers: list[nn.Module] = [ConvBnAct(in_channels, channels, 3, strides[0], activation="relu6")]
        for (expansion, stage_channels, blocks, _), first_stride in zip(stages, strides[1:], strict=True):
            out_channels = scale_channels(stage_channels, width)
            for i in range(blocks):
                stride = first_stride if i == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        last = scale_channels(last_channels, max(1.0, width))
        layers.append(ConvBnAct(channels, last, 1, activation="relu6"))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(last, num_classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.features(images))))
        return logits


def mobilenet_v2(
    num_classes: int = 10,
    width: float = 1.0,
    in_channels: int = 3,
    input_size: int = 224,
    stem_channels: int = 32,
    stages: Sequence[Stage] = _STAGES,
    last_channels: int = 1280,
) -> MobileNetV2:
    """Returns a MobileNetV2 with fresh weights; by default the paper's.

    Args:
        num_classes: size of the output.
        width: multiplies all channels, then rounds to multiples of 8; `last_channels` only grows with it.
        in_channels: channels of the images.
        input_size: pixels of the images' shorter side. Small images keep detail: strides become 1, from the
            first one on, until the last map has at least 3×3 pixels (28 and 32 pixels: two of the five
            strides of 2; 96 and more: none).
        stem_channels: output channels of the first convolution.
        stages: (expansion, channels, blocks, stride) of each stage.
        last_channels: output channels of the last convolution.

    Raises:
        ValueError: `stages` is empty, `width` is not positive or `input_size` is less than 3.

    Example:
        >>> model = mobilenet_v2(10, width=0.5, in_channels=1, input_size=28)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    return MobileNetV2(num_classes, width, in_channels, input_size, stem_channels, stages, last_channels)


def _fit_strides(strides: list[int], input_size: int) -> list[int]:
    """Turns strides into 1, from the front, until `input_size` pixels end as at least `_SMALLEST_MAP`."""
    if input_size < _SMALLEST_MAP:
        raise ValueError(
            f"torchslim.models.mobilenet_v2: input_size must be at least {_SMALLEST_MAP}, got {input_size}"
        )
    fitted = list(strides)
    for i in range(len(fitted)):
        size = input_size
        for stride in fitted:
            size = -(-size // stride)
        if size >= _SMALLEST_MAP:
            break
        fitted[i] = 1
    return fitted
