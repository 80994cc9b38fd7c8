# SPDX-License-Identifier: BSD-3-Clause
"""`.pte` files in ExecuTorch."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from torchslim.deploy.loaded_model import LoadedModel, Run, check_images, import_extra, read_bytes

_WHO = "torchslim.deploy.PteModel"
#: The method of a file that returns its manifest, as text.
MANIFEST = "torchslim"
#: How often the pool of threads was made anew; XNNPACK's part of a loaded file keeps the pool of when it was loaded.
_pools = 0


class PteModel(LoadedModel):
    """A `.pte` file in ExecuTorch's runtime. It runs batches of its own size alone, so larger ones run in parts."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Loads the file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no ExecuTorch file, or has no method `forward` of one tensor.
            ImportError: executorch is not installed.
        """
        self._path = os.fspath(path)
        self._content = read_bytes(self._path)
        self._load()
        has_one = MANIFEST in self._program.method_names
        text = self._program.load_method(MANIFEST).execute([])[0] if has_one else ""
        self.batch: int = self._sizes[0]  #: how many images the file runs at once
        super().__init__(text if isinstance(text, str) else "", list(self._sizes))

    def __call__(self, images: Tensor) -> Tensor:
        """Runs images, in parts of the file's batch size: float32 (N, ...) to float32 (N, ...), without gradients.

        Raises:
            TypeError: not float32.
            ValueError: another shape, or a number of images that the file's batch size does not divide.
        """
        check_images(_WHO, images, [None, *self._shape[1:]])
        if images.shape[0] == 0 or images.shape[0] % self.batch:
            raise ValueError(
                f"{_WHO}: {self._path} runs batches of {self.batch}, which do not add up to {images.shape[0]} images; "
                "save it with an example of one image, or pass a multiple"
            )
        if self._pool != _pools:
            self._load()
        return torch.cat([self._run(part) for part in torch.split(images.detach().contiguous(), self.batch)])

    @property
    def engine(self) -> str:
        """The name and version of the runtime."""
        return f"executorch {importlib.metadata.version('executorch')}"

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[Run]:
        """Lends the file on a pool of so many threads, to time it.

        The pool is the whole process's: a file that ExecuTorch's own functions loaded before must be loaded again.
        """
        _, library = _executorch()
        before = library._threadpool_get_thread_count()
        _replace_pool(library, threads)
        try:
            yield self
        finally:
            _replace_pool(library, before)

    def _load(self) -> None:
        runtime, _ = _executorch()
        try:
            self._program = runtime.get().load_program(self._content)  # it owns the bytes that the method runs
            self._method = self._program.load_method("forward")
            self._sizes: list[int] = list(self._method.metadata.input_tensor_meta(0).sizes())
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{_WHO}: ExecuTorch does not take {self._path}: {error}") from error
        self._pool = _pools

    def _run(self, images: Tensor) -> Tensor:
        result: Tensor = self._method.execute([images])[0]
        return result


def _replace_pool(library: ModuleType, threads: int) -> None:
    global _pools
    if threads != library._threadpool_get_thread_count():
        library._unsafe_reset_threadpool(threads)
        _pools += 1


def _executorch() -> tuple[Any, ModuleType]:
    needed = ".pte files need ExecuTorch to run"
    library = import_extra(_WHO, "executorch.extension.pybindings.portable_lib", needed)
    return import_extra(_WHO, "executorch.runtime", needed).Runtime, library
