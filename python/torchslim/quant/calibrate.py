# SPDX-License-Identifier: BSD-3-Clause
"""Ranges for a prepared model from data, with the rest of the model as it is."""

from __future__ import annotations

import torch
from torch import nn

from torchslim.quant.batches import Loader, Progress, in_mode, read_batches, unchanged_on_error
from torchslim.quant.prepared_model import fake_quantizers

_WHO = "torchslim.quant.calibrate"


def calibrate(model: nn.Module, loader: Loader, *, progress: Progress = None) -> None:
    """Moves the ranges of a prepared model's quantisers to those of the data, and nothing else.

    Batch norms and dropout run as in eval, without gradients; parameters, running statistics and modes stay as they
    are, bit for bit. Each quantiser goes on from what it has seen, by its own observer.

    Args:
        model: of `prepare`, in any mode.
        loader: gives batches of inputs, or tuples that begin with one; some hundred images are enough.
        progress: hears (done, total) after each batch; total is 0 if the loader has no length.

    Raises:
        ValueError: no quantiser in `model` observes, there is no batch, or a batch or an activation holds NaN or
            infinity. The model is then as it was.

    Example:
        >>> prepared = ts.quant.prepare(torch.nn.Linear(2, 2), torch.zeros(1, 2))
        >>> calibrate(prepared, [torch.tensor([[-1.0, 1.0]])])
        >>> prepared.input_fake_quantize.min_val
        tensor(-1.)
    """
    quantizers = [quantizer for _, quantizer in fake_quantizers(model) if quantizer.observer_enabled.item()]
    if not quantizers:
        raise ValueError(
            f"{_WHO}: no quantiser of the model observes; call torchslim.quant.prepare first, and enable_observer"
        )
    with torch.no_grad(), in_mode(model, False), unchanged_on_error(quantizers, parameters=True):
        for quantizer in quantizers:
            for module in quantizer.modules():
                module.training = True
        for batch in read_batches(_WHO, loader, progress):
            model(batch)
