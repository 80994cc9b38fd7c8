# SPDX-License-Identifier: BSD-3-Clause
"""Grids from ranges and from weights."""

from __future__ import annotations

from torch import Tensor

from torchslim import _C


def choose_qparams(
    min_val: Tensor, max_val: Tensor, quant_min: int, quant_max: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns (scale, zero_point) of the grid that holds [min_val, max_val], widened to hold 0.

    Asymmetric: scale = (max − min) / (quant_max − quant_min), zero_point = quant_min − rint(min / scale), clamped.
    Symmetric: zero_point z in the middle (0 for signed grids),
    scale = max(−min, max) / min(z − quant_min, quant_max − z).
    The scale is at least 2^-12.

    Args:
        min_val: the low ends, any shape.
        max_val: the high ends, the same shape.
        quant_min: smallest integer of the grid.
        quant_max: largest integer of the grid.
        symmetric: whether the zero point is fixed.

    Returns:
        scale (float32) and zero_point (int32), of the shape of `min_val`.

    Raises:
        ValueError: a range is empty, not finite, or nothing has been observed (+inf, -inf).

    Example:
        >>> choose_qparams(torch.tensor(-1.0), torch.tensor(1.55), -128, 127)
        (tensor(0.0100), tensor(-28, dtype=torch.int32))
    """
    scale, zero_point = _C.quant.choose_qparams(min_val, max_val, quant_min, quant_max, symmetric)
    return scale, zero_point


def channel_qparams(
    min_val: Tensor, max_val: Tensor, quant_min: int, quant_max: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns (scale, zero_point) as `choose_qparams` does, but by the rule of weights: for channels and groups.

    A scale has no lower limit, and is 1 where the range is 0 (or too small for a normal float32 scale).

    Args:
        min_val: the low ends, any shape.
        max_val: the high ends, the same shape.
        quant_min: smallest integer of the grid.
        quant_max: largest integer of the grid.
        symmetric: whether the zero point is fixed.

    Returns:
        scale (float32) and zero_point (int32), of the shape of `min_val`.

    Raises:
        ValueError: a range is empty, not finite, or nothing has been observed (+inf, -inf).

    Example:
        >>> channel_qparams(torch.tensor([-1.27e-4, 0.0]), torch.tensor([1e-4, 0.0]), -127, 127, symmetric=True)[0]
        tensor([1.0000e-06, 1.0000e+00])
    """
    scale, zero_point = _C.quant.channel_qparams(min_val, max_val, quant_min, quant_max, symmetric)
    return scale, zero_point


def weight_qparams(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (scale, zero_point) of the symmetric grid [-127, 127] of each output channel of a weight.

    scale = max|w| / 127, or 1 for a channel that is all zero; zero_point = 0. A pure function of the weights.

    Args:
        weight: (O, ...), a floating-point tensor.

    Returns:
        scale (float32) and zero_point (int32), of shape (O).

    Raises:
        ValueError: the weight holds NaN or infinity.

    Example:
        >>> weight_qparams(torch.tensor([[1.27, -0.5], [0.0, 0.0]]))
        (tensor([0.0100, 1.0000]), tensor([0, 0], dtype=torch.int32))
    """
    scale, zero_point = _C.quant.weight_qparams(weight)
    return scale, zero_point
