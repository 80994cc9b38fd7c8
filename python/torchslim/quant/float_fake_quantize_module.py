# SPDX-License-Identifier: BSD-3-Clause
"""A quantiser with a floating-point format."""

from __future__ import annotations

import torch
from torch import Tensor

from torchslim.quant.float_fake_quantize import float_fake_quantize
from torchslim.quant.float_format import FloatFormat
from torchslim.quant.levels import absmax_scale
from torchslim.quant.resizing_state import ResizingState, shared_shape


class FloatFakeQuantize(ResizingState):
    """Rounds what passes through to a floating-point format: y = float_fake_quantize(x, format, scale, axis).

    Buffer, float32: `scale` of shape () and 1, or with an axis empty, until `fit_scale` or a load sets it.

    Args:
        format: the format to round to.
        axis: the channel dimension, to have one scale for each channel; None: one scale.
        gradient: "clipped" or "passthrough", as for `float_fake_quantize`.

    Raises:
        ValueError: another gradient.

    Example:
        >>> quantiser = FloatFakeQuantize(FloatFormat.e4m3fn())
        >>> quantiser.fit_scale(torch.tensor([0.5, -2.0])).scale
        tensor(0.0045)
    """

    scale: Tensor

    def __init__(self, format: FloatFormat, axis: int | None = None, gradient: str = "clipped") -> None:
        """Checks the arguments."""
        super().__init__()
        float_fake_quantize(torch.empty(0), format, gradient=gradient)  # refuses what the op refuses
        self.format = format
        self.axis = axis
        self.gradient = gradient
        self.register_buffer("scale", torch.ones(() if axis is None else (0,)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rounded `x`: any shape, float32, float64, bfloat16 or float16."""
        return float_fake_quantize(x, self.format, self.scale, self.axis, gradient=self.gradient)

    def fit_scale(self, x: Tensor) -> FloatFakeQuantize:
        """Sets the scale so that the format's largest number meets the largest |x|, of each channel with an axis."""
        self.scale = absmax_scale(x, self.format.max, self.axis)
        return self

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        return f"format={self.format}, axis={self.axis}, gradient={self.gradient!r}"

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        return {} if self.axis is None else shared_shape(file, ["scale"])
