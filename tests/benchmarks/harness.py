# SPDX-License-Identifier: BSD-3-Clause
"""Times our call, a peer's and a plain clone in turn, in one run: a machine whose speed drifts hurts all alike."""

import ctypes
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Case:
    """One row of the table. Each callable does the whole job once and returns something, so that nothing is skipped."""

    name: str
    ours: Callable[[], object]
    peer_name: str
    peer: Callable[[], object]
    clone: Callable[[], object] | None
    shape: str
    #: What is promised: the least ratio to the peer and the most to the clone; None where nothing is.
    least_ratio_to_peer: float | None = None
    most_ratio_to_clone: float | None = None
    #: The most milliseconds that our call may take.
    most_ms: float | None = None
    #: How often our call reads or writes the whole tensor; a clone does twice.
    traffic: int | None = None


@dataclass
class Timing:
    """Median and quartiles of one callable's times, in milliseconds."""

    median: float
    low: float
    high: float


def timing(samples: list[float]) -> Timing:
    """Summarises times in seconds."""
    low, _, high = statistics.quantiles(samples, n=4)
    return Timing(1e3 * statistics.median(samples), 1e3 * low, 1e3 * high)


def measure(case: Case, seconds: float, threads: int) -> dict[str, object]:
    """Runs the callables of `case` in turn for about `seconds` (at least 7 rounds) and returns its row."""
    torch.set_num_threads(threads)
    calls = {"ours": case.ours, "peer": case.peer}
    if case.clone is not None:
        calls["clone"] = case.clone
    for call in calls.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["ours"]) < 7:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    times = {name: timing(values) for name, values in samples.items()}
    ours, peer = times["ours"], times["peer"]
    clone = times.get("clone")
    return {
        "name": case.name,
        "ours_ms": ours.median,
        "ours_ms_quartiles": [ours.low, ours.high],
        "peer": case.peer_name,
        "peer_ms": peer.median,
        "clone_ms": clone.median if clone else None,
        "ratio_to_peer": peer.median / ours.median,
        "ratio_to_clone": ours.median / clone.median if clone else None,
        "ratio_of_bandwidths": case.traffic / 2 * clone.median / ours.median if case.traffic and clone else None,
        "threads": threads,
        "shape": case.shape,
        "least_ratio_to_peer": case.least_ratio_to_peer,
        "most_ratio_to_clone": case.most_ratio_to_clone,
        "most_ms": case.most_ms,
    }


def verdict(row: dict[str, object]) -> str:
    """'ok', 'short' where a promise is not met in this run, or '' where none was made."""
    least, most, time_limit = row["least_ratio_to_peer"], row["most_ratio_to_clone"], row["most_ms"]
    if least is None and most is None and time_limit is None:
        return ""
    met = (
        (least is None or row["ratio_to_peer"] >= least)
        and (most is None or row["ratio_to_clone"] is None or row["ratio_to_clone"] <= most)
        and (time_limit is None or row["ours_ms"] <= time_limit)
    )  # type: ignore[operator]
    return "ok" if met else "short"


def format_row(row: dict[str, object]) -> str:
    """One line of the printed table."""
    clone, bandwidth = (
        f"{row[key]:6.2f}x" if row[key] is not None else "      -" for key in ("ratio_to_clone", "ratio_of_bandwidths")
    )
    return (
        f"{row['name']!s:44} {row['shape']!s:18} {row['threads']}  {row['ours_ms']:9.3f} {row['peer_ms']:9.3f} "
        f"{row['ratio_to_peer']:7.2f}x {clone} {bandwidth}  {verdict(row):5}  vs {row['peer']}"
    )


HEADER = (
    f"{'case':44} {'shape':18} thr  {'ours ms':>8} {'peer ms':>9} {'faster':>8} {'/clone':>7} {'GB/s':>7}  {'must':5}"
)
LEGEND = """faster: the peer's time in ours. /clone: our time in that of a clone of the same tensor.
GB/s: the bytes a second that our call moves in those of the clone; near 1 and above, memory is the limit.
Tensors of up to 32 MB reuse memory."""


def keep_freed_memory() -> None:
    """Has the C library keep what is freed: else some rounds, of whomever, wait for page faults and others do not."""
    trim_threshold, mmap_threshold, most = -1, -3, 32 << 20
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, most)


def scaling(rows: list[dict[str, object]]) -> list[str]:
    """For each promise on a large tensor, how our call and the clone gain from a second thread."""
    lines = []
    one = {(row["name"], row["shape"]): row for row in rows if row["threads"] == 1}
    for row in rows:
        first = one.get((row["name"], row["shape"]))
        if row["threads"] == 2 and first and row["ratio_of_bandwidths"] is not None:
            ours, clone = (first[key] / row[key] for key in ("ours_ms", "clone_ms"))  # type: ignore[operator]
            lines.append(f"{row['name']!s:44} {row['shape']!s:18} 2 threads: {ours:.2f}x, the clone {clone:.2f}x")
    return lines


def save(rows: list[dict[str, object]], path: Path) -> None:
    """Writes the rows as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1) + "\n")
    part.replace(path)
