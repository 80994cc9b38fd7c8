# SPDX-License-Identifier: BSD-3-Clause
"""Runs the benchmarks of this folder (`bench_*.py`), prints a table of ratios and writes it as JSON."""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads ruin times on a shared machine

import harness


def main() -> int:
    """Measures every case on one thread and on two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--seconds", type=float, default=1.5, help="for each case and thread count")
    parser.add_argument("--only", default="", help="run the files whose name contains this")
    options = parser.parse_args()

    files = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py") if options.only in path.stem)
    rows = []
    harness.keep_freed_memory()
    print(f"{harness.LEGEND}\n{harness.HEADER}")
    for threads in (1, 2):
        for name in files:
            for case in importlib.import_module(name).cases(threads):
                rows.append(harness.measure(case, options.seconds, threads))
                print(harness.format_row(rows[-1]), flush=True)
    harness.save(rows, options.out)
    print(*harness.scaling(rows), sep="\n")
    if "bench_qat_step" in files:
        print(*importlib.import_module("bench_qat_step").memory(), sep="\n")
    short = [row for row in rows if harness.verdict(row) == "short"]
    print(f"{len(rows)} cases, {len(short)} short of what is promised; written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
