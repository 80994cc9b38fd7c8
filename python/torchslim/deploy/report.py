# SPDX-License-Identifier: BSD-3-Clause
"""What compressing a model came to, as numbers that were measured."""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.deploy.evaluate import accuracy, compare_outputs, count_reference_differences, run_batches
from torchslim.deploy.lower import lower
from torchslim.deploy.run_ptl import PtlModel, load, measure_latency
from torchslim.deploy.save import save
from torchslim.graph import capture


def report(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    float_model: nn.Module | None = None,
    teacher: nn.Module | None = None,
    directory: str | os.PathLike[str] | None = None,
    seed: int = 0,
    runs: int = 200,
) -> dict[str, Any]:
    """Write `model` as an int8 file, run the file on all images and say what came out.

    Args:
        model: prepared, trained and in eval mode.
        images: float32 (N, ...), the test images.
        targets: int64 (N,), their classes.
        float_model: the model before it was prepared, trained as far; its float file is measured beside.
        teacher: a larger float model; the same.
        directory: where `student.ptl`, `student_float.ptl` and `teacher.ptl` stay; None: they are removed.
        seed: noted in the report.
        runs: timed passes for each latency.

    Returns:
        A dictionary with the keys of `report.json` (docs/api/deploy/report.md): accuracies in per cent, sizes in bytes,
        latencies in ms; None where nothing was measured. `format_table` makes it a table.

    Raises:
        ValueError: what `save`, `lower` and `run_integer` refuse.

    Example:
        >>> print(ts.deploy.format_table(ts.deploy.report(model.eval(), images, labels)))
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(directory if directory is not None else temporary)
        found = _measure_int8(model, images, targets, folder, runs)
        if float_model is not None:
            _measure_float(found, "float", "student_float", float_model, images, targets, folder)
            found["latency_ms"]["float"] = _latency(load(folder / "student_float.ptl"), images, runs)
        if teacher is not None:
            _measure_float(found, "teacher", "teacher_float", teacher, images, targets, folder)
    return {
        **found,
        "seconds": round(time.monotonic() - begin, 1),
        "quick": False,
        "epochs_dropped": 0,
        "seed": seed,
        "machine": machine_name(),
        "versions": {"torchslim": str(_C.version()), "torch": torch.__version__},
    }


def _measure_int8(model: nn.Module, images: Tensor, targets: Tensor, folder: Path, runs: int) -> dict[str, Any]:
    graph = lower(capture(model, images[:1]))
    saved = save(model, images[:1], folder / "student.ptl")
    file = load(saved.path)
    outputs = run_batches(file, images)
    with torch.no_grad():
        fake_quantised = torch.cat([model(part) for part in torch.split(images, 64)])
    agreement = compare_outputs(outputs, fake_quantised, graph.nodes[-1].scale)
    return {
        "accuracy": {
            "teacher": None,
            "student_alone": None,
            "float": None,
            "fake_quant": 100 * accuracy(fake_quantised, targets),
            "int8": 100 * accuracy(outputs, targets),
        },
        "bytes": {"teacher_float": None, "student_float": None, "student_int8": saved.bytes},
        "sparsity": graph.count_weights().sparsity,
        "latency_ms": {"float": {"median": None, "p95": None}, "int8": _latency(file, images, runs)},
        "agreement": {
            "top1": 100 * agreement.top1,
            "max_steps": agreement.max_steps,
            "reference_differences": count_reference_differences(outputs, graph, images),
        },
    }


def _measure_float(
    found: dict[str, Any], name: str, file: str, model: nn.Module, images: Tensor, targets: Tensor, folder: Path
) -> None:
    """Adds the accuracy under `name` and the size under `file` of a float model's file."""
    saved = save(model, images[:1], folder / ("teacher.ptl" if file == "teacher_float" else f"{file}.ptl"))
    found["accuracy"][name] = 100 * accuracy(run_batches(load(saved.path), images), targets)
    found["bytes"][file] = saved.bytes


def _latency(model: PtlModel, images: Tensor, runs: int) -> dict[str, float]:
    latency = measure_latency(model, images[:1], runs=runs)
    return {"median": latency.median_ms, "p95": latency.p95_ms}


def format_table(report: Mapping[str, Any], *, weights: int = 0) -> str:
    """Return a report as a table of plain text; the C++ programs print the same.

    Args:
        report: the keys of `report.json`; what is missing or None was not measured.
        weights: how many int8 weights the file holds, for the line that counts those that are left.
    """
    return str(_C.deploy.format_table(dict(report), weights))


def report_json(report: Mapping[str, Any], *, weights: int = 0) -> str:
    """Return a report as the text of `report.json`, as the C++ programs write it."""
    return str(_C.deploy.report_json(dict(report), weights))


def machine_name() -> str:
    """Return the processor's name, its cores and torch's threads."""
    return str(_C.deploy.machine_name())
