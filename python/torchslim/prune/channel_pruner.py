# SPDX-License-Identifier: BSD-3-Clause
"""Removing channels for real: a network that is smaller, not just sparse."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchslim import _C
from torchslim.graph.capture import capture
from torchslim.prune.optimizer_state import check_holds_one_of, check_optimizer, state_tensors

#: What makes a filter important: sum of magnitudes, root of the sum of squares, or its batch norm's scale.
Criterion = Literal["l1", "l2", "bn"]

_MODULES: dict[str, type[nn.Module]] = {
    "conv2d": nn.Conv2d,
    "depthwise conv2d": nn.Conv2d,
    "linear": nn.Linear,
    "batch_norm2d": nn.BatchNorm2d,
}


def apply_plan(model: nn.Module, plan: str | Mapping[str, Any], optimizer: Optimizer | None = None) -> None:
    """Removes from `model` what `plan` does not keep, in place.

    Filters, biases, batch norm parameters and running statistics, the inputs of the layers that read them, the modules'
    attributes (`out_channels`, `in_channels`, `groups`, `num_features`, `in_features`), gradients, and what `optimizer`
    keeps for the parameters. Parameters stay the same objects, so the optimiser's groups hold them as before. All is
    checked and all new tensors are made before the first change; an interrupted change is taken back.

    Args:
        model: a network of the form that the plan was made for, fresh or trained.
        plan: what `ChannelPruner.plan` returned (the text, or what `json.loads` made of it).
        optimizer: the one that trains `model`.

    Raises:
        ValueError: the plan is damaged or of another version, a layer is missing, of another kind or size, or the
            optimiser's state does not follow its parameters element by element; then nothing has changed.
        TypeError: `optimizer` is no optimiser.
    """
    text = plan if isinstance(plan, str) else json.dumps(plan)
    if optimizer is not None:
        check_optimizer("apply_plan", optimizer)
    changes = [change for cut in _C.prune.cuts_by_layer(text) for change in _changes(model, _LayerCut(*cut), optimizer)]
    _commit(changes)


class ChannelPruner:
    """Makes a network smaller for real: removes the least important filters of its conv → BN → ReLU → conv chains.

    With a filter go its bias, its batch norm parameters and running statistics, its channel in depthwise convolutions
    and the inputs that read it, after pooling and flatten too. A convolution of one group is pruned if its channels
    reach nothing but batch norms, ReLU, ReLU6, pools, flatten and depthwise convolutions before they end in
    convolutions and linears; filters whose channels meet a residual add or the network's output are left alone.

    Args:
        model: changed in place by `step`, its parameters stay the same objects.
        example_inputs: one batch as `torchslim.graph.capture` takes it.
        ratio: share of the filters of each chain that a step removes, in [0, 1); halves are rounded to even.
        criterion: "l1" sum of a filter's magnitudes, "l2" root of its sum of squares, "bn" magnitude of the scale that
            the chain's first batch norm gives it (Liu et al. 2017, arXiv:1708.06519).
        optimizer: the one that trains `model`; its state is carried along.
        round_to: filters are kept in multiples of this many, rounded up.
        exclude: convolutions that keep their filters: dotted names of them, or of modules that they lie under.

    Raises:
        ValueError: an argument out of range, a name that no chain has (with the nearest), a network without chains or
            one that cannot be captured, or an optimiser whose state cannot follow.
        TypeError: `optimizer` is no optimiser.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> pruner = ChannelPruner(model, torch.rand(1, 1, 8, 8), ratio=0.25)
        >>> pruner.step()
        >>> model[0].weight.shape, model[2].weight.shape
        (torch.Size([6, 1, 3, 3]), torch.Size([4, 6, 3, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Sequence[Tensor],
        ratio: float = 0.5,
        criterion: Criterion = "l1",
        optimizer: Optimizer | None = None,
        round_to: int = 1,
        exclude: Sequence[str] = (),
    ) -> None:
        """Captures the network once to check the arguments; changes nothing yet."""
        if isinstance(exclude, str):
            raise TypeError(f"torchslim.prune.ChannelPruner: exclude must be a sequence of names, got {exclude!r}")
        self._model = model
        self._example_inputs = example_inputs
        self._ratio = ratio
        self._criterion = criterion
        self._optimizer = optimizer
        self._round_to = round_to
        self._exclude = list(exclude)
        self._done: str | None = None  # what all steps together have removed
        if optimizer is not None:
            check_optimizer("ChannelPruner", optimizer)
            check_holds_one_of("ChannelPruner", optimizer, model.parameters())
            for name, parameter in model.named_parameters():
                state_tensors("ChannelPruner", optimizer, name, parameter)
        self._next_plan()

    def step(self) -> None:
        """Removes the share `ratio` of the filters that each chain has now.

        Raises:
            ValueError: as `apply_plan`; then nothing has changed.
        """
        plan = self._next_plan()
        done: str = plan if self._done is None else _C.prune.compose_plans(self._done, plan)
        apply_plan(self._model, plan, self._optimizer)
        self._done = done

    def plan(self) -> str:
        """Returns as JSON what all steps together have removed; before the first, what it would remove.

        It names layers and the filters to keep, and has a version; `apply_plan` repeats it on a fresh model.
        """
        return self._next_plan() if self._done is None else self._done

    def _next_plan(self) -> str:
        graph = capture(self._model, self._example_inputs)
        plan: str = _C.prune.plan_channels(graph, self._ratio, self._criterion, self._round_to, self._exclude)
        return plan


@dataclass(frozen=True)
class _LayerCut:
    """What a plan does to one layer; an empty `keep_*` leaves that dimension alone."""

    layer: str
    kind: str
    outputs: int
    keep_outputs: list[int]
    inputs: int
    keep_inputs: list[int]

    def apply_to(self, tensor: Tensor) -> Tensor:
        """Returns what stays of a tensor with outputs first and inputs second."""
        part = tensor.detach()
        if self.keep_outputs:
            part = part.index_select(0, torch.tensor(self.keep_outputs, device=part.device))
        if self.keep_inputs and part.dim() > 1:
            part = part.index_select(1, torch.tensor(self.keep_inputs, device=part.device))
        channels_last = tensor.dim() == 4 and not tensor.is_contiguous()
        return part.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@dataclass(frozen=True)
class _Change:
    """A change of the model that can be taken back, before it is complete too."""

    apply: Callable[[], None]
    take_back: Callable[[], None]


def _commit(changes: list[_Change]) -> None:
    begun = []
    try:
        for change in changes:
            begun.append(change)
            change.apply()
    except BaseException:
        for change in reversed(begun):
            change.take_back()
        raise


def _changes(model: nn.Module, cut: _LayerCut, optimizer: Optimizer | None) -> Iterator[_Change]:
    module = _module(model, cut)
    _check_sizes(module, cut)
    for name in ("weight", "bias"):
        tensor = getattr(module, name)
        if tensor is not None and (name == "weight" or cut.keep_outputs):
            yield _tensor_change(f"{cut.layer}.{name}", tensor, cut, optimizer)
    if isinstance(module, nn.BatchNorm2d):
        for buffer in (module.running_mean, module.running_var):
            if buffer is not None:
                yield _tensor_change(cut.layer, buffer, cut, None)
    for name, value in _attributes(cut).items():
        yield _attribute_change(module, name, value)


def _module(model: nn.Module, cut: _LayerCut) -> nn.Module:
    try:
        module = model.get_submodule(cut.layer)
    except AttributeError:
        raise ValueError(
            f"torchslim.prune.apply_plan: the model has no layer `{cut.layer}`; the plan was made for another network"
        ) from None
    weight = module._parameters.get("weight")
    if not isinstance(module, _MODULES[cut.kind]) or (weight is None and cut.kind != "batch_norm2d"):
        raise ValueError(
            f"torchslim.prune.apply_plan: `{cut.layer}` must be a {cut.kind} with parameters of its own, "
            f"got {type(module).__name__}"
        )
    return module


def _check_sizes(module: nn.Module, cut: _LayerCut) -> None:
    weight = module._parameters["weight"]
    sizes: list[tuple[str, int, int]] = []
    if isinstance(module, nn.Conv2d):
        sizes.append(("groups", module.groups, cut.outputs if cut.kind == "depthwise conv2d" else 1))
    if cut.keep_outputs:
        features = module.num_features if isinstance(module, nn.BatchNorm2d) else weight.shape[0]  # type: ignore[union-attr]
        sizes.append(("filters", features, cut.outputs))
    if cut.keep_inputs:
        sizes.append(("inputs", weight.shape[1], cut.inputs))  # type: ignore[union-attr]
    for what, got, expected in sizes:
        if got != expected:
            raise ValueError(
                f"torchslim.prune.apply_plan: the plan was made for a `{cut.layer}` with {expected} {what}, "
                f"the model's has {got}"
            )


def _attributes(cut: _LayerCut) -> dict[str, int]:
    outputs, inputs = len(cut.keep_outputs), len(cut.keep_inputs)
    if cut.kind == "batch_norm2d":
        return {"num_features": outputs}
    if cut.kind == "depthwise conv2d":
        return {"out_channels": outputs, "in_channels": outputs, "groups": outputs}
    if cut.kind == "linear":
        return {"in_features": inputs}
    return ({"out_channels": outputs} if outputs else {}) | ({"in_channels": inputs} if inputs else {})


def _attribute_change(module: nn.Module, name: str, value: int) -> _Change:
    before = getattr(module, name)
    return _Change(lambda: setattr(module, name, value), lambda: setattr(module, name, before))


def _tensor_change(name: str, tensor: Tensor, cut: _LayerCut, optimizer: Optimizer | None) -> _Change:
    """Makes the new tensors now; the change only puts them in place."""
    whole = {}
    if optimizer is not None and isinstance(tensor, nn.Parameter):
        whole = state_tensors("apply_plan", optimizer, name, tensor)
    parts = {key: cut.apply_to(state) for key, state in whole.items()}
    old_data, old_grad = tensor.detach(), tensor.grad
    data, grad = cut.apply_to(tensor), None if old_grad is None else cut.apply_to(old_grad)

    def put(data: Tensor, grad: Tensor | None, states: dict[str, Tensor]) -> None:
        _C.prune.replace_data(tensor, data)
        tensor.grad = grad
        if optimizer is not None and states:
            optimizer.state[tensor].update(states)

    return _Change(lambda: put(data, grad, parts), lambda: put(old_data, old_grad, whole))
