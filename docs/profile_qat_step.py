# SPDX-License-Identifier: BSD-3-Clause
"""Puts into docs/qat_step.md where a training step on grids spends its time: `make profile`.

Between the markers of a network (`page_parts`), the page holds what this script measured for it.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads ruin times on a shared machine

import page_parts
import torch

import torchslim as ts

sys.path.append(str(Path(__file__).parents[1] / "tests" / "benchmarks"))
import bench_qat_step as bench

PAGE = Path(__file__).parent / "qat_step.md"
STEPS = 20

#: The parts of a step, by what the names of operations begin with.
PARTS = {
    "quantisers, weights onto grids": ("torchslim::", "ClippedStraightThrough", "ObserveFakeQuantize", "FakeQuantize"),
    "convolutions and linear layers": (
        "aten::mkldnn_convolution", "aten::_slow_conv", "aten::thnn_conv", "aten::convolution_backward", "aten::addmm",
        "aten::mm", "aten::_conv_depthwise",
    ),
    "batch norms": ("aten::native_batch_norm",),
    "activations, pools": (
        "aten::relu", "aten::clamp", "aten::hardtanh", "aten::threshold", "aten::mean", "aten::max_pool",
    ),
}  # fmt: skip
OTHER = "optimiser, sums, copies, autograd"


def part_of(name: str) -> str:
    """The part that an operation belongs to."""
    return next((part for part, starts in PARTS.items() if name.startswith(starts)), OTHER)


def milliseconds(step: Callable[[], object]) -> Counter[str]:
    """The time of one step, by parts, averaged over `STEPS`."""
    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(STEPS):
            step()
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        times[part_of(event.key)] += event.self_cpu_time_total / 1e3 / STEPS
    return times


def table(name: str) -> str:
    """The parts of a step of one network, in float and on grids."""
    model, shape = bench.model_of(name), bench.NETWORKS[name][1]
    grids = milliseconds(bench.step_of(bench.prepared_by_us(model, shape), shape))
    floats = milliseconds(bench.step_of(model, shape))
    lines = ["| part of a step | float ms | on grids ms |", "|---|---|---|"]
    lines += [f"| {part} | {floats[part]:.1f} | {grids[part]:.1f} |" for part in (*PARTS, OTHER)]
    lines.append(f"| whole | {floats.total():.1f} | {grids.total():.1f} |")
    return "\n".join(lines)


def circumstances() -> str:
    """Where and with what."""
    where = f"{ts.deploy.machine_name()}, torch {torch.__version__}"
    return f"{where}, the mean of {STEPS} steps under the profiler."


def main() -> int:
    """Measures all networks and writes the page."""
    torch.set_num_threads(1)
    text = page_parts.fill(PAGE.read_text(), lambda name: circumstances() if name == "circumstances" else table(name))
    PAGE.write_text(text)
    print(f"written to {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
