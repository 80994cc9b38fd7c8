# SPDX-License-Identifier: BSD-3-Clause
"""Binary and ternary rounding one element at a time, as the documentation writes it."""

import math

import numpy as np
import torch
from torch import Tensor


def sign_fake_quantize(x: Tensor, axis: int | None, ternary: bool) -> tuple[Tensor, Tensor]:
    """Returns the values and the clipped straight-through gradient (1 or 0), shapes and type of `x`."""
    values, gradient = torch.empty_like(x), torch.empty_like(x)
    number = np.float64 if x.dtype == torch.float64 else np.float32
    channels: dict[int, list[float]] = {}
    for index in np.ndindex(*x.shape):
        channels.setdefault(0 if axis is None else index[axis], []).append(abs(float(x[index])))
    for index in np.ndindex(*x.shape):
        sizes = channels[0 if axis is None else index[axis]]
        threshold = float(np.float32(0.7 * (math.fsum(sizes) / len(sizes)))) if ternary else -1.0
        above = [size for size in sizes if not size <= threshold]
        scale = np.float32(math.fsum(above) / len(above) if above else 0.0)
        element = float(x[index])
        sign = (-1.0 if element < 0 else 1.0) if abs(element) > threshold else 0.0
        values[index] = float(number(sign) * number(scale))
        gradient[index] = float(abs(element) <= 1)
    return values, gradient
