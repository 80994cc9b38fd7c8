# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation that rounds up or down by chance, so that its expectation is what went in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_operator: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize_stochastic


def fake_quantize_stochastic(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rounds `x` to the grid of `fake_quantize`, up with the probability of the fraction.

    With v = x·(1/scale): q = clamp(floor(v) + [u < v − floor(v)] + zero_point, quant_min, quant_max), and the result is
    scale·(q − zero_point). Inside the grid its expectation is x; what lies on the grid stays. u is number i of the
    sequence of `seed` (Philox4x32-10) for the i-th element in memory: the same bits on any number of threads.

    Gradient: clipped straight-through on the rounded value; it keeps one bit per element.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and memory format.
        scale: the distance of grid points, > 0: one element, or with `axis` a 1-d tensor of `x.shape[axis]` elements.
        zero_point: the integer that stands for 0, in [quant_min, quant_max]; the shape of `scale`.
        quant_min: smallest integer of the grid, at least -2**23.
        quant_max: largest integer of the grid, at most 2**23.
        axis: the channel dimension that `scale` and `zero_point` run along; None: one grid for all of `x`.
        seed: a number, or a tensor with one int64; None: a new one in each call, drawn from `generator`.
        generator: where seeds are drawn from; None: PyTorch's default generator.

    Raises:
        ValueError: as `fake_quantize`; both a seed and a generator.
        TypeError: `x` is not a floating-point tensor, or the seed no int64.

    Example:
        >>> x = torch.full((4,), 0.25)
        >>> fake_quantize_stochastic(x, torch.tensor(1.0), torch.tensor(0), -8, 7, seed=0)
        tensor([0., 0., 1., 0.])
    """
    if seed is None:
        seed = torch.randint(torch.iinfo(torch.int64).max, (), generator=generator)
    elif generator is not None:
        raise ValueError("torchslim::fake_quantize_stochastic: give a seed or a generator, got both")
    if not isinstance(seed, Tensor):
        seed = torch.tensor(seed)
    return _operator(x, scale, zero_point, quant_min, quant_max, axis, seed)
