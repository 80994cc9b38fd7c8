# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation with one grid for each group of neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_operator: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize_group


def fake_quantize_group(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    group_size: int,
    axis: int = -1,
) -> Tensor:
    """Fake-quantises `x` with one grid for each group of `group_size` neighbours along dimension `axis`.

    Gradient: clipped straight-through; it keeps one bit per element. Made of `fake_quantize` and views.

    Args:
        x: float32, float64, bfloat16 or float16, any shape in which `group_size` divides `x.shape[axis]`.
        scale: the shape of `x` with `x.shape[axis] // group_size` in dimension `axis`; any other dimension may be 1:
            its indices then share a grid. (O, I // g) for a linear weight, (O, I // g, 1, 1) for a convolution's.
        zero_point: the integers that stand for 0, in [quant_min, quant_max]; a shape as `scale` may have.
        quant_min: smallest integer of the grid, at least -2**23.
        quant_max: largest integer of the grid, at most 2**23.
        group_size: how many neighbours share a grid, ≥ 1.
        axis: the dimension that is divided; other than the last it costs a copy.

    Raises:
        ValueError: a group size that does not divide, a wrong axis or shape, and as `fake_quantize`.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> x, scale = torch.tensor([[0.26, 0.11, 4.4, 2.6]]), torch.tensor([[0.1, 1.0]])
        >>> fake_quantize_group(x, scale, torch.zeros(1, 2), -8, 7, group_size=2)
        tensor([[0.3000, 0.1000, 4.0000, 3.0000]])
    """
    return _operator(x, scale, zero_point, quant_min, quant_max, group_size, axis)
