# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim bench`: how long files take, side by side."""

import argparse
import os

import torch

from torchslim import deploy
from torchslim.cli.commands import Commands, positive
from torchslim.deploy.report_table import text_table


def add_parser(commands: Commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "bench",
        help="time files on this machine",
        description="Times .ptl, .onnx and .pte files on one random image. The times are this machine's: its engines "
        "have other kernels than a phone's, so they say nothing about a phone.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.add_argument("--runs", type=positive, default=200, help="timed runs (%(default)s)")
    parser.add_argument("--threads", type=positive, default=1, help="of the engine (%(default)s)")
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    rows = [("file", "engine", "bytes", "median", "p95")]
    medians = []
    for path in options.files:
        model = deploy.load(path)
        if not model.input_shape:
            raise ValueError(f"{path} has no manifest that says what goes in; files of torchslim have one")
        image = torch.rand([size or 1 for size in model.input_shape], generator=torch.Generator().manual_seed(0))
        latency = deploy.measure_latency(model, image, runs=options.runs, threads=options.threads)
        medians.append(latency.median_ms)
        times = (f"{latency.median_ms:.3f} ms", f"{latency.p95_ms:.3f} ms")
        rows.append((path, model.engine, f"{os.path.getsize(path):,}", *times))
    print(text_table(rows, left=(0, 1)), end="")
    if len(medians) == 2:
        first, second = options.files
        print(f"{second} takes {medians[1] / medians[0]:.2f} x the time of {first}")
    machine = deploy.machine_name().rpartition(",")[0]  # without torch's threads, of which other engines know nothing
    print(f"{options.runs} runs, threads: {options.threads}; {machine}. These times say nothing about a phone.")
    return 0
