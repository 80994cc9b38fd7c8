# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation one element at a time, as the documentation writes it."""

import math

import numpy as np
import torch
from torch import Tensor


def fake_quantize(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    clamp_min: float = -math.inf,
    clamp_max: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Returns the values and the clipped straight-through gradient (1 or 0), shapes and type of `x`."""
    values, gradient = torch.empty_like(x), torch.empty_like(x)
    number = np.float64 if x.dtype == torch.float64 else np.float32
    for index in np.ndindex(*x.shape):
        channel = 0 if axis is None else index[axis]
        s = np.float32(torch.as_tensor(scale).reshape(-1)[channel].item())
        z = int(torch.as_tensor(zero_point).reshape(-1)[channel].item())
        element = number(x[index].item())
        with np.errstate(over="ignore"):
            steps = float(np.rint(np.clip(element, clamp_min, clamp_max) * number(np.float32(1) / s)))  # half to even
        inside = quant_min <= steps + z <= quant_max and clamp_min < element < clamp_max
        value = number(np.clip(steps + z, quant_min, quant_max) - z) * number(s)
        values[index] = float(np.float32(value) if axis is None else value)  # as ATen, also for float64
        gradient[index] = float(inside)
    return values, gradient


def moved_range(
    state: tuple[float, float], x: Tensor, averaging_constant: float, clamp_min: float, clamp_max: float
) -> tuple[float, float]:
    """Returns (min, max) of a moving average after it has seen clamp(x); (inf, -inf) has seen nothing."""
    seen = [min(max(element, clamp_min), clamp_max) for element in x.flatten().tolist()]
    if state == (math.inf, -math.inf):
        return min(seen), max(seen)
    return (
        state[0] + averaging_constant * (min(seen) - state[0]),
        state[1] + averaging_constant * (max(seen) - state[1]),
    )


def choose_qparams(
    min_val: float, max_val: float, quant_min: int, quant_max: int, symmetric: bool
) -> tuple[float, int]:
    """Returns (scale, zero_point) of a range."""
    low, high = min(min_val, 0.0), max(max_val, 0.0)
    if symmetric:
        zero_point = math.floor((quant_min + quant_max + 1) / 2)
        scale = max(-low, high) / min(zero_point - quant_min, quant_max - zero_point)
        return max(float(np.float32(scale)), 2.0**-12), zero_point
    scale = max(float(np.float32((high - low) / (quant_max - quant_min))), 2.0**-12)
    return scale, min(max(quant_min - round(low / scale), quant_min), quant_max)  # round(): half to even
