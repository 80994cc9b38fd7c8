# SPDX-License-Identifier: BSD-3-Clause
"""How right a file is, and how near to the model it was made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchslim import _C
from torchslim.deploy.loaded_model import LoadedModel
from torchslim.deploy.lower import IntegerGraph
from torchslim.deploy.run_pte import PteModel
from torchslim.deploy.run_ptl import PtlModel


@dataclass(frozen=True)
class Agreement:
    """How near the outputs of a file are to those of the model that was trained."""

    top1: float  #: share of rows with the same largest logit, 0 to 1
    max_steps: int | None  #: largest difference, in steps of the output grid
    mean_steps: float | None  #: mean absolute difference, in the same steps
    max_relative: float | None = None  #: without a grid: the largest difference as a share of the largest output


def run_batches(model: LoadedModel, images: Tensor, *, batch: int = 64) -> Tensor:
    """Return the outputs of a file for all images (N, ...), `batch` at a time; a `.pte` file has a size of its own."""
    if isinstance(model, PtlModel):
        outputs: Tensor = _C.deploy.run_batches(model._loaded, images, batch)
        return outputs
    if isinstance(model, PteModel):
        return model(images)
    if batch <= 0 or images.dim() == 0 or images.shape[0] == 0:
        raise ValueError(
            f"torchslim.deploy.run_batches: expected images and batch > 0, got shape {tuple(images.shape)} and {batch}"
        )
    return torch.cat([model(part) for part in torch.split(images, batch)])


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the share, 0 to 1, of rows whose largest logit is at the target; of equal logits the first counts.

    Args:
        logits: (N, C) float32.
        targets: (N,) int64.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: another dtype.
    """
    return float(_C.deploy.accuracy(logits, targets))


def count_reference_differences(outputs: Tensor, graph: IntegerGraph, images: Tensor) -> int:
    """Return how many of a file's `outputs` for `images` are not those of the integer reference; 0 is expected.

    Raises:
        ValueError: the shapes do not fit, or the network ends in floats, which depend on the order of sums.
    """
    return int(_C.deploy.count_reference_differences(outputs, graph, images))


def compare_outputs(file: Tensor, fake_quantised: Tensor, step: float | None = None) -> Agreement:
    """Compare the outputs of a file with those of the fake-quantised model.

    Args:
        file: (N, C) float32.
        fake_quantised: the same shape, from the prepared model in eval mode.
        step: > 0, scale of the output grid, `lower(graph).nodes[-1].scale`; None: the outputs are floats
            (`lower(graph).nodes[-1].gives_floats`), and differences are relative.
    """
    found = _C.deploy.compare_outputs(file, fake_quantised, step)
    return Agreement(found.top1, found.max_steps, found.mean_steps, found.max_relative)
