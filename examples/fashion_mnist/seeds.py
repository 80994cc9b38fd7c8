# SPDX-License-Identifier: BSD-3-Clause
"""What the examples of quantisation have in common: the command line, numbers over seeds, their table and file."""

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import torchslim as ts
from fashion_mnist import data
from fashion_mnist.checkpoint import write_whole
from fashion_mnist.float_network import FULL, QUICK, Size
from fashion_mnist.results import versions

Rows = dict[str, list[float]]  # case -> a number for each seed


def main(doc: str | None, arguments: list[str] | None, run: Callable[[Size, argparse.Namespace], object]) -> int:
    """Runs an example and returns the exit code: 0, or 1 with what is wrong."""
    options = parse((doc or "").split("\n\n")[0], arguments)
    try:
        run(QUICK if options.quick else FULL, options)
    except (data.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few images, a smaller network: well under a minute")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and order (0 1 2)")
    parser.add_argument("--data", type=Path, default=data.default_directory(), help="folder of idx files (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/quantise"), help="folder to write to (%(default)s)")
    parser.add_argument("--jobs", type=int, default=cores(), help="seeds that are run at once (%(default)s)")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or len(set(options.seeds)) != len(options.seeds):
        parser.error(f"--jobs must be >= 1 and --seeds differ, got {options.jobs} and {options.seeds}")
    return options


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def of_each(
    of_seed: Callable[[Size, argparse.Namespace, int], dict[str, Any]], size: Size, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Calls `of_seed` for each seed, some at once, in processes with one thread each; returns their results in order.

    One thread, so that the numbers do not depend on how many cores there are.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    work = functools.partial(of_seed, size, options)
    torch.set_num_threads(1)
    if min(options.jobs, len(options.seeds)) == 1:
        return [work(seed) for seed in options.seeds]
    context = multiprocessing.get_context("spawn")  # a fork would share PyTorch's threads
    with ProcessPoolExecutor(options.jobs, context, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(work, options.seeds))


def say_of(seed: int) -> Callable[[str], None]:
    """Returns what prints a line with the seed and the time that has gone."""
    began = time.monotonic()
    return lambda text: print(f"[{time.monotonic() - began:5.0f} s] seed {seed}: {text}", flush=True)


def by_case(found: list[dict[str, float]]) -> Rows:
    """From a number a case for each seed to a number a seed for each case."""
    return {case: [of_seed[case] for of_seed in found] for case in found[0]}


def table(rows: Rows, reference: str = "float") -> str:
    """For each case the mean over the seeds, their standard deviation, and how far the mean is below the reference."""
    lines = [f"{'':24}{'mean':>9}{'spread':>9}{'below float':>13}"]
    for name, values in rows.items():
        below = "-" if name == reference else f"{mean(rows[reference]) - mean(values):.2f}"
        lines.append(f"{name:24}{mean(values):>7.2f} %{spread(values):>9.2f}{below:>13}")
    return "\n".join(lines)


def mean(values: Sequence[float]) -> float:
    """The mean over the seeds."""
    return statistics.fmean(values)


def spread(values: Sequence[float]) -> float:
    """The standard deviation over the seeds, n - 1; 0 for one seed."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def write(path: Path, size: Size, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Writes a file of results with the circumstances they were found in."""
    circumstances = {
        "size": size.name,
        "seeds": options.seeds,
        "float_epochs": size.float_epochs,
        "tune_epochs": size.tune_epochs,
        "calibration_images": size.calibration_images,
        "adaround_iterations": size.adaround_iterations,
        "machine": ts.deploy.machine_name(),
        "versions": versions(),
    }
    write_whole(path, (json.dumps({**circumstances, **results}, indent=2) + "\n").encode())
