# SPDX-License-Identifier: BSD-3-Clause
"""Tables of levels and the scales that go with them."""

from __future__ import annotations

from torch import Tensor

from torchslim import _C


def apot_levels(bits: int, is_signed: bool = True) -> Tensor:
    """Returns additive powers of two, ascending, the largest 1 (Li et al. 2020, arXiv:1909.13144, eq. 5).

    With m = bits, or bits − 1 beside a sign: sums of one number from each of n = m // 2 sets
    {0, 2^-(i+1), 2^-(i+1+n), 2^-(i+1+2n)}, and for odd m one more of two numbers, divided by the largest sum.

    Args:
        bits: width of a code: 1 to 7, or 2 to 8 with a sign.
        is_signed: whether the levels lie on both sides of 0, as for weights.

    Raises:
        ValueError: other bits.

    Example:
        >>> apot_levels(2, is_signed=False)
        tensor([0.0000, 0.2500, 0.5000, 1.0000])
    """
    levels: Tensor = _C.quant.apot_levels(bits, is_signed)
    return levels


def kmeans_levels(x: Tensor, k: int, iterations: int = 100) -> Tensor:
    """Returns the codebook of k-means, ascending: each level is the mean of the elements nearest to it.

    Lloyd's iteration on the sorted elements, from their quantiles (i + 1/2) / k; no chance is involved (Lloyd 1982; Han
    et al. 2016, arXiv:1510.00149, section 3.1).

    Args:
        x: floating point, any shape, not empty, without NaN and infinities. No gradient flows to it.
        k: number of levels, 1 to 65536; fewer come back if `x` has fewer distinct values.
        iterations: the most that are made, ≥ 0; they end when nothing moves.

    Raises:
        ValueError: `x` is empty or not finite, or k or iterations out of range.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> kmeans_levels(torch.tensor([0.0, 10.0, 1.0, 11.0]), 2)
        tensor([ 0.5000, 10.5000])
    """
    levels: Tensor = _C.quant.kmeans_levels(x, k, iterations)
    return levels


def power_of_two_levels(bits: int, is_signed: bool = True) -> Tensor:
    """Returns 0 and the powers of two 2^-i, 0 ≤ i ≤ 2^m − 2, ascending, with m = bits, or bits − 1 beside a sign.

    Args:
        bits: width of a code: 1 to 7, or 2 to 8 with a sign.
        is_signed: whether the negatives are levels too.

    Raises:
        ValueError: other bits.

    Example:
        >>> power_of_two_levels(3)
        tensor([-1.0000, -0.5000, -0.2500,  0.0000,  0.2500,  0.5000,  1.0000])
    """
    levels: Tensor = _C.quant.power_of_two_levels(bits, is_signed)
    return levels


def power_of_two_scale(scale: Tensor) -> Tensor:
    """Returns `scale` with each number rounded to the nearest power of two, nearest in its logarithm.

    Args:
        scale: floating point, any shape, positive and normal. No gradient flows to it.

    Raises:
        ValueError: a number is not positive or not normal.
        TypeError: `scale` is not a floating-point tensor.

    Example:
        >>> power_of_two_scale(torch.tensor([0.3, 1.4, 1.5]))
        tensor([0.2500, 1.0000, 2.0000])
    """
    rounded: Tensor = _C.quant.power_of_two_scale(scale)
    return rounded


def absmax_scale(x: Tensor, largest: float, axis: int | None = None) -> Tensor:
    """Returns max|x| / largest: the scale at which the largest level meets the largest element; 1 where all is 0.

    Args:
        x: floating point, not empty, without NaN and infinities. No gradient flows to it.
        largest: the largest magnitude of a level, > 0.
        axis: the channel dimension; None: one scale, shape ().

    Raises:
        ValueError: `x` is empty or not finite, `largest` ≤ 0, or a wrong axis.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> absmax_scale(torch.tensor([[1.0, -3.0], [0.5, 0.0]]), 1.0, axis=0)
        tensor([3.0000, 0.5000])
    """
    scale: Tensor = _C.quant.absmax_scale(x, largest, axis)
    return scale
