# SPDX-License-Identifier: BSD-3-Clause
"""Files as a phone runs them: in the lite interpreter, with the QNNPACK engine."""

import json
import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchslim import _C


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


def load(path: str | os.PathLike[str]) -> PtlModel:
    """Load a `.ptl` file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is cut short, changed, or not such a file.

    Example:
        >>> model = ts.deploy.load("student.ptl")
        >>> model(images).argmax(1)
    """
    return PtlModel(path)


@dataclass(frozen=True)
class Latency:
    """How long a file takes for one image on one thread of this machine; it says nothing about a phone."""

    median_ms: float
    p95_ms: float  #: 95 of 100 runs were at most this long
    runs: int


def measure_latency(model: PtlModel, image: Tensor, *, runs: int = 200, warm_up: int = 20) -> Latency:
    """Time `runs` forward passes after `warm_up` untimed ones, on one thread, in C++.

    Args:
        model: the loaded file.
        image: one image, (1, ...).
        runs: > 0.
        warm_up: ≥ 0.
    """
    measured = _C.deploy.measure_latency(model._loaded, image, runs, warm_up)
    return Latency(measured.median_ms, measured.p95_ms, measured.runs)
