# SPDX-License-Identifier: BSD-3-Clause
"""Rounding to a table of levels one element at a time, as the documentation writes it."""

import numpy as np
import torch
from torch import Tensor


def level_fake_quantize(x: Tensor, levels: Tensor, scale: Tensor, axis: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the values and the clipped straight-through gradient (1 or 0), shapes and type of `x`."""
    values, gradient = torch.empty_like(x), torch.empty_like(x)
    number = np.float64 if x.dtype == torch.float64 else np.float32
    table = levels.double().tolist()
    for index in np.ndindex(*x.shape):
        s = np.float32(scale.reshape(-1)[0 if axis is None else index[axis]].item())
        with np.errstate(over="ignore", invalid="ignore"):
            v = float(number(x[index].item()) * number(np.float32(1) / s))
        nearest = 0
        for i in range(1, len(table)):
            middle = (table[i - 1] + table[i]) / 2
            if v > middle or (v == middle and i % 2 == 0):
                nearest = i
        with np.errstate(over="ignore"):
            value = number(table[nearest]) * number(s)
        values[index] = v if np.isnan(v) else float(value)
        gradient[index] = float(table[0] <= v <= table[-1])
    return values, gradient
