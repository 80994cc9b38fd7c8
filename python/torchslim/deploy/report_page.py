# SPDX-License-Identifier: BSD-3-Clause
"""A report as one HTML file with drawings."""

import os
from collections.abc import Mapping
from typing import Any

from torchslim import _C
from torchslim.deploy.html_page import html_page
from torchslim.deploy.report_table import BUILDS_NOTE, build_rows, layer_rows, runtime_rows

#: Above each drawing of distances; `step_bins` are its classes.
_STEPS = "How far integers are from the float network, in steps of the layer's grid: share of its elements"
_RATIO = "Latency of the int8 file as a share of its float file's"
_RATIO_OF_BUILDS = "; in other builds of torch CPU time, where emulated a rough stand-in for instructions executed"
_NOTE = (
    "Latencies are those of this machine and of the engines named. Kernels for desktop processors are not a phone's "
    "(QNNPACK's are SSE2 here, NEON there), so they say nothing about a phone."
)


def report_page(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a report as one HTML page: the numbers, and drawings of accuracy, bytes, latency and layers.

    The page holds everything it shows, asks no server for anything, and is readable on a light and on a dark screen.
    The file is whole or not there.

    Args:
        report: of `report`; keys that are missing or None are left out of the page.
        path: of the file.

    Raises:
        ImportError: matplotlib is not installed (extra `[report]`).
        OSError: the file cannot be written.

    Example:
        >>> ts.deploy.report_page(ts.deploy.report(model.eval(), images, labels), "report.html")
    """
    page = html_page(
        "torchslim: report" + (" (QUICK)" if report.get("quick") else ""),
        notes=_notes(report),
        cards=_cards(report),
        figures=_figures(report),
        tables=[
            (caption, rows)
            for caption, rows in (
                ("In each runtime, against the integer reference", runtime_rows(report)),
                ("In other builds of torch, against the reference with their input rule", build_rows(report)),
                (f"Layer by layer, {report.get('layer_images', 0)} images", layer_rows(report)),
            )
            if rows
        ],
        facts=_facts(report),
    )
    _C.write_file(os.fspath(path), page.encode())


def _notes(report: Mapping[str, Any]) -> list[str]:
    quick = "QUICK: a short run on fewer images; its numbers say nothing about the full one."
    notes = ((quick, report.get("quick")), (_NOTE, _latencies(report)), (BUILDS_NOTE, report.get("torch_builds")))
    return [note for note, is_needed in notes if is_needed]


def _cards(report: Mapping[str, Any]) -> dict[str, str]:
    accuracy, size, latency = report.get("accuracy", {}), report.get("bytes", {}), report.get("latency_ms", {})
    cards = {}
    if (int8 := accuracy.get("int8")) is not None:
        beside = f"; in float: {accuracy['float']:.2f} %" if accuracy.get("float") is not None else ""
        cards[f"{int8:.2f} %"] = f"of the images right in int8{beside}"
    if (int8_bytes := size.get("student_int8")) is not None:
        beside = f"; the float file: {size['student_float']:,}" if size.get("student_float") is not None else ""
        cards[f"{int8_bytes:,} bytes"] = f"the int8 .ptl file{beside}"
    if (time := latency.get("int8", {}).get("median")) is not None:
        float_time = latency.get("float", {}).get("median")
        beside = f"; the float file: {float_time:.2f} ms" if float_time is not None else ""
        cards[f"{time:.2f} ms"] = f"an image in int8, median, threads: {report.get('threads', 1)}{beside}"
    if (macs := report.get("macs")) is not None:
        cards[f"{_amount(macs)} MACs"] = f"an image; {report['parameters']:,} parameters"
    return cards


def _amount(number: float) -> str:
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:g}"


_ACCURACIES = {
    "teacher": "teacher",
    "student_alone": "student alone",
    "float": "float",
    "fake_quant": "fake-quantised",
    "reference": "integer reference",
}


def _figures(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    from torchslim.deploy import charts  # loads matplotlib

    accuracy = {
        label: report["accuracy"][name]
        for name, label in _ACCURACIES.items()
        if report.get("accuracy", {}).get(name) is not None
    }
    accuracy |= {f"int8, {name}": found["accuracy"] for name, found in report.get("runtimes", {}).items()}
    figures = []
    if accuracy:
        figures.append(("Right answers, %", charts.bars(accuracy, "{:.2f}")))
    if sizes := _sizes(report):
        figures.append(("Size of the file, kB", charts.bars(sizes, "{:,.1f}")))
    if times := _latencies(report):
        colours = [charts.GREY if name.startswith("float") else charts.BLUE for name in times]
        figures.append(("Latency of an image, median, ms", charts.bars(times, "{:.3f}", colours)))
    if ratios := _ratios(report):
        caption = _RATIO + _RATIO_OF_BUILDS * bool(report.get("torch_builds"))
        figures.append((caption, charts.bars(ratios, "{:.2f}")))
    layers = _named(report.get("layers", []))
    distances = {name: layer["steps"] for name, layer in layers.items() if layer["steps"]}
    if distances:
        figures.append((_STEPS, charts.shares(distances, _bins(report["step_bins"]))))
    for key, caption in (("bytes", "Bytes in the .ptl file, kB"), ("macs", "Multiply-accumulates, millions")):
        unit = 1e3 if key == "bytes" else 1e6
        if values := {name: layer[key] / unit for name, layer in layers.items() if layer[key]}:
            figures.append((caption, charts.bars(values, "{:,.3g}", (charts.ORANGE,))))
    return figures


def _named(layers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The layers by names that are unlike: a layer may run twice, and operations may have none."""
    named: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = layer["layer"] or layer["op"]
        times = sum((other["layer"] or other["op"]) == name for other in named.values())
        named[f"{name} ({times + 1})" if times else name] = layer
    return named


def _bins(ends: list[int]) -> list[str]:
    starts = [0, *(end + 1 for end in ends)]
    names = [str(end) if start == end else f"{start}–{end}" for start, end in zip(starts, ends, strict=False)]
    return [*names, f">{ends[-1]}"]


def _sizes(report: Mapping[str, Any]) -> dict[str, float]:
    found = report.get("bytes", {})
    sizes = {"float, ptl": found.get("student_float")}
    sizes |= {f"int8, {name}": runtime["bytes"] for name, runtime in report.get("runtimes", {}).items()}
    return {name: size / 1000 for name, size in sizes.items() if size is not None}


def _latencies(report: Mapping[str, Any]) -> dict[str, float]:
    times = {
        f"{kind}, {name}": runtime["latency_ms"][kind]["median"]
        for name, runtime in report.get("runtimes", {}).items()
        for kind in ("float", "int8")
    }
    return {name: time for name, time in times.items() if time is not None}


def _ratios(report: Mapping[str, Any]) -> dict[str, float]:
    ratios = {name: found["latency_ms"]["ratio"] for name, found in report.get("runtimes", {}).items()}
    ratios |= {name: found["cpu_ms"]["ratio"] for name, found in report.get("torch_builds", {}).items()}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def _facts(report: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    if (agreement := report.get("agreement", {})).get("top1") is not None:
        facts["Same top answer, int8 file and fake-quantised model"] = f"{agreement['top1']:.2f} %"
        if report.get("differences_in") == "relative":
            relative = f"{agreement['max_relative']:.1e} of the largest output: the network ends in floats"
            facts["Largest distance between their outputs"] = relative
        else:
            facts["Largest distance between their outputs"] = f"{agreement['max_steps']} steps of the output's grid"
            facts["Outputs that differ from the integer reference"] = str(agreement["reference_differences"])
    if (sparsity := report.get("sparsity")) is not None:
        facts["int8 weights that are zero"] = f"{100 * sparsity:.1f} %"
    names = {"seed": "Seed", "machine": "Machine", "engine": "Engine", "threads": "Threads of each latency"}
    facts |= {label: str(report[key]) for key, label in names.items() if report.get(key) is not None}
    if versions := report.get("versions"):
        facts["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return facts
