# SPDX-License-Identifier: BSD-3-Clause
"""The layers whose weights a method looks at one by one."""

from __future__ import annotations

from torch import nn

#: A convolution or linear layer.
WeightedLayer = nn.Conv2d | nn.Linear


def weighted_layers(who: str, model: nn.Module) -> dict[str, WeightedLayer]:
    """Returns the convolution and linear layers of `model` by name, in order.

    Raises:
        ValueError: there are none, with `who` in front.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WeightedLayer)}
    if not layers:
        raise ValueError(f"{who}: the model holds no convolution and no linear layer")
    return layers
