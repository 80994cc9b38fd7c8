# SPDX-License-Identifier: BSD-3-Clause
"""What an optimiser keeps for a parameter, element by element: momentum, moments."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def check_optimizer(call: str, optimizer: Optimizer) -> None:
    """Refuses what is no optimiser, or one that keeps state across parameters.

    Raises:
        TypeError: not a `torch.optim.Optimizer`.
        ValueError: `LBFGS`.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"torchslim.prune.{call}: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            f"torchslim.prune.{call}: LBFGS keeps state across parameters, which cannot follow a pruned weight; "
            "prune without it and make a new one afterwards"
        )


def check_holds_one_of(call: str, optimizer: Optimizer, weights: Iterable[nn.Parameter]) -> None:
    """Refuses an optimiser that was made for other parameters.

    Raises:
        ValueError: it holds none of `weights`.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(weight) in held for weight in weights):
        raise ValueError(
            f"torchslim.prune.{call}: the optimiser holds none of the weights to prune; "
            "make it from the parameters of this model (prepare returns a copy)"
        )


def state_tensors(call: str, optimizer: Optimizer, name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Returns those of the optimiser's tensors for `parameter` that follow it element by element, by their keys.

    Args:
        call: who asks, for errors.
        optimizer: one that `check_optimizer` passed.
        name: of the parameter, for errors.
        parameter: its key in the optimiser's state.

    Raises:
        ValueError: a state that is neither one number nor of the parameter's shape, naming parameter, key and shape.
    """
    tensors = {}
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            tensors[key] = value
        elif isinstance(value, (list, tuple, dict)) or (isinstance(value, Tensor) and value.numel() != 1):
            form = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"torchslim.prune.{call}: {type(optimizer).__name__} keeps `{key}` for `{name}` as {form}, which does "
                f"not follow its shape {list(parameter.shape)} element by element; prune without the optimiser and "
                "make a new one afterwards"
            )
    return tensors
