# SPDX-License-Identifier: BSD-3-Clause
"""Weights on symmetric grids per output channel, rounded to nearest: what GPTQ and AdaRound improve on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from torchslim import _C

ScaleSearch = Literal["absmax", "mse"]


class GridWeight(NamedTuple):
    """A weight on a symmetric grid per output channel: `weight` is `codes * scale`."""

    #: Shape and dtype of the float weight.
    weight: Tensor
    #: float32 (O), > 0.
    scale: Tensor
    #: int8, shape of the weight, in [-(2^(bits-1) - 1), 2^(bits-1) - 1].
    codes: Tensor


def weight_scale(weight: Tensor, bits: int = 8, scale_search: ScaleSearch = "absmax") -> Tensor:
    """Returns the scale of each output channel: max|w| / (2^(bits-1) - 1) or, as `scale_search` says, less.

    1 for a channel that is all zero (or too small for a normal float32 scale).

    Args:
        weight: (O, ...), floating point, not empty. No gradient flows to it.
        bits: width of a code, 2 to 8.
        scale_search: "absmax", or "mse": the one of 80 shares of that scale, from 1 down to 0.21, with the smallest
            squared error of the channel, the larger scale on a tie.

    Returns:
        float32, shape (O).

    Raises:
        ValueError: NaN or infinity, naming the channel; an empty weight; options out of range.

    Example:
        >>> weight_scale(torch.tensor([[7.0, -3.5], [0.0, 0.0]]), bits=4)
        tensor([1., 1.])
    """
    scale: Tensor = _C.quant.weight_scale(weight, bits, scale_search)
    return scale


def round_weight(
    weight: Tensor, bits: int = 8, scale_search: ScaleSearch = "absmax", scale: Tensor | None = None
) -> GridWeight:
    """Rounds `weight` to the nearest point of its grid, half to even, as `fake_quantize` does.

    Args:
        weight: (O, ...), floating point, not empty. No gradient flows to it.
        bits: width of a code, 2 to 8.
        scale_search: how the scale is chosen, as for `weight_scale`.
        scale: float32 (O), > 0, instead of one that is chosen.

    Raises:
        ValueError: NaN or infinity, naming the channel; shapes; options out of range.

    Example:
        >>> round_weight(torch.tensor([[7.0, -3.4]]), bits=4).codes
        tensor([[ 7, -3]], dtype=torch.int8)
    """
    return GridWeight(*_C.quant.round_weight(weight, bits, scale_search, scale))
