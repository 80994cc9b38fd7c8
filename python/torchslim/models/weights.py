# SPDX-License-Identifier: BSD-3-Clause
"""Weights in `.safetensors` files, written and read by the same C++ code as in C++ programs."""

import os
from collections.abc import Mapping

from torch import Tensor, nn

from torchslim import _C


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes the parameters and buffers of `model` to a `.safetensors` file, whole or not at all.

    Args:
        model: any module whose `state_dict()` holds tensors only.
        path: an older file there keeps its bytes until the new one is complete.

    Raises:
        ValueError: a tensor that such a file cannot hold, or an entry that is no tensor, by name.
        OSError: the file cannot be written.

    Example:
        >>> save_weights(student, "student.safetensors")
    """
    save_tensors(path, _state(model))


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Reads what `save_weights`, of Python or C++, wrote into `model`, in place.

    Args:
        model: must have exactly the file's names, shapes and types; it is unchanged otherwise.
        path: the file; everything in it is checked before the first weight changes.

    Raises:
        ValueError: the file is damaged or does not fit the model; lists what differs.
        OSError: the file cannot be read.
    """
    _C.models.load_weights(list(_state(model).items()), os.fspath(path))


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors by name to a `.safetensors` file with checksums, whole or not at all.

    Args:
        path: where to.
        tensors: any shape, any device; float64/32/16, bfloat16, int64/32/16/8, uint8 or bool.
        metadata: text by key; keys that begin with `crc32.` are taken.

    Raises:
        ValueError: a tensor that such a file cannot hold, by name.
        OSError: the file cannot be written.

    Example:
        >>> save_tensors("x.safetensors", {"x": torch.arange(3)}, {"epoch": "5"})
    """
    _C.models.save_tensors(os.fspath(path), list(tensors.items()), dict(metadata or {}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata of a `.safetensors` file of any program.

    Args:
        path: the file; everything in it is checked before a tensor is made of it, checksums too if it has them.

    Raises:
        ValueError: the file is damaged, or no `.safetensors` file.
        OSError: the file cannot be read.

    Example:
        >>> tensors, metadata = load_tensors("x.safetensors")
    """
    items, metadata = _C.models.load_tensors(os.fspath(path))
    return dict(items), metadata


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"torchslim.models.save_weights: `{name}` of the model's state is a {type(value).__name__}, "
                "but only tensors can be saved; remove its get_extra_state"
            )
    return state
