# SPDX-License-Identifier: BSD-3-Clause
"""Files as a phone runs them: in the lite interpreter, with the QNNPACK engine."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchslim import _C
from torchslim.deploy.loaded_model import Run


class PtlModel:
    """A `.ptl` file in PyTorch Mobile's lite interpreter; the engine is QNNPACK while it runs, and then as before."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Loads the file; every record is compared with its checksum first."""
        self._loaded = _C.deploy.PtlModel(os.fspath(path))

    def __call__(self, images: Tensor) -> Tensor:
        """Runs a batch: float32 (N, ...) to float32 (N, ...), without gradients."""
        outputs: Tensor = self._loaded.forward(images)
        return outputs

    @property
    def manifest(self) -> dict[str, Any]:
        """What the file says about itself: input, output, grids, versions, a sample; empty if it says nothing."""
        text = self._loaded.manifest
        manifest: dict[str, Any] = json.loads(text) if text else {}
        return manifest

    @property
    def engine(self) -> str:
        """The name and version of the runtime, and of what computes in it."""
        kernels = "ATen" if self.manifest.get("kind") == "float" else "QNNPACK"
        return f"PyTorch lite {torch.__version__.split('+')[0]}, {kernels}"

    @property
    def input_shape(self) -> list[int | None]:
        """Size of the input as the manifest has it; None where any size runs; empty without a manifest."""
        shape: list[int | None] = self.manifest.get("input", {}).get("shape", [])
        return shape

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[Run]:
        """Lends the file on a pool of so many threads, to time it; the pool is the whole process's."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield self
        finally:
            torch.set_num_threads(before)
