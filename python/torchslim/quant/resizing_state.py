# SPDX-License-Identifier: BSD-3-Clause
"""How a module loads a state whose shapes only the file knows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ResizingState(nn.Module):
    """A module whose state has its shape from the first forward on, and takes the file's when it is loaded.

    It takes a file whole or not at all: all shapes, those of children of this class too, are checked before the first
    tensor changes. What does not fit is reported as `load_state_dict` reports it, by RuntimeError.
    """

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        """Returns what the shapes of the state must be, given those in the file; for what is not named, as they are."""
        raise NotImplementedError

    def _after_loading(self) -> None:
        """Reads back what Python keeps of the state."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Checks all shapes, gives the state those of the file, and loads."""
        errors = self._misfits(state_dict, prefix)
        error_msgs.extend(errors)
        if errors or self._children_misfit(state_dict, prefix):
            return  # a child says itself what is wrong with its state
        state, shapes = self._state_tensors(), self._loaded_shapes(state_dict, prefix)
        for name, tensor in state.items():
            if tensor.shape != shapes[name]:
                tensor.data = tensor.new_empty(shapes[name])  # stays the same tensor, as optimisers need
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._after_loading()

    def _misfits(self, state_dict: dict[str, Tensor], prefix: str) -> list[str]:
        file = self._file_shapes(state_dict, prefix)
        shapes = self._loaded_shapes(state_dict, prefix)
        errors = []
        for name, tensor in self._state_tensors().items():
            if name not in file:
                if tensor.shape != shapes[name]:
                    errors.append(f"{prefix}{name} of shape {tuple(shapes[name])} is missing")
            elif file[name] != shapes[name]:
                errors.append(f"{prefix}{name} must have shape {tuple(shapes[name])}, got {tuple(file[name])}")
        return [f"{type(self).__name__}: {error}; its state is unchanged" for error in errors]

    def _children_misfit(self, state_dict: dict[str, Tensor], prefix: str) -> bool:
        return any(
            isinstance(child, ResizingState) and child._misfits(state_dict, f"{prefix}{name}.")
            for name, child in self.named_children()
        )

    def _loaded_shapes(self, state_dict: dict[str, Tensor], prefix: str) -> dict[str, torch.Size]:
        as_they_are = {name: tensor.shape for name, tensor in self._state_tensors().items()}
        return {**as_they_are, **self._shapes_in(self._file_shapes(state_dict, prefix))}

    def _file_shapes(self, state_dict: dict[str, Tensor], prefix: str) -> dict[str, torch.Size]:
        shapes = {}
        for name, tensor in self._state_tensors().items():
            loaded = state_dict.get(prefix + name)
            if isinstance(loaded, Tensor):
                # One element counts as a number, as it does where PyTorch loads it.
                shapes[name] = tensor.shape if tensor.dim() == 0 and loaded.shape == (1,) else loaded.shape
        return shapes

    def _state_tensors(self) -> dict[str, Tensor]:
        state = [*self._parameters.items(), *self._buffers.items()]
        return {name: tensor for name, tensor in state if tensor is not None}


def shared_shape(file: dict[str, torch.Size], names: Iterable[str], dims: int | None = 1) -> dict[str, torch.Size]:
    """Returns for all `names` the shape of the first that the file has with `dims` dimensions (None: one or more)."""
    names = list(names)
    shapes = [file[name] for name in names if name in file]
    fitting = [shape for shape in shapes if (len(shape) == dims if dims is not None else len(shape) > 0)]
    return dict.fromkeys(names, fitting[0]) if fitting else {}
