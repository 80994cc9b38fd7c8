# SPDX-License-Identifier: BSD-3-Clause
"""SmoothQuant: the same function in floats, with activations that are easier to round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from torchslim import _C
from torchslim.quant.batches import Loader, Progress, in_mode, read_batches

_WHO = "torchslim.quant.smooth"
_BETWEEN = (nn.ReLU, nn.Dropout, nn.Identity)


class SmoothedGroup(NamedTuple):
    """A LayerNorm or linear layer, the linear layers that read its result, and what was moved to them."""

    #: The layer whose result was divided by `scale`.
    before: str
    #: The layers whose input channels were multiplied.
    after: tuple[str, ...]
    #: float32 (I).
    scale: Tensor


def smooth_scale(input_max: Tensor, weights: Sequence[Tensor], alpha: float = 0.5) -> Tensor:
    """Returns by how much each input channel of some linear layers is to be divided.

    s_j = max|x_j|^alpha / max|w_j|^(1 − alpha), with the largest |w| of column j in all weights; 1 where one is 0.
    Xiao et al. 2022, arXiv:2211.10438, eq. 4.

    Args:
        input_max: (I), the largest |x| of each channel, ≥ 0.
        weights: each (O, I), of all layers that read the same input.
        alpha: in [0, 1]; 0 leaves the weights equal, 1 the activations.

    Returns:
        float32 (I).

    Raises:
        ValueError: NaN or infinity; shapes; alpha.

    Example:
        >>> smooth_scale(torch.tensor([16.0, 1.0]), [torch.tensor([[1.0, -4.0]])])
        tensor([4.0000, 0.5000])
    """
    scale: Tensor = _C.quant.smooth_scale(input_max, list(weights), alpha)
    return scale


def smooth(
    model: nn.Module,
    loader: Loader,
    alpha: float = 0.5,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    progress: Progress = None,
) -> list[SmoothedGroup]:
    """Makes the activations of a float model easier to round, in place; the float model computes the same.

    For each LayerNorm or linear layer whose result only linear layers read, with nothing in between but ReLU (and
    dropout): s is the `smooth_scale` of what the loader shows at their input; the weight and bias of the layer before
    are divided by it, and the columns of the layers behind multiplied. Without gradients, in eval mode; modes stay.
    Xiao et al. 2022, arXiv:2211.10438.

    Args:
        model: a float model; changed in place. Call this before `prepare`.
        loader: gives batches of inputs, or tuples that begin with one; some hundred inputs.
        alpha: in [0, 1].
        groups: names of layers before, with those of the layers behind, for a model that `torch.fx` cannot trace, or to
            choose. None: all that are found.
        progress: hears (done, total) after each batch.

    Returns:
        the groups, with their scales.

    Raises:
        ValueError: no group is found, or a name is no such layer; a LayerNorm without weight, a layer that is not run;
            no batch, NaN or infinity. The model is then as it was.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        >>> [(group.before, group.after) for group in smooth(net, [torch.randn(8, 4)])]
        [('0', ('1',))]
    """
    named = _found(model) if groups is None else {before: tuple(after) for before, after in groups.items()}
    if not named:
        raise ValueError(f"{_WHO}: found no LayerNorm or linear layer whose result only linear layers read")
    layers = {before: _layers(model, before, after) for before, after in named.items()}
    largest = _largest_inputs(model, loader, {before: layers[before][1][0] for before in named}, progress)
    scales = {}
    for before, after in named.items():
        if before not in largest:
            raise ValueError(f"{_WHO}: forward does not run {after[0]!r}")
        scales[before] = smooth_scale(largest[before], [layer.weight for layer in layers[before][1]], alpha)
    for before, (first, behind) in layers.items():
        _C.quant.apply_smooth_scale(scales[before], first.weight, first.bias, [layer.weight for layer in behind])
    return [SmoothedGroup(before, after, scales[before]) for before, after in named.items()]


def _layers(model: nn.Module, before: str, after: Sequence[str]) -> tuple[nn.LayerNorm | nn.Linear, list[nn.Linear]]:
    modules = dict(model.named_modules())
    for name in (before, *after):
        if name not in modules:
            raise ValueError(f"{_WHO}: the model holds no {name!r}")
    first = modules[before]
    if not isinstance(first, nn.LayerNorm | nn.Linear):
        raise ValueError(f"{_WHO}: {before!r} must be a LayerNorm or Linear, got {type(first).__name__}")
    if first.weight is None or (isinstance(first, nn.LayerNorm) and first.weight.dim() != 1):
        raise ValueError(f"{_WHO}: LayerNorm {before!r} must have a weight over one dimension, to take the scale")
    behind = []
    for name in after:
        layer = modules[name]
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{_WHO}: {name!r}, behind {before!r}, must be a Linear, got {type(layer).__name__}")
        if layer.in_features != first.weight.shape[0]:
            raise ValueError(
                f"{_WHO}: {name!r} takes {layer.in_features} features, {before!r} gives {first.weight.shape[0]}"
            )
        behind.append(layer)
    if not behind:
        raise ValueError(f"{_WHO}: expected a layer behind {before!r}")
    return first, behind


def _largest_inputs(
    model: nn.Module, loader: Loader, readers: Mapping[str, nn.Linear], progress: Progress
) -> dict[str, Tensor]:
    """The largest |x| of each input channel of the layers, by the name of what comes before."""
    largest: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        seen = x.abs().reshape(-1, x.shape[-1]).amax(0)
        largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, layer in readers.items()
    ]
    try:
        with torch.no_grad(), in_mode(model, False):
            for batch in read_batches(_WHO, loader, progress):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return largest


def _found(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """All groups of a model that can be traced."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:
        raise ValueError(
            f"{_WHO}: the model cannot be traced: {str(error).splitlines()[0]}; name the layers by `groups`"
        ) from error
    modules = dict(model.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    found = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.LayerNorm | nn.Linear):
            readers = _readers(node, modules)
            names = (str(node.target), *readers)
            if readers and all(calls.count(name) == 1 for name in names) and _has_weight(modules[names[0]]):
                found[names[0]] = tuple(readers)
    return found


def _has_weight(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and (isinstance(layer, nn.Linear) or weight.dim() == 1)


def _readers(node: fx.Node, modules: Mapping[str, nn.Module]) -> list[str]:
    """The linear layers that read `node`, or none if anything else does."""
    readers: list[str] = []
    for user in node.users:
        module = modules[str(user.target)] if user.op == "call_module" else None
        if isinstance(module, nn.Linear):
            readers.append(str(user.target))
        elif isinstance(module, _BETWEEN) or user.target in (torch.relu, F.relu, "relu"):
            behind = _readers(user, modules)
            if not behind:
                return []
            readers += behind
        else:
            return []
    return readers
