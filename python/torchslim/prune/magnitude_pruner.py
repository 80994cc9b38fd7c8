# SPDX-License-Identifier: BSD-3-Clause
"""Pruning by magnitude while a network trains."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchslim import _C
from torchslim.prune.apply_masks import apply_masks_
from torchslim.prune.magnitude_masks import Scope, magnitude_masks
from torchslim.prune.optimizer_state import check_holds_one_of, check_optimizer, state_tensors
from torchslim.prune.schedule import Schedule

_PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class MagnitudePruner:
    """Prunes the weights of a model by magnitude while it trains.

    Prunable is the `weight` of every `Conv1d`, `Conv2d`, `Conv3d` and `Linear`, first and last layer included, also of
    subclasses and in prepared models; biases are not.

    Call `step()` after each `optimizer.step()`. When the schedule asks for more sparsity, the smallest of the current
    weights are pruned; what is pruned stays pruned. After every call pruned weights, their gradients and what the
    optimiser keeps for them (momentum, moments) are exactly +0.

    Args:
        model: changed in place, its parameters stay the same objects.
        schedule: from the number of optimiser steps taken to the sparsity to have then, in [0, 1].
        optimizer: the one that trains `model`; without it only weights and gradients are zeroed, so that momentum moves
            pruned weights until the next `step()`.
        scope: "global" ranks all weights together, "layer" prunes the same share of each layer.
        exclude: layers not to prune: dotted names of layers, or of modules that layers lie under.
        names: the only layers to prune, named likewise; empty: all.

    Raises:
        ValueError: no layer can be pruned, a name is unknown (with the nearest), a weight is computed from other
            parameters, or the optimiser cannot be followed or holds none of these weights.
        TypeError: `optimizer` is no optimiser.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> pruner = MagnitudePruner(model, OneShotSchedule(at_step=1, sparsity=0.5), optimizer)
        >>> pruner.step()
        >>> pruner.sparsity(), int((model.weight == 0).sum())
        (0.5, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        optimizer: Optimizer | None = None,
        scope: Scope = "global",
        exclude: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        """Finds the layers; changes nothing yet."""
        if scope not in ("global", "layer"):
            raise ValueError(f'torchslim.prune.MagnitudePruner: scope must be "global" or "layer", got {scope!r}')
        self._schedule = schedule
        self._optimizer = optimizer
        self._scope: Scope = scope
        self._layers = _select_layers(model, exclude, names)
        self._masks: list[Tensor] = []  # none until something is pruned
        self._step = 0
        self._target = 0.0  # of the masks
        self._finalized = False
        if optimizer is not None:
            check_optimizer("MagnitudePruner", optimizer)
            weights = self._weights()
            check_holds_one_of("MagnitudePruner", optimizer, weights)
            for name, weight in zip(self._layers, weights, strict=True):
                state_tensors("MagnitudePruner", optimizer, name, weight)

    def step(self) -> None:
        """Counts an optimiser step, tightens the masks if the schedule asks for it and applies them.

        Raises:
            ValueError: NaN among the weights, or a sparsity outside [0, 1]; then nothing is counted, no mask changed.
            RuntimeError: after `finalize`.
        """
        if self._finalized:
            raise RuntimeError(
                "torchslim.prune.MagnitudePruner.step: the pruner is finalised; make a new one to prune further"
            )
        target = float(self._schedule(self._step + 1))
        if not 0.0 <= target <= 1.0:
            raise ValueError(
                "torchslim.prune.MagnitudePruner.step: the schedule must return a sparsity in [0, 1], "
                f"got {target} at step {self._step + 1}"
            )
        if target > self._target:
            self._tighten(target)
        self._step += 1
        self._apply()

    def sparsity(self) -> float:
        """Returns the share of prunable weights that is pruned, 0 before the first."""
        return _share_pruned(self._masks)

    def layer_sparsity(self) -> dict[str, float]:
        """Returns the same for each layer, by name, in the model's order."""
        if not self._masks:
            return dict.fromkeys(self._layers, 0.0)
        return {name: _share_pruned([mask]) for name, mask in zip(self._layers, self._masks, strict=True)}

    def finalize(self) -> float:
        """Applies the masks once more, lets go of the optimiser and returns the sparsity.

        The zeros are the model's from then on; training it further would fill them.
        """
        if not self._finalized:
            self._apply()
            self._finalized = True
            self._optimizer = None
        return self.sparsity()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of what a new pruner needs to go on to the same bits: "step", "sparsity", "masks.<layer>"."""
        state = {
            "step": torch.tensor(self._step, dtype=torch.int64),
            "sparsity": torch.tensor(self._target, dtype=torch.float64),
        }
        if self._masks:
            state |= {f"masks.{name}": mask.clone() for name, mask in zip(self._layers, self._masks, strict=True)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` of a pruner of the same layers returned; weights are not touched.

        Raises:
            ValueError: missing or unknown keys, wrong shapes or dtypes; then nothing has changed.
        """
        step, target, masks = self._checked_state(state)
        self._step, self._target, self._masks = step, target, masks

    def _checked_state(self, state: Mapping[str, Tensor]) -> tuple[int, float, list[Tensor]]:
        call = "torchslim.prune.MagnitudePruner.load_state_dict"
        keys = ["step", "sparsity"]
        if len(state) > len(keys):
            keys += [f"masks.{name}" for name in self._layers]
        if set(state) != set(keys):
            missing, unknown = sorted(set(keys) - set(state)), sorted(set(state) - set(keys))
            raise ValueError(
                f"{call}: missing {missing}, unknown {unknown}; the state must come from a pruner of the same layers"
            )
        step, target = int(state["step"]), float(state["sparsity"])
        if step < 0 or not 0.0 <= target <= 1.0:
            raise ValueError(f"{call}: expected `step` >= 0 and `sparsity` in [0, 1], got {step} and {target}")
        masks = []
        for key, weight in zip(keys[2:], self._weights(), strict=False):
            mask = state[key]
            if mask.dtype != torch.bool or mask.shape != weight.shape:
                raise ValueError(
                    f"{call}: `{key}` must be bool of shape {list(weight.shape)}, "
                    f"got {mask.dtype} of shape {list(mask.shape)}"
                )
            # In the memory order of the weight, which apply_masks_ is fast for.
            masks.append(torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(mask))
        return step, target, masks

    def _weights(self) -> list[nn.Parameter]:
        return [module.weight for module in self._layers.values()]  # type: ignore[misc]

    def _tighten(self, target: float) -> None:
        weights, names = self._weights(), list(self._layers)
        if self._masks:
            apply_masks_(weights, self._masks)
            self._masks = _C.prune.tighten_masks(weights, self._masks, target, self._scope, names)
        else:
            self._masks = magnitude_masks(weights, target, self._scope, names=names)
        self._target = target

    @torch.no_grad()
    def _apply(self) -> None:
        if not self._masks:
            return
        tensors, masks = [], []
        for name, weight, mask in zip(self._layers, self._weights(), self._masks, strict=True):
            if weight.shape != mask.shape:
                raise ValueError(
                    f"torchslim.prune.MagnitudePruner: the weight of `{name}` has the shape {list(weight.shape)}, its "
                    f"mask {list(mask.shape)}; make a new pruner after removing channels"
                )
            group: list[Tensor] = [weight]
            if weight.grad is not None:
                group.append(weight.grad)
            if self._optimizer is not None:
                group += state_tensors("MagnitudePruner.step", self._optimizer, name, weight).values()
            tensors += group
            masks += [mask] * len(group)
        apply_masks_(tensors, masks)


def _select_layers(model: nn.Module, exclude: Sequence[str], names: Sequence[str]) -> dict[str, nn.Module]:
    """Returns the layers to prune by name; a weight that two layers share is listed once, under its first name."""
    layers: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, _PRUNABLE):
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            layers[name] = module  # refused below, unless it is excluded
        elif id(weight) not in seen:
            seen.add(id(weight))
            layers[name] = module
    selected = _C.prune.select_layers(
        "MagnitudePruner", list(layers), _names("names", names), _names("exclude", exclude)
    )
    for name in selected:
        weight = layers[name]._parameters.get("weight")
        if weight is None or isinstance(weight, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"torchslim.prune.MagnitudePruner: `{name}` has no weight of its own (parametrised or not yet "
                "initialised); remove the parametrisation, run the model once, or exclude it"
            )
    return {name: layers[name] for name in selected}


def _share_pruned(masks: Sequence[Tensor]) -> float:
    total = sum(mask.numel() for mask in masks)
    kept = sum(int(mask.sum()) for mask in masks)
    return (total - kept) / total if total else 0.0


def _names(argument: str, names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(
            f"torchslim.prune.MagnitudePruner: {argument} must be a sequence of names, got the text {names!r}"
        )
    return list(names)
