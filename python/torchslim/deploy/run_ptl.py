# SPDX-License-Identifier: BSD-3-Clause
"""Files as a phone runs them: in the lite interpreter, with the QNNPACK engine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from torchslim import _C
from torchslim.deploy.loaded_model import LoadedModel, Run


class PtlModel(LoadedModel):
    """A `.ptl` file in PyTorch Mobile's lite interpreter; the engine is QNNPACK while it runs, and then as before."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Loads the file; every record is compared with its checksum first."""
        self._loaded = _C.deploy.PtlModel(os.fspath(path))
        super().__init__(self._loaded.manifest, [])
        self._shape = self.manifest.get("input", {}).get("shape", [])

    def __call__(self, images: Tensor) -> Tensor:
        """Runs a batch: float32 (N, ...) to float32 (N, ...), without gradients."""
        outputs: Tensor = self._loaded.forward(images)
        return outputs

    @property
    def engine(self) -> str:
        """The name and version of the runtime, and of what computes in it."""
        kernels = "ATen" if self.manifest.get("kind") == "float" else "QNNPACK"
        return f"PyTorch lite {torch.__version__.split('+')[0]}, {kernels}"

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[Run]:
        """Lends the file on a pool of so many threads, to time it; the pool is the whole process's."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield self
        finally:
            torch.set_num_threads(before)
