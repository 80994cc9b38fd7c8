# SPDX-License-Identifier: BSD-3-Clause
"""`report.html`: one file with everything inside, for a phone or a desk, light or dark."""

from dataclasses import dataclass
from typing import Any

from fashion_mnist import charts
from fashion_mnist.clock import minutes
from fashion_mnist.data import CLASSES
from torchslim.deploy.html_page import html_page


@dataclass(frozen=True)
class Details:
    """What the page shows beyond the numbers of `report.json`."""

    history: charts.History
    layers: list[dict[str, float | str]]  #: name, weights, zeros: counted in the int8 codes
    confusion: list[list[int]]  #: [true class][answer of the int8 file]
    table: str  #: as printed on the terminal
    notes: list[str]  #: what the reader must know: QUICK, dropped epochs


def page(report: dict[str, Any], details: Details) -> str:
    """Returns the page as HTML text."""
    accuracy, size, latency = report["accuracy"], report["bytes"], report["latency_ms"]
    smaller = size["teacher_float"] / size["student_int8"]
    cards = {
        f"{accuracy['int8']:.2f} %": f"of the test images right in int8; the teacher: {accuracy['teacher']:.2f} %",
        f"{smaller:.1f}× smaller": f"{size['student_int8']:,} bytes; the teacher's file: {size['teacher_float']:,}",
        f"{latency['int8']['median']:.2f} ms": "an image in int8, median, one thread of this machine",
        f"{100 * report['sparsity']:.0f} % zeros": "among the int8 weights of the file",
    }
    return html_page(
        "torchslim: Fashion-MNIST, distilled" + (" (QUICK)" if report["quick"] else ""),
        notes=details.notes,
        cards=cards,
        table=details.table,
        figures=_figures(report, details),
        facts=_facts(report),
    )


def _figures(report: dict[str, Any], details: Details) -> list[tuple[str, str]]:
    accuracy = {_LABELS[name]: value for name, value in report["accuracy"].items()}
    size = {_LABELS[name]: value / 1000 for name, value in report["bytes"].items()}
    return [
        ("Training, epoch by epoch", charts.training_curves(details.history, report["sparsity"])),
        ("Right answers on the test images, %", charts.by_network(accuracy, "{:.2f}")),
        ("Size of the .ptl file, kB", charts.by_network(size, "{:,.1f}")),
        ("Codes that are zero, % (weights in the layer)", charts.layer_sparsity(details.layers)),
        ("True class (rows) and answer in int8 (columns), % of the row", charts.confusion(details.confusion, CLASSES)),
    ]


_LABELS = {
    "teacher": "teacher",
    "student_alone": "student alone",
    "float": "distilled, float",
    "fake_quant": "distilled, fake-quantised",
    "int8": "distilled, int8 file",
    "teacher_float": "teacher",
    "student_float": "distilled, float",
    "student_int8": "distilled, int8",
}


def _facts(report: dict[str, Any]) -> dict[str, str]:
    agreement = report["agreement"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return {
        "Distilled, float": "the student's weights in the plain network, nothing rounded",
        "Same top answer, int8 file and fake-quantised model": f"{agreement['top1']:.2f} %",
        "Largest distance between their outputs": f"{agreement['max_steps']} of the output grid's steps",
        "Outputs that differ from the integer reference": str(agreement["reference_differences"]),
        "Time, first training step to report": minutes(report["seconds"]),
        "Epochs dropped by the clock": str(report["epochs_dropped"]),
        "Seed": str(report["seed"]),
        "Machine": str(report["machine"]),
        "Versions": versions,
    }
