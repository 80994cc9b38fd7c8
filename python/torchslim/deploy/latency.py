# SPDX-License-Identifier: BSD-3-Clause
"""How long a file takes for an image."""

from dataclasses import dataclass

from torch import Tensor

from torchslim import _C
from torchslim.deploy.loaded_model import LoadedModel, time_calls
from torchslim.deploy.run_ptl import PtlModel


@dataclass(frozen=True)
class Latency:
    """How long a file takes for one image on this machine; it says nothing about a phone."""

    median_ms: float
    p95_ms: float  #: 95 of 100 runs were at most this long
    runs: int
    threads: int = 1


def measure_latency(
    model: LoadedModel, image: Tensor, *, runs: int = 200, warm_up: int = 20, threads: int = 1
) -> Latency:
    """Time `runs` forward passes after `warm_up` untimed ones: `.ptl` files in C++, others as Python calls them.

    Args:
        model: the loaded file.
        image: one image, (1, ...); for a `.pte` file a batch of its size.
        runs: > 0.
        warm_up: ≥ 0.
        threads: > 0, of the runtime's pool; put back afterwards.

    Raises:
        ValueError: a number out of its range, or an image that does not fit the file.
    """
    if isinstance(model, PtlModel):
        measured = _C.deploy.measure_latency(model._loaded, image, runs, warm_up, threads)
        return Latency(measured.median_ms, measured.p95_ms, measured.runs, threads)
    if runs <= 0 or threads <= 0 or warm_up < 0:
        raise ValueError(
            "torchslim.deploy.measure_latency: runs and threads must be > 0 and warm_up >= 0, "
            f"got {runs}, {threads} and {warm_up}"
        )
    with model.on_threads(threads) as run:
        median, p95 = time_calls(run, image, runs, warm_up)
    return Latency(median, p95, runs, threads)
