# SPDX-License-Identifier: BSD-3-Clause
"""Learned fake-quantisers one element at a time, as the documentation writes them, in float64."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Gradients:
    """Gradients of x, scale and zero point, and how large the sums were that they are, term by term."""

    x: Tensor
    scale: Tensor
    zero_point: Tensor
    magnitude: Tensor


def rounded_zero_point(zero_point: float, quant_min: int, quant_max: int) -> int:
    """Half to even, then clamped."""
    return min(max(round(zero_point), quant_min), quant_max)


def grad_factor(x: Tensor, quant_max: int, axis: int | None, grad_scale: str) -> float:
    """The factor on the gradients of scale and zero point."""
    if grad_scale == "none":
        return 1.0
    share = {"numel": 1, "per_channel": 1 if axis is None else x.shape[axis], "features": x.shape[0] if x.dim() else 1}
    return 1 / math.sqrt(x.numel() / share[grad_scale] * quant_max)


def learned_gradients(
    x: Tensor,
    dy: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    gradient: str = "rounded",
    factor: float = 1.0,
) -> Gradients:
    """Returns the gradients of `learned_fake_quantize`."""
    number = np.float64 if x.dtype == torch.float64 else np.float32
    dx = torch.empty_like(x)
    d_scale, d_zero_point, magnitude = (torch.zeros(scale.numel(), dtype=torch.float64) for _ in range(3))
    for index in np.ndindex(*x.shape):
        channel = 0 if axis is None else index[axis]
        s = np.float32(scale.reshape(-1)[channel].item())
        z = rounded_zero_point(zero_point.reshape(-1)[channel].item(), quant_min, quant_max)
        with np.errstate(over="ignore"):
            position = number(x[index].item()) * number(np.float32(1) / s)
        steps = float(np.rint(position))
        nearest = min(max(steps, quant_min - z), quant_max - z)
        if gradient == "clip":
            inside = quant_min - z < position < quant_max - z
            error = 0.0 if inside else nearest
        else:
            inside = quant_min <= steps + z <= quant_max
            error = nearest - float(position) if inside else nearest
        slope = dy[index].item()
        dx[index] = slope * inside
        d_scale[channel] += slope * error
        d_zero_point[channel] += 0.0 if inside else -float(s) * slope
        magnitude[channel] += abs(slope * error)
    return Gradients(
        dx, (factor * d_scale).reshape(scale.shape), (factor * d_zero_point).reshape(scale.shape), factor * magnitude
    )


def positive_scale(raw: float) -> float:
    """Where raw numbers become scales."""
    return max(abs(raw), 2.0**-23)


def trained_threshold_scale(log2_threshold: float, quant_max: int) -> float:
    """The power of two of TQT."""
    return 2.0 ** math.ceil(log2_threshold) / (quant_max + 1)


def pact(x: Tensor, alpha: float, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (values, ∂y/∂x, ∂y/∂alpha) of PACT, as its paper writes it, for float64 `x`."""
    clipped = torch.where(x < 0, torch.zeros_like(x), torch.where(x < alpha, x, torch.full_like(x, alpha)))
    values = (clipped * levels / alpha).round() * (alpha / levels)
    return values, ((x > 0) & (x < alpha)).to(x), (x >= alpha).to(x)


def nncf_range(x: Tensor, dy: Tensor, low: float, length: float, levels: int) -> tuple[Tensor, float, float]:
    """Returns (values, dlow, drange) of NNCF's asymmetric quantiser without its tuning of the range, in float64."""
    scale = length / (levels - 1)
    clamped = x.clamp(low, low + length)
    values = low + ((clamped - low) / scale).round() * scale
    below, above = x < low, x > low + length
    inside = ~(below | above)
    d_low = (dy * ~inside).sum().item()
    d_range = (dy * torch.where(inside, (values - x) / length, above.to(x))).sum().item()
    return values, d_low, d_range
