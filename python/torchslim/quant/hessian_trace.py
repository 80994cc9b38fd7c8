# SPDX-License-Identifier: BSD-3-Clause
"""How curved the loss is in the weights of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.batches import in_mode
from torchslim.quant.weighted_layers import weighted_layers

_WHO = "torchslim.quant.hessian_trace"


def hessian_trace(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    loader: Iterable[Any],
    *,
    samples: int = 32,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, float]:
    """Estimates the trace of the Hessian of the loss for the weight of each convolution and linear layer.

    The mean over random v ∈ {−1, 1} of vᵀ·H·v (Hutchinson 1990), over the batches of `loader`. A layer with a larger
    trace is hurt more by an error of its weights (Dong et al. 2019, arXiv:1911.03852).

    Args:
        model: a float model; runs in eval, and comes back in the mode it was in. A prepared model has no second
            derivative and is refused: rounding is no smooth function.
        loss: `loss(model, batch)` returns one number, the mean over the batch.
        loader: batches, one or more; each counts alike.
        samples: random vectors for each batch; the error falls with their square root.
        seed: of the random vectors: the same seed gives the same numbers.
        progress: called after each batch with how many are done and of how many, None where `loader` has no length.

    Returns:
        for each layer's name the trace.

    Raises:
        ValueError: no such layer, an empty loader, a loss that is not one number with a graph, a result that is not
            finite.

    Example:
        >>> hessian_trace(model, lambda model, batch: cross_entropy(model(batch[0]), batch[1]), loader, samples=8)
    """
    layers = weighted_layers(_WHO, model)
    weights = [layer.weight for layer in layers.values()]
    frozen = [name for name, layer in layers.items() if not layer.weight.requires_grad]
    if frozen:
        raise ValueError(f"{_WHO}: the weight of layer {frozen[0]!r} has no gradient; set requires_grad")
    total = len(loader) if isinstance(loader, Sized) else None
    sums = [0.0] * len(weights)
    done = 0
    with in_mode(model, False), torch.enable_grad():
        for batch in loader:
            traces = _C.quant.hessian_trace(loss(model, batch), weights, samples, seed + done)
            sums = [a + b for a, b in zip(sums, traces, strict=True)]
            done += 1
            if progress is not None:
                progress(done, total)
    if done == 0:
        raise ValueError(f"{_WHO}: the loader is empty; give it one batch or more")
    return {name: total_trace / done for name, total_trace in zip(layers, sums, strict=True)}
