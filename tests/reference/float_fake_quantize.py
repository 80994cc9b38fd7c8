# SPDX-License-Identifier: BSD-3-Clause
"""Rounding to floating-point formats through the list of all their numbers."""

import math

import numpy as np
import torch
from torch import Tensor


def numbers(exponent_bits: int, mantissa_bits: int, bias: int, specials: str) -> list[float]:
    """All numbers ≥ 0 of a format in the order of their codes, and last the one that the next code would stand for."""
    count = 2 ** (exponent_bits + mantissa_bits)
    if specials == "ieee":
        count = (2**exponent_bits - 1) * 2**mantissa_bits
    elif specials == "nan":
        count -= 1
    found = []
    for code in range(count + 1):
        exponent, k = divmod(code, 2**mantissa_bits)
        fraction = k / 2**mantissa_bits
        found.append((1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias))
    return found


def rounded(v: float, table: list[float], saturate: bool, specials: str) -> tuple[float, bool]:
    """The number nearest to v, half to the even code, and whether v fits the format."""
    if math.isnan(v):
        return v, False
    size = abs(v)
    code = len(table) - 1
    if size < table[-1]:
        code = int(np.searchsorted(table, size, side="right")) - 1  # table[code] ≤ size
        middle = (table[code] + table[code + 1]) / 2
        code += size > middle or (size == middle and code % 2 == 1)
    if code < len(table) - 1:
        return math.copysign(table[code], v), True
    if saturate:
        return math.copysign(table[-2], v), False
    return (math.copysign(math.inf, v) if specials == "ieee" else math.nan), False


def float_fake_quantize(x: Tensor, format: object, scale: Tensor, axis: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the values and the clipped straight-through gradient (1 or 0), shapes and type of `x`."""
    e, m, bias, specials, saturate = (
        getattr(format, name) for name in ("exponent_bits", "mantissa_bits", "bias", "specials", "saturate")
    )
    table = numbers(e, m, bias, specials)
    values, gradient = torch.empty_like(x), torch.empty_like(x)
    number = np.float64 if x.dtype == torch.float64 else np.float32
    for index in np.ndindex(*x.shape):
        s = np.float32(scale.reshape(-1)[0 if axis is None else index[axis]].item())
        with np.errstate(over="ignore", invalid="ignore"):
            v = float(np.float32(number(x[index].item()) * number(np.float32(1) / s)))
            value, fits = rounded(v, table, saturate, specials)
            values[index] = float(number(value) * number(s))
        gradient[index] = float(fits)
    return values, gradient


def block_float_fake_quantize(x: Tensor, format: object, block_size: int, axis: int) -> tuple[Tensor, Tensor]:
    """Returns the values and the clipped straight-through gradient (1 or 0), shapes and type of `x`."""
    e, m, bias, specials = (getattr(format, name) for name in ("exponent_bits", "mantissa_bits", "bias", "specials"))
    table = numbers(e, m, bias, specials)
    values, gradient = torch.empty_like(x), torch.empty_like(x)
    for index in np.ndindex(*x.shape):
        first = index[axis] // block_size * block_size
        places = [(*index[:axis], first + k, *index[axis + 1 :]) for k in range(block_size)]
        with np.errstate(over="ignore"):
            block = [float(np.float32(x[place].item())) for place in places]
        largest = max((abs(v) for v in block if math.isfinite(v)), default=0.0)
        exponent = -127 if largest == 0 else math.floor(math.log2(largest)) - math.floor(math.log2(table[-2]))
        s = 2.0 ** min(max(exponent, -127), 127)
        value, fits = rounded(block[index[axis] - first] / s, table, True, specials)
        values[index] = value * s
        gradient[index] = float(fits)
    return values, gradient
