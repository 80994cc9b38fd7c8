# SPDX-License-Identifier: BSD-3-Clause
"""What the methods for trained models share: reading a loader, modes of modules, and undoing what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

#: What gives batches: tensors, or tuples or lists whose first item is the tensor of inputs.
Loader = Iterable[Tensor | Sequence[Tensor]]

#: Hears how far a long call is: (done, total), total 0 where that is not known.
Progress = Callable[[int, int], None] | None


def read_batches(who: str, loader: Loader, progress: Progress = None) -> Iterator[Tensor]:
    """Yields the inputs of each batch, and tells `progress` when the next is asked for.

    Raises:
        ValueError: there is none, or one is empty or holds NaN or infinity.
        TypeError: an item holds no tensor in the first place.
    """
    total = len(loader) if isinstance(loader, Sized) else 0
    done = 0
    for item in loader:
        batch = item[0] if isinstance(item, tuple | list) and item else item
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"{who}: batch {done} must be a tensor, or a tuple that begins with one, got {type(item).__name__}"
            )
        if batch.numel() == 0:
            raise ValueError(f"{who}: batch {done} is empty")
        if not bool(torch.isfinite(batch).all()):
            raise ValueError(f"{who}: batch {done} holds NaN or infinity; look at how it was read and normalised")
        yield batch
        done += 1
        if progress is not None:
            progress(done, total)
    if done == 0:
        raise ValueError(f"{who}: there is no batch; pass at least one")


@contextmanager
def in_mode(root: nn.Module, training: bool) -> Iterator[None]:
    """Switches every module by its flag alone, as `train` methods may do more, and back."""
    modes = [(module, module.training) for module in root.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        known = {module for module, _ in modes}
        for module, was_training in modes:
            for child in module.children():
                if child not in known:  # a quantiser that came in meanwhile
                    child.train(was_training)


@contextmanager
def unchanged_on_error(modules: Iterable[nn.Module], parameters: bool = False) -> Iterator[None]:
    """Puts buffers and children of `modules` and their children, and if asked parameters, back if an error passes."""
    children = {child for root in modules for child in root.modules()}
    held = [(module, module._modules.copy()) for module in children]
    saved = []
    for module in children:
        for tensors in (module._buffers, module._parameters if parameters else {}):
            slots = cast("dict[str, Tensor | None]", tensors)
            saved += [(slots, name, x, x.detach().clone()) for name, x in slots.items() if x is not None]
    try:
        yield
    except BaseException:
        for slots, name, tensor, copy in saved:
            tensor.data = copy  # observers may have given it another shape
            slots[name] = tensor  # or put another in its place
        for module, before in held:
            for name in module._modules.keys() - before.keys():
                module.__dict__[name] = None  # as it was before it became a child
            module._modules = before
        raise
