# SPDX-License-Identifier: BSD-3-Clause
"""Biases that make up for what rounding weights does to the mean of each channel, without data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchslim import _C
from torchslim.graph.capture import capture
from torchslim.quant.prepared_model import PreparedModel


def correct_bias_analytic(model: PreparedModel) -> list[str]:
    """Makes up, without data, for what rounding the weights does to the mean of each output channel.

    Subtracts Σ (w̃ − w)·E[x], summed over a channel's weights, w̃ rounded, from the layer's output: from the beta of
    the batch norm behind it or, if there is none, from its bias. E[x] of an input channel follows from the batch norm
    that made it: a normal variable of mean beta and deviation |gamma|, clipped by the activation. Through additions
    means and variances add up; average pools and flatten keep the mean. Nagel et al. 2019, arXiv:1906.04721, eq. 17-20
    and appendix C.

    Args:
        model: of `prepare`.

    Returns:
        the names of the layers left as they are: those whose input is not known so (the first, what follows a
        convolution without batch norm or a max pool), and those without beta or bias.

    Raises:
        TypeError: `model` is not a prepared model.

    Example:
        >>> ts.quant.correct_bias_analytic(prepared)
        ['features.0.conv']
    """
    if not isinstance(model, PreparedModel):
        raise TypeError(
            f"torchslim.quant.correct_bias_analytic: expected a prepared model, got {type(model).__name__}; "
            "call torchslim.quant.prepare first"
        )
    device = next(model.parameters()).device
    left: list[str] = _C.quant.correct_bias_analytic(capture(model, torch.zeros(model.example_shape, device=device)))
    return left


def clipped_normal(mean: Tensor, deviation: Tensor, low: float, high: float = math.inf) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of clip(x, low, high) for x normal with the given mean and standard deviation.

    With a = (low − mean) / deviation, b = (high − mean) / deviation, φ and Φ of the standard normal distribution:
    E = mean·(Φ(b) − Φ(a)) + deviation·(φ(a) − φ(b)) + low·Φ(a) + high·(1 − Φ(b)).

    Args:
        mean: any shape, floating point.
        deviation: of the same shape, ≥ 0.
        low: finite, < high.
        high: may be infinite.

    Returns:
        two float64 tensors.

    Raises:
        ValueError: `low` is not below `high`.

    Example:
        >>> clipped_normal(torch.tensor(0.0), torch.tensor(1.0), low=0.0)[0]
        tensor(0.3989, dtype=torch.float64)
    """
    moments: tuple[Tensor, Tensor] = _C.quant.clipped_normal(mean, deviation, low, high)
    return moments
