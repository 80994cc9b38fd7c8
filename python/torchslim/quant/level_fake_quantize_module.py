# SPDX-License-Identifier: BSD-3-Clause
"""A quantiser with a table of levels."""

from __future__ import annotations

import torch
from torch import Tensor

from torchslim.quant.level_fake_quantize import level_fake_quantize
from torchslim.quant.levels import absmax_scale
from torchslim.quant.resizing_state import ResizingState, shared_shape


class LevelFakeQuantize(ResizingState):
    """Rounds what passes through to a table of levels: y = level_fake_quantize(x, levels, scale, axis).

    Buffers, float32: `levels` of shape (n); `scale` of shape () and 1, or with an axis empty, until `fit_scale` or a
    load sets it.

    Args:
        levels: shape (n), finite and strictly ascending; see `apot_levels`, `power_of_two_levels`, `kmeans_levels`.
        axis: the channel dimension, to have one scale for each channel; None: one scale.
        gradient: "clipped" or "passthrough", as for `level_fake_quantize`.

    Raises:
        ValueError: levels unsorted, duplicate, not finite or none; another gradient.

    Example:
        >>> quantiser = LevelFakeQuantize(apot_levels(3))
        >>> quantiser.fit_scale(torch.tensor([0.5, -2.0]))
        LevelFakeQuantize(levels=7, axis=None, gradient='clipped')
        >>> quantiser(torch.tensor([0.4, 0.6, 1.9]))
        tensor([0.5000, 0.5000, 2.0000])
    """

    levels: Tensor
    scale: Tensor

    def __init__(self, levels: Tensor, axis: int | None = None, gradient: str = "clipped") -> None:
        """Checks the arguments."""
        super().__init__()
        level_fake_quantize(levels, levels, 1.0, gradient=gradient)  # refuses what the op refuses
        self.axis = axis
        self.gradient = gradient
        self.register_buffer("levels", levels.detach().float().clone())
        self.register_buffer("scale", torch.ones(() if axis is None else (0,), device=levels.device))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rounded `x`: any shape, float32, float64, bfloat16 or float16."""
        return level_fake_quantize(x, self.levels, self.scale, self.axis, gradient=self.gradient)

    def fit_scale(self, x: Tensor) -> LevelFakeQuantize:
        """Sets the scale so that the largest |level| meets the largest |x|, of each channel if there is an axis."""
        self.scale = absmax_scale(x, self.levels.abs().max().item(), self.axis)
        return self

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        return f"levels={len(self.levels)}, axis={self.axis}, gradient={self.gradient!r}"

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        scale = {} if self.axis is None else shared_shape(file, ["scale"])
        return {**shared_shape(file, ["levels"]), **scale}
