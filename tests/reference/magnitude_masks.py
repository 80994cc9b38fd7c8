# SPDX-License-Identifier: BSD-3-Clause
"""Magnitude masks by sorting all weights: slow, and nothing can be wrong with it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def magnitude_masks(tensors: Sequence[Tensor], sparsity: float, scope: str = "global") -> list[Tensor]:
    """The contract of `torchslim.prune.magnitude_masks`, weight by weight."""
    if scope == "layer":
        return [magnitude_masks([tensor], sparsity)[0] for tensor in tensors]
    weights = [
        (abs(value), i, j) for i, tensor in enumerate(tensors) for j, value in enumerate(tensor.flatten().tolist())
    ]
    weights.sort()  # by magnitude, then in flat order
    keep = [[True] * tensor.numel() for tensor in tensors]
    for _, i, j in weights[: round(len(weights) * sparsity)]:
        keep[i][j] = False
    return [
        torch.tensor(values, dtype=torch.bool).reshape(tensor.shape)
        for values, tensor in zip(keep, tensors, strict=True)
    ]
