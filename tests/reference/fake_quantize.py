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
        steps = _round(np.clip(element, number(clamp_min), number(clamp_max)) * number(np.float32(1) / s))
        inside = quant_min <= steps + z <= quant_max and clamp_min < element < clamp_max
        value = number(np.clip(steps + z, quant_min, quant_max) - z) * number(s)
        values[index] = float(np.float32(value) if axis is None else value)  # as ATen, also for float64
        gradient[index] = float(inside)
    return values, gradient


def _round(value: np.floating) -> float:
    """Half to even, exactly."""
    return float(np.rint(value))
