# SPDX-License-Identifier: BSD-3-Clause
"""From trained networks to files, numbers, table and page."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torchslim as ts
from fashion_mnist.charts import History
from fashion_mnist.checkpoint import write_whole
from fashion_mnist.clock import Clock
from fashion_mnist.data import CLASSES, SIDE, Images
from fashion_mnist.progress import plan
from fashion_mnist.recipe import Recipe
from fashion_mnist.report_page import Details, page
from fashion_mnist.train import accuracy, predict

EXAMPLE = torch.zeros(1, 1, SIDE, SIDE)
Report = dict[str, Any]


@dataclass(frozen=True)
class Networks:
    """What was trained, in evaluation mode."""

    teacher: nn.Module
    student: nn.Module  #: distilled, pruned, quantisation-aware
    student_float: nn.Module  #: its weights in the plain network, nothing rounded
    alone: nn.Module


@dataclass(frozen=True)
class Measured:
    """What was found by writing the files and running them on the test images."""

    report: Report  #: accuracy, bytes, sparsity, latency_ms, agreement
    layers: list[dict[str, Any]]  #: name, weights, zeros: counted in the int8 codes
    confusion: list[list[int]]  #: [true class][answer of the int8 file]

    @property
    def weights(self) -> int:
        """Number of int8 weights in the file."""
        return sum(layer["weights"] for layer in self.layers)


def measure(networks: Networks, out: Path, test: Images, latency_runs: int) -> Measured:
    """Writes the three `.ptl` files, runs them in the lite interpreter and compares the int8 one with the reference."""
    # The manifest says what goes in and comes out: pixels in [0, 1], as they are.
    manifest = {"mean": (0.0,), "std": (1.0,), "labels": CLASSES}
    teacher = ts.deploy.save(networks.teacher, EXAMPLE, out / "teacher.ptl", **manifest)
    float_student = ts.deploy.save(networks.student_float, EXAMPLE, out / "student_float.ptl", **manifest)
    student = ts.deploy.save(networks.student, EXAMPLE, out / "student.ptl", **manifest)
    float_file, int8_file = ts.deploy.load(float_student.path), ts.deploy.load(student.path)
    integers = ts.deploy.lower(ts.graph.capture(networks.student, EXAMPLE))

    images = test.inputs()
    int8 = ts.deploy.run_batches(int8_file, images)
    fake_quant = predict(networks.student, test)
    agreement = ts.deploy.compare_outputs(int8, fake_quant, integers.nodes[-1].scale)
    report = {
        "accuracy": {
            "teacher": accuracy(ts.deploy.run_batches(ts.deploy.load(teacher.path), images), test),
            "student_alone": accuracy(predict(networks.alone, test), test),
            "float": accuracy(ts.deploy.run_batches(float_file, images), test),
            "fake_quant": accuracy(fake_quant, test),
            "int8": accuracy(int8, test),
        },
        "bytes": {
            "teacher_float": teacher.bytes,
            "student_float": float_student.bytes,
            "student_int8": student.bytes,
        },
        "sparsity": integers.count_weights().sparsity,
        "latency_ms": {
            "float": _latency(float_file, images[:1], latency_runs),
            "int8": _latency(int8_file, images[:1], latency_runs),
        },
        "agreement": {
            "top1": 100 * agreement.top1,
            "max_steps": agreement.max_steps,
            "max_relative": agreement.max_relative,
            "reference_differences": ts.deploy.count_reference_differences(int8, integers, images),
        },
    }
    return Measured(report, _layers(integers), _confusion(int8, test))


def complete(measured: Measured, recipe: Recipe, clock: Clock, seed: int) -> Report:
    """What `report.json` holds: the measured part, and the circumstances."""
    return {
        **measured.report,
        "seconds": round(clock.used(), 1),
        "quick": recipe.name == "quick",
        "epochs_dropped": clock.epochs_dropped,
        "seed": seed,
        "machine": ts.deploy.machine_name(),
        "versions": versions(),
    }


def write(out: Path, report: Report, measured: Measured, history: History, notes: list[str]) -> str:
    """Writes `report.json` and `report.html`; returns the table, which C++ formats: the C++ example prints the same."""
    table = ts.deploy.format_table(report, weights=measured.weights)
    details = Details(history, measured.layers, measured.confusion, table, notes)
    write_whole(out / "report.json", ts.deploy.report_json(report, weights=measured.weights).encode())
    write_whole(out / "report.html", page(report, details).encode())
    return table


def headline(recipe: Recipe, images: int, teacher: nn.Module, student: nn.Module, minutes: float) -> str:
    """What is about to be run, in one line."""
    weights = [sum(parameter.numel() for parameter in model.parameters()) for model in (teacher, student)]
    return (
        f"{'QUICK: ' if recipe.name == 'quick' else ''}{images:,} images; a teacher of {weights[0]:,} weights for "
        f"{recipe.teacher_epochs} epochs, students of {weights[1]:,} for {recipe.student_epochs}; "
        f"{torch.get_num_threads()} threads, at most {minutes:g} minutes."
    )


def notes(recipe: Recipe, clock: Clock) -> list[str]:
    """What must be said wherever the numbers are."""
    found = []
    if recipe.name == "quick":
        found.append("QUICK: fewer images, fewer epochs, smaller networks. These are not the numbers of the full run.")
    if clock.epochs_dropped:
        found.append(f"This machine was too slow for the whole recipe: {plan(clock)}.")
    return found


def failures(report: Report, recipe: Recipe) -> list[str]:
    """What of the recipe's promises was not kept."""
    floors = {} if report["epochs_dropped"] else recipe.floors  # they were measured on whole runs
    found = [
        f"accuracy of {name}: at least {floor} % expected, got {report['accuracy'][name]:.2f} %"
        for name, floor in floors.items()
        if report["accuracy"][name] < floor
    ]
    lost = report["accuracy"]["fake_quant"] - report["accuracy"]["int8"]
    if lost > recipe.largest_loss:
        found.append(f"int8 file: {lost:.2f} points below the trained model, at most {recipe.largest_loss} expected")
    differences = report["agreement"]["reference_differences"]
    if differences:
        found.append(f"int8 file: {differences} outputs differ from the integer reference, 0 expected")
    return found


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {"torchslim": ts.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _latency(file: ts.deploy.PtlModel, image: Tensor, runs: int) -> dict[str, float]:
    latency = ts.deploy.measure_latency(file, image, runs=runs)
    return {"median": latency.median_ms, "p95": latency.p95_ms}


def _layers(integers: ts.deploy.IntegerGraph) -> list[dict[str, Any]]:
    return [
        {"name": node.layer, "weights": node.codes.numel(), "zeros": int((node.codes == 0).sum())}
        for node in integers.nodes
        if node.codes is not None
    ]


def _confusion(logits: Tensor, test: Images) -> list[list[int]]:
    pairs = test.labels * len(CLASSES) + logits.argmax(1)
    counts: list[list[int]] = pairs.bincount(minlength=len(CLASSES) ** 2).view(len(CLASSES), -1).tolist()
    return counts
