# SPDX-License-Identifier: BSD-3-Clause
"""Biases that make up for what rounding does to the mean of each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchslim.quant.batches import Loader, Progress
from torchslim.quant.layer_walk import WalkedLayer, channel_factor, walk_layers

_WHO = "torchslim.quant.correct_bias"


def correct_bias(
    model: nn.Module, loader: Loader, *, reference: nn.Module | None = None, progress: Progress = None
) -> list[str]:
    """Makes up for what rounding does to the mean of each output channel, layer by layer in the order data flows.

    Adds E[y in float] − E[y rounded], with y behind the batch norm and before the activation, over batches and
    positions, to the layer's batch norm's beta or, if it has none, to its bias. Layers before it are rounded, and
    corrected already. Nagel et al. 2019, arXiv:1906.04721, appendix D.

    Args:
        model: of `prepare`, after `calibrate` or training, in any mode, which it keeps.
        loader: gives batches of inputs, or tuples that begin with one, the same each time; some hundred images.
        reference: the model in float, where the weights of `model` were rounded since (`apply_gptq`, `apply_adaround`):
            what was prepared, or a copy of `model` from before; its parameters and batch norm statistics are taken by
            name. None: `model` as it is.
        progress: hears (layers done, layers).

    Returns:
        the names of the layers left as they are, as they have neither bias nor beta (or only a bias before a batch norm
        that is 0 in some channel).

    Raises:
        ValueError: the model is not prepared or not calibrated, or runs a layer twice; the loader can be read once
            only, is empty, or gives NaN or infinity; the reference is another model or shares its weights. The model
            is then as it was.

    Example:
        >>> ts.quant.calibrate(prepared, loader)
        >>> ts.quant.correct_bias(prepared, loader)
        []
    """
    left = []
    with walk_layers(_WHO, model, loader, reference) as walk:
        for done, layer in enumerate(walk.layers, 1):
            difference = torch.zeros(
                layer.weight_by_outputs().shape[0], dtype=torch.float64, device=layer.weight.device
            )
            outputs = 0
            for rounded, in_float in walk.values(layer):
                difference += _channel_sums(in_float.output) - _channel_sums(rounded.output)
                outputs += rounded.output.numel() // rounded.output.shape[1]
            if not _add_to_output(layer, (difference / outputs).to(layer.weight.dtype)):
                left.append(layer.layer_name)
            if progress is not None:
                progress(done, len(walk.layers))
    return left


def _channel_sums(output: Tensor) -> Tensor:
    """The sum over all but the channels of (N, O, ...), float64 (O)."""
    return output.double().transpose(0, 1).flatten(1).sum(1)


def _add_to_output(layer: WalkedLayer, offset: Tensor) -> bool:
    """Adds to what stands behind the batch norm; returns whether the layer has what takes it."""
    norm = layer.batch_norm
    if norm is not None and norm.bias is not None:
        norm.bias.add_(offset)
        return True
    factor = channel_factor(layer)
    if layer.bias is None or bool((factor == 0).any()):
        return False
    layer.bias.add_(offset / factor)
    return True
