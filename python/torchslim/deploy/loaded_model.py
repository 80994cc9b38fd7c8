# SPDX-License-Identifier: BSD-3-Clause
"""What every loaded file can do, whatever runs it."""

import importlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


class LoadedModel(ABC):
    """A file in its runtime: `PtlModel`, `OnnxModel`, `OpenVinoModel` or `PteModel`."""

    def __init__(self, manifest: str, input_shape: list[int | None]) -> None:
        """Keeps what files of all kinds say about themselves: JSON or "", and the size of the input."""
        self._manifest, self._shape = manifest, input_shape

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Runs a batch: float32 (N, ...) to float32 (N, ...), without gradients."""

    @property
    @abstractmethod
    def engine(self) -> str:
        """What runs the file, with its version, such as "onnxruntime 1.32.0"."""

    @abstractmethod
    def on_threads(self, threads: int) -> AbstractContextManager[Run]:
        """Lends the file on a pool of so many threads, to time it."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What the file says about itself: input, output, grids, versions, a sample; empty if it says nothing."""
        manifest: dict[str, Any] = json.loads(self._manifest) if self._manifest else {}
        return manifest

    @property
    def input_shape(self) -> list[int | None]:
        """Size of the input; None where any size runs. Of a `.ptl` file as the manifest has it; empty without one."""
        return list(self._shape)


def import_extra(who: str, module: str, what: str) -> ModuleType:
    """Returns a module of the extra [export], or says in an ImportError that `what` needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{who}: {what}; install the extra: pip install 'torchslim[export]' ({error})") from error


def check_images(who: str, images: Tensor, expected: list[int | None]) -> None:
    """Refuses what a runtime would refuse less clearly.

    Raises:
        TypeError: not float32.
        ValueError: another shape than `expected`, in which None stands for any size.
    """
    if images.dtype != torch.float32:
        raise TypeError(f"{who}: images must be float32, got {str(images.dtype).removeprefix('torch.')}")
    fits = images.dim() == len(expected) and all(
        wanted is None or wanted == size for wanted, size in zip(expected, images.shape, strict=True)
    )
    if not fits:
        shape = ", ".join("N" if size is None else str(size) for size in expected)
        raise ValueError(f"{who}: the file takes images of shape ({shape}), got {tuple(images.shape)}")


def read_bytes(path: str) -> bytes:
    """Returns the content of a file, so that a missing one is an OSError whatever the runtime calls it."""
    return Path(path).read_bytes()


def time_calls(run: Run, image: Tensor, runs: int, warm_up: int) -> tuple[float, float]:
    """Returns median and 95th percentile, in ms, of `runs` calls after `warm_up` more, ranked as in C++."""
    taken = []
    for _ in range(warm_up):
        run(image)
    for _ in range(runs):
        begin = time.perf_counter()
        run(image)
        taken.append(1000 * (time.perf_counter() - begin))
    taken.sort()
    return taken[math.floor(0.5 * (runs - 1) + 0.5)], taken[math.floor(0.95 * (runs - 1) + 0.5)]
