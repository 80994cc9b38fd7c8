# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation to a table of levels that need not be evenly spaced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_level_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.level_fake_quantize.default


def level_fake_quantize(
    x: Tensor, levels: Tensor, scale: float | Tensor, axis: int | None = None, *, gradient: str = "clipped"
) -> Tensor:
    """Rounds `x` to a table of levels: y = scale · nearest(levels, x · (1/scale)).

    Half-way between two levels the one with the even index is taken. NaN stays NaN. Computed in float32 (float64 for
    float64 tensors) by a search without branches, and without a matrix of levels × elements; the result has the type
    and strides of `x`.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        levels: shape (n), 1 ≤ n ≤ 65536, finite and strictly ascending; see `apot_levels`, `power_of_two_levels` and
            `kmeans_levels`.
        scale: what a level of 1 stands for, > 0: a number, a tensor of one element, or with `axis` a 1-d tensor of
            `x.shape[axis]` elements.
        axis: the channel dimension that `scale` runs along; None: one scale for all of `x`.
        gradient: "clipped": straight-through, 1 where x · (1/scale) lies within the levels, 0 elsewhere; keeps one bit
            per element. "passthrough": 1 everywhere. None flows to `levels` and `scale`.

    Raises:
        ValueError: levels unsorted, duplicate, not finite or none; scale ≤ 0, NaN or subnormal; a wrong axis, shape,
            device or gradient.
        TypeError: `x`, `levels` or `scale` is not a floating-point tensor.

    Example:
        >>> level_fake_quantize(torch.tensor([0.2, -0.7, 3.0]), torch.tensor([-1.0, 0.0, 0.25, 1.0]), 2.0)
        tensor([0., 0., 2.])
    """
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32, device=x.device)
    return _level_fake_quantize(x, levels, scale, axis, gradient)
