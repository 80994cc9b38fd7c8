# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation whose gradient passes through saturation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_operator: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize_passthrough


def fake_quantize_passthrough(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> Tensor:
    """Returns the bits of `fake_quantize` and lets the whole gradient through.

    What saturates goes on learning, as weights should, which nothing else pulls back into their range (Brevitas' rule
    for weights).

    Gradient: pass-through straight-through, 1 everywhere; nothing is kept for it.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        scale: the distance of grid points, > 0: one element, or with `axis` a 1-d tensor of `x.shape[axis]` elements.
        zero_point: the integer that stands for 0, in [quant_min, quant_max]; the shape of `scale`.
        quant_min: smallest integer of the grid, at least -2**23.
        quant_max: largest integer of the grid, at most 2**23.
        axis: the channel dimension that `scale` and `zero_point` run along; None: one grid for all of `x`.

    Raises:
        ValueError: as `fake_quantize`.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> fake_quantize_passthrough(torch.tensor([0.26, 9.0]), torch.tensor(0.1), torch.tensor(0), -8, 7)
        tensor([0.3000, 0.7000])
    """
    return _operator(x, scale, zero_point, quant_min, quant_max, axis)
