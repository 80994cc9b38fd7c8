# SPDX-License-Identifier: BSD-3-Clause
"""ResNet for small images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from collections.abc import Sequence

from torch import Tensor, nn

from torchslim.models.blocks import BasicBlock, ConvBnAct, initialize, scale_channels


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, global average pool, linear; see `resnet`.

    Children `stem` (`ConvBnAct`), `blocks.i` (`BasicBlock`; with `downsample="pool"` also `ConvBnAct` and max
    pools) and `classifier`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        depth: int = 20,
        width: float = 1.0,
        in_channels: int = 3,
        channels: Sequence[int] = (16, 32, 64),
        stem_channels: int | None = None,
        stem_kernel: int = 3,
        stem_stride: int = 1,
        downsample: str = "stride",
    ) -> None:
        """Takes the arguments of `resnet`."""
        super().__init__()
        blocks_per_stage = _blocks_per_stage(depth, len(channels), downsample)
        in_stage = scale_channels(channels[0] if stem_channels is None else stem_channels, width)
        self.stem = ConvBnAct(in_channels, in_stage, stem_kernel, stem_stride)
        blocks: list[nn.Module] = []
        for stage, stage_channels in enumerate(channels):
            out_stage = scale_channels(stage_channels, width)
            stride = 1
            if downsample == "pool":
                blocks += [ConvBnAct(in_stage, out_stage, 3), nn.MaxPool2d(2)]
                in_stage = out_stage
            elif stage > 0:
                stride = 2
            for i in range(blocks_per_stage):
                blocks.append(BasicBlock(in_stage, out_stage, stride if i == 0 else 1))
                in_stage = out_stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(in_stage, num_classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes) of images (N, in_channels, H, W)."""
        logits: Tensor = self.classifier(self.flatten(self.pool(self.blocks(self.stem(images)))))
        return logits


def resnet(
    num_classes: int = 10,
    depth: int = 20,
    width: float = 1.0,
    in_channels: int = 3,
    channels: Sequence[int] = (16, 32, 64),
    stem_channels: int | None = None,
    stem_kernel: int = 3,
    stem_stride: int = 1,
    downsample: str = "stride",
) -> ResNet:
    """Returns a ResNet with fresh weights; by default the paper's ResNet-20 with 1×1 shortcuts.

    Args:
        num_classes: size of the output.
        depth: layers with weights on the main path, stem and classifier included: with `downsample="stride"`
            2·blocks a stage + 2 (three stages: 20, 32, 44, 56, ...), with `"pool"` one more a stage.
        width: multiplies all channels, then rounds to multiples of 8; 1 keeps them as given.
        in_channels: channels of the images.
        channels: channels of each stage.
        stem_channels: output channels of the first convolution; by default those of the first stage.
        stem_kernel: kernel size of the first convolution, odd.
        stem_stride: its stride.
        downsample: how a stage halves the image: `stride` (in the first block, from the second stage on: the
            paper's) or `pool` (each stage begins with a 3×3 convolution and a 2×2 max pool: quick to train).

    Raises:
        ValueError: no such `depth` for this number of stages, or an unknown `downsample`.

    Example: the teacher of the Fashion-MNIST example, 464,106 parameters
        >>> teacher = resnet(
        ...     10, depth=8, in_channels=1, channels=(64, 128), stem_channels=32, stem_kernel=5,
        ...     stem_stride=2, downsample="pool",
        ... )
    """
    return ResNet(num_classes, depth, width, in_channels, channels, stem_channels, stem_kernel, stem_stride, downsample)


def _blocks_per_stage(depth: int, stages: int, downsample: str) -> int:
    """Solves `depth` for the number of blocks a stage, or says which depths there are."""
    if downsample not in ("stride", "pool"):
        raise ValueError(f"torchslim.models.resnet: downsample must be `stride` or `pool`, got {downsample!r}")
    if stages == 0:
        raise ValueError("torchslim.models.resnet: channels must hold at least one stage")
    other_layers = 2 + (stages if downsample == "pool" else 0)
    blocks, rest = divmod(depth - other_layers, 2 * stages)
    if blocks < 1 or rest != 0:
        fitting = ", ".join(str(other_layers + 2 * stages * n) for n in (1, 2, 3))
        raise ValueError(
            f"torchslim.models.resnet: {stages} stages with downsample={downsample!r} "
            f"come in depths {fitting}, ..., got {depth}"
        )
    return blocks
