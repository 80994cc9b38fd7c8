# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation on grids that learn: LSQ, LSQ+, PACT, TQT and trainable ranges are this op on a scale of theirs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_learned_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.learned_fake_quantize.default
_positive_scale: Callable[[Tensor], Tensor] = torch.ops.torchslim.positive_scale.default
_pact_scale: Callable[[Tensor, int, int], Tensor] = torch.ops.torchslim.pact_scale.default
_trained_threshold_scale: Callable[[Tensor, int], Tensor] = torch.ops.torchslim.trained_threshold_scale.default
_trainable_range_qparams: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.trainable_range_qparams.default


def learned_fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    grad_scale: str = "none",
    gradient: str = "rounded",
) -> Tensor:
    """Returns `fake_quantize(x)` on a grid that learns: gradients for `x`, `scale` and `zero_point`.

    With v = x/scale, q the rounded and clamped code, z the zero point and inside = (q was not clamped):
    dx = dy·[inside]; dscale = g·Σ dy·(q − z − [inside]·v); dzero_point = g·Σ −scale·dy·[not inside]. Only what is
    wanted is computed, in one pass; sums are the same bits for any number of threads. Keeps `x`. Not differentiable
    twice.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        scale: > 0, a tensor of one element, or with `axis` of shape `(x.shape[axis],)`.
        zero_point: shape of `scale`; any finite number: rounded half to even, then clamped to the grid, forward and
            backward alike.
        quant_min: smallest integer of the grid, at least -2**23.
        quant_max: largest integer of the grid, at most 2**23.
        axis: the channel dimension; None: one grid for all of `x`.
        grad_scale: factor g on the gradients of scale and zero point, with Q = quant_max and n elements of `x`: "none"
            1, "numel" 1/√(n·Q), "per_channel" 1/√(n/channels·Q), "features" 1/√(n/x.shape[0]·Q).
        gradient: "rounded" as above (LSQ), or "clip" (PACT): the rounding error does not count for the scale, and
            inside means that `x` lies between the first and the last grid point, both excluded.

    Raises:
        ValueError: scale ≤ 0 or NaN, a zero point that is not finite, an empty range, a wrong axis, shape or device, an
            unknown grad_scale or gradient.
        TypeError: `x` is not a floating-point tensor.

    Example:
        >>> x, scale = torch.tensor([0.04, 0.26, 9.0]), torch.tensor(0.1, requires_grad=True)
        >>> learned_fake_quantize(x, scale, torch.tensor(0), -8, 7).sum().backward()
        >>> scale.grad  # (0 - 0.4) + (3 - 2.6) + 7
        tensor(7.)
    """
    return _learned_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, grad_scale, gradient)


def positive_scale(raw: Tensor) -> Tensor:
    """LSQ: returns max(|raw|, 2**-23), a scale that cannot leave the positive numbers.

    Gradient: sign(raw), +1 for 0; also below the smallest scale, so that a scale that got there can grow again.

    Args:
        raw: what is trained, a floating-point tensor of any shape.

    Example:
        >>> positive_scale(torch.tensor([0.5, -0.25, 0.0]))
        tensor([5.0000e-01, 2.5000e-01, 1.1921e-07])
    """
    return _positive_scale(raw)


def pact_scale(alpha: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """PACT: returns the scale of a grid from 0 to `alpha`: positive_scale(alpha) / (quant_max − quant_min).

    The zero point is `quant_min`. With gradient="clip", alpha's gradient is Σ dy·[x ≥ alpha].

    Args:
        alpha: what is trained, a floating-point tensor of any shape.
        quant_min: smallest integer of the grid.
        quant_max: largest integer of the grid, > quant_min.

    Example:
        >>> pact_scale(torch.tensor(6.0), 0, 15)
        tensor(0.4000)
    """
    return _pact_scale(alpha, quant_min, quant_max)


def trained_threshold_scale(log2_threshold: Tensor, quant_max: int) -> Tensor:
    """TQT: returns the power of two 2^ceil(log2_threshold) / (quant_max + 1).

    Gradient: straight through the ceil, so scale·ln 2.

    Args:
        log2_threshold: what is trained, a floating-point tensor of any shape.
        quant_max: largest integer of the grid; quant_max + 1 is a power of two.

    Example:
        >>> trained_threshold_scale(torch.tensor(1.3), 127)  # 4 / 128
        tensor(0.0312)
    """
    return _trained_threshold_scale(log2_threshold, quant_max)


def trainable_range_qparams(
    input_low: Tensor, input_range: Tensor, quant_min: int, quant_max: int
) -> tuple[Tensor, Tensor]:
    """A range that trains, as NNCF's: scale = positive_scale(input_range) / (quant_max − quant_min).

    The zero point is quant_min − input_low / scale, not yet rounded: `learned_fake_quantize` rounds it, and so moves
    the range by less than half a step to where 0 is a grid point.

    Args:
        input_low: where the range begins, a floating-point tensor of any shape.
        input_range: its length, same shape.
        quant_min: smallest integer of the grid.
        quant_max: largest integer of the grid, > quant_min.

    Returns:
        (scale, zero_point), both with a gradient.

    Example:
        >>> trainable_range_qparams(torch.tensor(-1.0), torch.tensor(3.0), 0, 15)
        (tensor(0.2000), tensor(5.))
    """
    return _trainable_range_qparams(input_low, input_range, quant_min, quant_max)
