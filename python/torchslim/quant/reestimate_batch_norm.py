# SPDX-License-Identifier: BSD-3-Clause
"""Running statistics of batch norms, anew, for the weights as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchslim.quant.batches import Loader, Progress, in_mode, read_batches, unchanged_on_error
from torchslim.quant.layers import QuantLayer

_WHO = "torchslim.quant.reestimate_batch_norm"


def reestimate_batch_norm(model: nn.Module, loader: Loader, *, progress: Progress = None) -> None:
    """Sets the running statistics of all batch norms to the mean of the statistics of the batches, each counting once.

    After training they lag behind the weights, and in a prepared model behind the rounding of the weights. All else
    runs as in eval, without gradients, on the weights' grids; ranges, parameters and modes stay as they are.
    Jacob et al. 2018, arXiv:1712.05877, section 3.2; Sun et al. 2019, arXiv:1909.12326 (precise statistics).

    Args:
        model: a prepared model, or a float one.
        loader: gives batches of inputs, or tuples that begin with one, best of the size that training had.
        progress: hears (done, total) after each batch; total is 0 if the loader has no length.

    Raises:
        ValueError: no batch norm with running statistics, no batch, a batch that is too small for statistics or holds
            NaN or infinity. The model is then as it was.

    Example:
        >>> norm = torch.nn.BatchNorm1d(1)
        >>> reestimate_batch_norm(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        >>> norm.running_mean
        tensor([4.])
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        raise ValueError(f"{_WHO}: the model has no batch norm with running statistics")
    with torch.no_grad(), in_mode(model, False), unchanged_on_error(norms), _cumulative(norms):
        for module in [*norms, *(m for m in model.modules() if isinstance(m, QuantLayer))]:
            module.training = True  # the form of training, which has the batch norm apart
        for batch in read_batches(_WHO, loader, progress):
            model(batch)


@contextmanager
def _cumulative(norms: list[_BatchNorm]) -> Iterator[None]:
    """Lets batch norms average over all batches inside."""
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
