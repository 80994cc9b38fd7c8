# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound for a whole prepared model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchslim.quant.adaround import adaround
from torchslim.quant.batches import Loader, Progress
from torchslim.quant.layer_samples import LayerSamples
from torchslim.quant.layer_walk import (
    WalkedLayer,
    bits_of,
    channel_factor,
    check_bits,
    folded_bias,
    geometry,
    put_weight,
    walk_layers,
)
from torchslim.quant.weight_grid import GridWeight, ScaleSearch, round_weight, weight_scale

_WHO = "torchslim.quant.apply_adaround"


def apply_adaround(
    model: nn.Module,
    loader: Loader,
    bits: int | None = None,
    *,
    scale_search: ScaleSearch = "absmax",
    iterations: int = 10000,
    batch_size: int = 256,
    regularization: float = 0.01,
    seed: int = 0,
    max_bytes: int = 256 << 20,
    progress: Progress = None,
) -> None:
    """Rounds the weights of a prepared, calibrated model by AdaRound, layer by layer in the order data flows.

    Each layer is rounded so that, with the inputs that the layers rounded before it give it, it answers what it
    answers in float, behind its batch norm and activation. Memory: a copy of the parameters, and `max_bytes` of one
    layer's rows; each layer runs the batches anew up to itself. Batch norms are left alone: rounding per output
    channel commutes with them.

    Args:
        model: of `prepare`, after `calibrate` or training, in any mode, which it keeps.
        loader: gives batches of inputs, or tuples that begin with one, the same each time; some hundred images.
        bits: width of a code, 2 to 8; None: the width that each layer was prepared with.
        scale_search: as for `adaround`.
        iterations: as for `adaround`, for each layer.
        batch_size: as for `adaround`.
        regularization: as for `adaround`.
        seed: as for `adaround` and `LayerSamples`.
        max_bytes: as for `LayerSamples`.
        progress: hears (steps done, steps) of all layers together.

    Raises:
        ValueError: the model is not prepared or not calibrated, or runs a layer twice; the loader can be read once
            only, is empty, or gives NaN or infinity; options out of range; a layer
            whose weight quantiser has no integer codes, or fewer bits; a transposed convolution. The model is then as
            it was.

    Example:
        >>> ts.quant.calibrate(prepared, loader)
        >>> ts.quant.apply_adaround(prepared, loader)
    """
    options = {"iterations": iterations, "batch_size": batch_size, "regularization": regularization, "seed": seed}
    with walk_layers(_WHO, model, loader) as walk:
        check_bits(_WHO, walk.layers, bits)
        for done, layer in enumerate(walk.layers):
            samples = LayerSamples(layer.weight.shape, **geometry(layer), max_bytes=max_bytes, seed=seed)
            for rounded, in_float in walk.values(layer):
                samples.add(rounded.input, in_float.output)
            width = bits_of(layer, bits)
            scale = weight_scale(layer.weight, width, scale_search)
            hear = _told(progress, done * iterations, len(walk.layers) * iterations)
            put_weight(layer, _rounded(layer, samples, width, scale, progress=hear, **options))


def _told(progress: Progress, before: int, total: int) -> Progress:
    return None if progress is None else lambda steps, _: progress(before + steps, total)


def _rounded(layer: WalkedLayer, samples: LayerSamples, bits: int, scale: Tensor, **options: Any) -> GridWeight:  # noqa: ANN401
    """Rounds `layer` with its batch norm in weight and bias, as its activation stands behind that."""
    factor = channel_factor(layer)
    over_weight = (-1, *[1] * (layer.weight.dim() - 1))
    codes = adaround(
        layer.weight * factor.view(over_weight),
        folded_bias(layer),
        samples,
        bits,
        scale=(scale * factor.abs()).clamp_min(torch.finfo(torch.float32).tiny),
        activation=layer.output_fake_quantize.activation,  # type: ignore[arg-type]
        **options,
    ).codes
    # The codes of f·w are those of w, with the sign of f; where f is 0 nothing was learned.
    codes = codes * factor.sign().to(torch.int8).view(over_weight)
    nearest = round_weight(layer.weight, bits, scale=scale).codes
    codes = torch.where((factor != 0).view(over_weight), codes, nearest)
    return GridWeight(codes * scale.view(over_weight), scale, codes)
