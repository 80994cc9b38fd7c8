# SPDX-License-Identifier: BSD-3-Clause
"""The layers that have a weight, and their weights with output channels first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A convolution, transposed or not, or linear layer.
WeightedLayer = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear

#: Those whose weight has input channels first.
TransposedLayer = nn.ConvTranspose1d | nn.ConvTranspose2d


def weighted_layers(who: str, model: nn.Module) -> dict[str, WeightedLayer]:
    """Returns the convolution and linear layers of `model` by name, in order.

    Raises:
        ValueError: there are none, with `who` in front.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WeightedLayer)}
    if not layers:
        raise ValueError(f"{who}: the model holds no convolution and no linear layer")
    return layers


def transposed_weight(weight: Tensor, groups: int) -> Tensor:
    """Returns the weight of a transposed convolution with output channels first; applied to that, the weight as it was.

    In C++: `graph::transposed_weight`.

    Args:
        weight: (I, O/groups, ...), or (O, I/groups, ...) for the way back; gradients pass.
        groups: of the convolution.
    """
    return torch.unflatten(weight, 0, (groups, weight.shape[0] // groups)).transpose(1, 2).flatten(0, 1)


def weight_by_outputs(layer: WeightedLayer) -> Tensor:
    """Returns the weight of `layer` as grids have it: (O, I/groups, ...)."""
    return transposed_weight(layer.weight, layer.groups) if isinstance(layer, TransposedLayer) else layer.weight
