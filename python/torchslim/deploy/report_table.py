# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a report's tables, for a terminal and for a page."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

Rows = list[tuple[str, ...]]
_TIMES = ("int8 median", "p95", "float median", "p95", "int8/float")
#: What a table of other builds of torch does not say.
BUILDS_NOTE = (
    "CPU time is that of one image, user and system, on one thread. Where the build is emulated it is a rough stand-in "
    "for instructions executed, and says nothing of a phone's latency."
)


def runtime_rows(report: Mapping[str, Any]) -> Rows:
    """Return a head and one row for each runtime, or nothing where none was measured."""
    rows: Rows = [("runtime", "engine", *_nearness(report), "bytes", *_TIMES)]
    for name, found in report.get("runtimes", {}).items():
        times = [found["latency_ms"][kind][rank] for kind in ("int8", "float") for rank in ("median", "p95")]
        rows.append(
            (
                name,
                found["engine"],
                *_near(report, found),
                f"{found['bytes']:,}",
                *(_or_dash("{:.3f} ms", time) for time in times),
                _or_dash("{:.2f}", found["latency_ms"]["ratio"]),
            )
        )
    return rows if len(rows) > 1 else []


def build_rows(report: Mapping[str, Any]) -> Rows:
    """Return a head and one row for each other build of torch, or nothing where there was none."""
    head = ("torch build", "engine", "input rule", "images", *_nearness(report), "int8 CPU time", "float", "int8/float")
    rows: Rows = [head]
    for name, found in report.get("torch_builds", {}).items():
        rows.append(
            (
                name,
                found["engine"] + (", emulated" if found["emulated"] else ""),
                found["input_rule"],
                f"{found['images']:,}",
                *_near(report, found),
                *(_or_dash("{:.2f} ms", found["cpu_ms"][kind]) for kind in ("int8", "float")),
                _or_dash("{:.2f}", found["cpu_ms"]["ratio"]),
            )
        )
    return rows if len(rows) > 1 else []


def _nearness(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The heads of what is told against the integer reference."""
    if report.get("differences_in") == "relative":
        return ("accuracy", "same answer", "largest difference")
    return ("accuracy", "same answer", "outputs differ", "most steps")


def _near(report: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    answers = (f"{found['accuracy']:.2f} %", f"{found['agreement']:.2f} %")
    if report.get("differences_in") == "relative":
        return (*answers, f"{found['max_relative']:.1e}, relative")
    return (*answers, f"{found['differing']:,}", str(found["max_steps"]))


def _or_dash(form: str, number: float | None) -> str:
    return "-" if number is None else form.format(number)


def layer_rows(report: Mapping[str, Any]) -> Rows:
    """Return a head and one row for each layer, or nothing where none was measured."""
    steps = "within 1 step", "mean steps", "most steps"
    rows: Rows = [("layer", "op", "in .ptl", "parameters", "MACs", "bytes", "bits", *steps)]
    for layer in report.get("layers", []):
        measured = ["", "", ""]
        if elements := sum(layer["steps"]):
            within = f"{100 * sum(layer['steps'][:2]) / elements:.1f} %"
            measured = [within, f"{layer['mean_steps']:.2f}", f"{layer['max_steps']:.1f}"]
        counts = [f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "macs", "bytes", "weight_bits")]
        rows.append((layer["layer"] or "-", layer["op"], layer["arithmetic"], *counts, *measured))
    return rows if len(rows) > 1 else []


def text_table(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Return rows as aligned columns of text; those whose number is in `left` begin flush, the others end flush."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "".join(line.rstrip() + "\n" for line in lines)
