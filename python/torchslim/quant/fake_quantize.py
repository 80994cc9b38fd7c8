# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation: floats rounded to the grid that integers will run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

from torchslim import _C

# The operator, for what records operators; and the same through a thinner door, for small tensors.
_operator: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize
_eager: Callable[..., Tensor] = _C.quant.fake_quantize


def fake_quantize(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> Tensor:
    """Rounds `x` to the grid {scale·(q − zero_point) : quant_min ≤ q ≤ quant_max}, half to even.

    Bit-equal to `torch.fake_quantize_per_tensor_affine` and `torch.fake_quantize_per_channel_affine`, forward and
    backward, except that NaN stays NaN and that huge values and +inf always saturate upwards. Computed in float32
    (float64 for float64 tensors); the result has the type and strides of `x`.

    Gradient: clipped straight-through, 1 inside the grid and 0 outside; it keeps one bit per element.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        scale: the distance of grid points, > 0: a number, a tensor of one element, or with `axis` a 1-d tensor of
            `x.shape[axis]` elements. No gradient flows to it.
        zero_point: the integer that stands for 0, in [quant_min, quant_max]; a number or a tensor, as `scale`.
        quant_min: smallest integer of the grid, at least -2**23.
        quant_max: largest integer of the grid, at most 2**23.
        axis: the channel dimension that `scale` and `zero_point` run along; None: one grid for all of `x`.

    Raises:
        ValueError: scale ≤ 0 or NaN, zero_point outside the grid or not whole, an empty range, a wrong axis or shape.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> fake_quantize(torch.tensor([0.04, 0.26, 9.0]), 0.1, 0, -128, 127)
        tensor([0.0000, 0.3000, 9.0000])
    """
    call = _eager if type(x) in (Tensor, Parameter) and not torch.compiler.is_compiling() else _operator
    if isinstance(scale, Tensor) or isinstance(zero_point, Tensor):
        return call(x, _as_tensor(scale, torch.float32), _as_tensor(zero_point, None), quant_min, quant_max, axis)
    if axis is not None:
        raise ValueError(
            f"torchslim::fake_quantize: axis={axis} needs scale and zero_point as 1-d tensors, "
            f"got the numbers {scale} and {zero_point}"
        )
    if not isinstance(zero_point, int):
        raise ValueError(f"torchslim::fake_quantize: zero_point must be a whole number, got {zero_point}")
    return call(x, scale, zero_point, quant_min, quant_max)


def _as_tensor(value: float | Tensor, dtype: torch.dtype | None) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)
