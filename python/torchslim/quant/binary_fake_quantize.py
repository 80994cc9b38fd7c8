# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation to two and to three values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_binary_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.binary_fake_quantize.default
_ternary_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.ternary_fake_quantize.default


def binary_fake_quantize(x: Tensor, axis: int | None = None, *, gradient: str = "clipped") -> Tensor:
    """Returns sign(x) · mean|x|, with sign(0) = 1 (XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, eq. 6).

    The mean is summed in float64, the same bits for any number of threads, and rounded to float32. The result has the
    type and strides of `x`. NaN makes the mean NaN.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        axis: the channel dimension, to have one mean for each channel; None: one mean.
        gradient: "clipped": straight-through, 1 where |x| ≤ 1, 0 elsewhere; keeps one bit per element. "passthrough": 1
            everywhere. The mean counts as a constant.

    Raises:
        ValueError: a wrong axis or gradient.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> binary_fake_quantize(torch.tensor([0.5, -1.5, 1.0]))
        tensor([ 1., -1.,  1.])
    """
    return _binary_fake_quantize(x, axis, gradient)


def ternary_fake_quantize(x: Tensor, axis: int | None = None, *, gradient: str = "passthrough") -> Tensor:
    """Returns s · sign(x) where |x| > d and 0 elsewhere (Li, Zhang and Liu 2016, arXiv:1605.04711, eq. 5 and 6).

    d = 0.7 · mean|x|, and s is the mean of the |x| above it, both rounded to float32.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        axis: the channel dimension, to have d and s for each channel; None: one of each.
        gradient: "passthrough": straight-through, 1 everywhere. "clipped": 1 where |x| ≤ 1, 0 elsewhere; keeps one bit
            per element. d and s count as constants.

    Raises:
        ValueError: a wrong axis or gradient.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> ternary_fake_quantize(torch.tensor([0.5, -1.5, 1.0, 0.0]))
        tensor([ 0.0000, -1.2500,  1.2500,  0.0000])
    """
    return _ternary_fake_quantize(x, axis, gradient)
