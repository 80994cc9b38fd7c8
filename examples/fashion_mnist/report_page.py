# SPDX-License-Identifier: BSD-3-Clause
"""`report.html`: one file with everything inside, for a phone or a desk, light or dark."""

from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any

from fashion_mnist import charts
from fashion_mnist.clock import minutes
from fashion_mnist.data import CLASSES


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
    return _PAGE.substitute(
        title="torchslim: Fashion-MNIST, distilled" + (" (QUICK)" if report["quick"] else ""),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in details.notes),
        cards="".join(f"<div><b>{escape(value)}</b>{escape(text)}</div>" for value, text in cards.items()),
        table=escape(details.table),
        figures="".join(_figure(caption, svg) for caption, svg in _figures(report, details)),
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(report).items()),
    )


def _figures(report: dict[str, Any], details: Details) -> list[tuple[str, str]]:
    accuracy = {_LABELS[name]: value for name, value in report["accuracy"].items()}
    size = {_LABELS[name]: value / 1000 for name, value in report["bytes"].items()}
    return [
        ("Training, epoch by epoch", charts.training_curves(details.history, report["sparsity"])),
        ("Right answers on the test images, %", charts.bars(accuracy, "{:.2f}")),
        ("Size of the .ptl file, kB", charts.bars(size, "{:,.1f}")),
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


def _figure(caption: str, svg: str) -> str:
    return f'<figure role="img" aria-label="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>{svg}</figure>'


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --back: #fff; --card: #f3f5f7; --text: #1c2126; --soft: #5b6670; }
@media (prefers-color-scheme: dark) { :root { --back: #14181c; --card: #1f252b; --text: #e6eaee; --soft: #9aa7b3; } }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; }
.note { background: #e0812f33; border-left: 4px solid #e0812f; padding: .5rem .75rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem; }
.cards div, figure, pre { background: var(--card); border-radius: .5rem; padding: .75rem; margin: 0; }
.cards div { color: var(--soft); font-size: .9rem; }
.cards b { display: block; font-size: 1.5rem; color: var(--text); }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; margin: 1rem 0; }
.figures { columns: 26rem; column-gap: 1rem; }
figure { break-inside: avoid; margin-bottom: 1rem; }
figcaption { font-weight: 600; }
svg { display: block; width: 100%; max-width: 34rem; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
dl { display: grid; grid-template-columns: minmax(9rem, 1fr) 2fr; gap: .25rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
</style>
<h1>$title</h1>
$notes
<div class="cards">$cards</div>
<pre>$table</pre>
<div class="figures">$figures</div>
<h2>The run</h2>
<dl>$facts</dl>
</html>
""")
