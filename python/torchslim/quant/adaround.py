# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound: each number of a weight rounded up or down as serves the layer's output."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from torchslim import _C
from torchslim.quant.batches import Progress
from torchslim.quant.layer_samples import LayerSamples
from torchslim.quant.weight_grid import GridWeight, ScaleSearch


def adaround(
    weight: Tensor,
    bias: Tensor | None,
    samples: LayerSamples,
    bits: int = 4,
    *,
    scale_search: ScaleSearch = "absmax",
    iterations: int = 10000,
    batch_size: int = 256,
    regularization: float = 0.01,
    activation: Literal["none", "relu", "relu6"] = "none",
    seed: int = 0,
    scale: Tensor | None = None,
    progress: Progress = None,
) -> GridWeight:
    """Rounds each number of a weight up or down so that the layer's output is nearest to the outputs wanted.

    Learns h(V) in w̃ = scale·clamp(⌊w/scale⌋ + h(V)), h(V) = clip(1.2·sigmoid(V) − 0.1, 0, 1), by Adam (rate 0.01) on
    the mean over rows of Σ(act(w̃·x + bias) − act(y))² plus λ·Σ(1 − |2h − 1|^β), where λ counts after a fifth of the
    steps and β then falls from 20 to 2 by half a cosine. At the end h is rounded. A channel that the nearest grid point
    serves as well on all rows kept takes that, so the result is never worse there. The same bits for any number of
    threads. Nagel et al. 2020, arXiv:2004.10568, eq. 21-25.

    Args:
        weight: (O, ...), floating point, not empty. No gradient flows to it.
        bias: (O) of the layer, or None.
        samples: of a layer of the weight's shape: what it is given in the quantised network, and what it answers in the
            float one, before its activation.
        bits: width of a code, 2 to 8.
        scale_search: how the scale of a channel is chosen beforehand, as for `weight_scale`.
        iterations: steps of Adam, ≥ 1.
        batch_size: rows in a step, drawn with replacement; all rows in each step if there are no more.
        regularization: λ, the weight of what makes the choice definite, ≥ 0.
        activation: what is applied to outputs and targets before they are compared.
        seed: of the rows drawn.
        scale: float32 (O), > 0, instead of one that is chosen.
        progress: hears (done, iterations), every hundredth step.

    Returns:
        the weight on its grid, the scale, the codes.

    Raises:
        ValueError: NaN or infinity; shapes; options out of range; empty samples.

    Example:
        >>> samples = LayerSamples((1, 2))
        >>> samples.add(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.8]]))  # the layer only sees sums
        >>> adaround(torch.tensor([[3.0, 1.4]]), None, samples, bits=3, iterations=500).codes
        tensor([[3, 1]], dtype=torch.int8)
    """
    options = bits, scale_search, iterations, batch_size, regularization, activation, seed
    return GridWeight(*_C.quant.adaround(weight, bias, samples._state, *options, scale, progress))
