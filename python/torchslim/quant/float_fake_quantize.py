# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation to floating-point formats, alone and with scales that blocks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchslim.quant.float_format import FloatFormat

_float_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.float_fake_quantize.default
_block_float_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.block_float_fake_quantize.default


def float_fake_quantize(
    x: Tensor,
    format: FloatFormat,
    scale: float | Tensor | None = None,
    axis: int | None = None,
    *,
    gradient: str = "clipped",
) -> Tensor:
    """Rounds `x` to a floating-point format, half to even: y = scale · round(x · (1/scale)).

    Without a scale these are the bits of torch's casts and back: to float16, bfloat16 and float8_e5m2 with
    `saturate=False` in the format, to float8_e4m3fn with `saturate=True`. Computed in float32 (float64 is converted
    first, as in torch's casts); the result has the type and strides of `x`. NaN stays NaN.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        format: the format.
        scale: > 0: a number, a tensor of one element, or with `axis` a 1-d tensor of `x.shape[axis]` elements; None: 1.
        axis: the channel dimension that `scale` runs along; None: one scale for all of `x`.
        gradient: "clipped": straight-through, 1 where x rounds to a number of the format without saturating, 0 for what
            is too large and NaN; keeps one bit per element. "passthrough": 1 everywhere. None flows to `scale`.

    Raises:
        ValueError: scale ≤ 0, NaN or subnormal; a wrong axis, shape, device or gradient.
        TypeError: `x` or `scale` is not a floating-point tensor, `format` no FloatFormat.

    Example:
        >>> float_fake_quantize(torch.tensor([1.3, 2.1, 1000.0]), FloatFormat.e4m3fn())
        tensor([  1.2500,   2.0000, 448.0000])
    """
    _check("float_fake_quantize", format)
    if scale is not None and not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32, device=x.device)
    return _float_fake_quantize(
        x,
        format.exponent_bits,
        format.mantissa_bits,
        format.bias,
        format.specials,
        format.saturate,
        scale,
        axis,
        gradient,
    )


def block_float_fake_quantize(
    x: Tensor, format: FloatFormat, block_size: int = 32, axis: int = -1, *, gradient: str = "clipped"
) -> Tensor:
    """Rounds `x` to numbers that share a power-of-two scale in each block along `axis` (microscaling, MX).

    y = s · round(x / s), half to even, saturating, s = 2^clamp(⌊log₂ max|x|⌋ − ⌊log₂ format.max⌋, −127, 127), where the
    maximum runs over the finite numbers of the block (OCP MX v1.0, section 6.3). The result has the type and strides of
    `x`. NaN stays NaN, infinity saturates.

    Args:
        x: float32, float64 (converted to float32), bfloat16 or float16, at least one dimension.
        format: of the elements, its largest number at least 1; of MX: e4m3fn, e5m2, minifloat(3, 2), (2, 3), (2, 1) and
            (0, 7).
        block_size: elements that share a scale; divides `x.shape[axis]`.
        axis: the dimension that blocks lie along.
        gradient: "clipped": straight-through, 1 where x / s rounds without saturating, 0 elsewhere and for NaN; keeps
            one bit per element. "passthrough": 1 everywhere.

    Raises:
        ValueError: a block that does not divide, a format without a number ≥ 1, a wrong axis or gradient.
        TypeError: `x` is not a floating-point tensor, `format` no FloatFormat.

    Example:
        >>> block_float_fake_quantize(torch.tensor([0.3, 1.1, 10.0, 60.0]), FloatFormat.minifloat(2, 1), block_size=2)
        tensor([ 0.2500,  1.0000,  8.0000, 48.0000])
    """
    _check("block_float_fake_quantize", format)
    return _block_float_fake_quantize(
        x, format.exponent_bits, format.mantissa_bits, format.bias, format.specials, block_size, axis, gradient
    )


def _check(call: str, format: FloatFormat) -> None:
    if not isinstance(format, FloatFormat):
        raise TypeError(f"{call}: format must be a FloatFormat, such as FloatFormat.e4m3fn(), got {format!r}")
