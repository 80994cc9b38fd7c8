# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a report's tables, for a terminal and for a page."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

Rows = list[tuple[str, ...]]
_TIMES = ("int8 median", "p95", "float median", "p95")


def runtime_rows(report: Mapping[str, Any]) -> Rows:
    """Return a head and one row for each runtime, or nothing where none was measured."""
    rows: Rows = [("runtime", "engine", "accuracy", "same answer", "outputs differ", "most steps", "bytes", *_TIMES)]
    for name, found in report.get("runtimes", {}).items():
        times = [found["latency_ms"][kind][rank] for kind in ("int8", "float") for rank in ("median", "p95")]
        rows.append(
            (
                name,
                found["engine"],
                f"{found['accuracy']:.2f} %",
                f"{found['agreement']:.2f} %",
                f"{found['differing']:,}",
                str(found["max_steps"]),
                f"{found['bytes']:,}",
                *("-" if time is None else f"{time:.3f} ms" for time in times),
            )
        )
    return rows if len(rows) > 1 else []


def layer_rows(report: Mapping[str, Any]) -> Rows:
    """Return a head and one row for each layer, or nothing where none was measured."""
    rows: Rows = [("layer", "op", "parameters", "MACs", "bytes", "bits", "within 1 step", "mean steps", "most steps")]
    for layer in report.get("layers", []):
        measured = ["", "", ""]
        if elements := sum(layer["steps"]):
            within = f"{100 * sum(layer['steps'][:2]) / elements:.1f} %"
            measured = [within, f"{layer['mean_steps']:.2f}", f"{layer['max_steps']:.1f}"]
        counts = [f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "macs", "bytes", "weight_bits")]
        rows.append((layer["layer"] or "-", layer["op"], *counts, *measured))
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
