# SPDX-License-Identifier: BSD-3-Clause
"""What compressing a model came to, as numbers that were measured."""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.deploy.evaluate import accuracy, compare_outputs, run_batches
from torchslim.deploy.latency import measure_latency
from torchslim.deploy.load import load
from torchslim.deploy.loaded_model import LoadedModel
from torchslim.deploy.lower import lower
from torchslim.deploy.reference import run_integer
from torchslim.deploy.report_layers import STEP_BINS, report_layers
from torchslim.deploy.report_table import BUILDS_NOTE, build_rows, layer_rows, runtime_rows, text_table
from torchslim.deploy.run_openvino import OpenVinoModel
from torchslim.deploy.save import save
from torchslim.deploy.torch_build import TorchBuild
from torchslim.graph import capture

#: What `report` can run the file in.
RUNTIMES = ("ptl", "onnx", "openvino", "pte")
#: Of these many images each layer's distance to the float network is taken.
_LAYER_IMAGES = 256
_UNMEASURED = {"median": None, "p95": None}
Progress = Callable[[int, int], None]


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
    runtimes: Sequence[str] = ("ptl",),
    torch_builds: Mapping[str, TorchBuild] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `model` as an int8 file, run the file on all images and say what came out.

    Args:
        model: prepared, trained and in eval mode.
        images: float32 (N, ...), the test images.
        targets: int64 (N,), their classes.
        float_model: the model before it was prepared, trained as far; its float files are measured beside.
        teacher: a larger float model; the same, in a `.ptl` file.
        directory: where `student.ptl`, `student_float.ptl`, `teacher.ptl` and the other runtimes' files stay; None:
            they are removed.
        seed: noted in the report.
        runs: timed passes for each latency.
        runtimes: what the file is run in: "ptl", which is always measured, "onnx" (ONNX Runtime), "openvino", "pte"
            (ExecuTorch); the others need the extra `[export]`.
        torch_builds: other builds of torch in which the `.ptl` files run too, by the names that the report gives them.
        threads: of each latency.
        progress: called with how many parts of the work are done, and of how many.

    Returns:
        A dictionary with the keys of `report.json` (docs/api/deploy/report.md): accuracies in per cent, sizes in bytes,
        latencies in ms; None where nothing was measured. `format_table` makes it a table, `report_page` a page.

    Raises:
        ValueError: what `save`, `lower` and `run_integer` refuse; an unknown runtime.
        ImportError: a runtime that is not installed.
        FileNotFoundError: the program of a build's command is not there; before anything is measured.
        RuntimeError: another build of torch gives no answer, or one of another shape; with what it printed last.

    Example:
        >>> print(ts.deploy.format_table(ts.deploy.report(model.eval(), images, labels)))
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ValueError(f"torchslim.deploy.report: runtimes must be of {', '.join(RUNTIMES)}, got {unknown[0]!r}")
    builds = dict(torch_builds or {})
    for build in builds.values():
        build.check()
    begin = time.monotonic()
    names = dict.fromkeys(("ptl", *runtimes))
    parts = _Parts(progress, 2 + len(names) + len(builds) + (teacher is not None))
    with tempfile.TemporaryDirectory() as temporary:
        measure = _Measure(images, targets, Path(directory if directory is not None else temporary), runs, threads)
        found = measure.reference(model)
        parts.next()
        found |= _layers(model, images)
        parts.next()
        for name in names:
            found["runtimes"][name] = measure.runtime(name, model, float_model)
            parts.next()
        for name, build in builds.items():
            found["torch_builds"][name] = measure.torch_build(name, build)
            parts.next()
        _fill_ptl(found, measure)
        if teacher is not None:
            saved = save(teacher, images[:1], measure.folder / "teacher.ptl")
            found["accuracy"]["teacher"] = 100 * accuracy(run_batches(load(saved.path), images), targets)
            found["bytes"]["teacher_float"] = saved.bytes
            parts.next()
    return {
        **found,
        "threads": threads,
        "engine": found["runtimes"]["ptl"]["engine"],
        "seconds": round(time.monotonic() - begin, 1),
        "quick": False,
        "epochs_dropped": 0,
        "seed": seed,
        "machine": machine_name(),
        "versions": {"torchslim": str(_C.version()), "torch": torch.__version__},
    }


class _Parts:
    """Tells `progress` of parts that are done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def next(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Measure:
    """What one test set says of a network's files."""

    def __init__(self, images: Tensor, targets: Tensor, folder: Path, runs: int, threads: int) -> None:
        self.images, self.targets, self.folder, self.runs, self.threads = images, targets, folder, runs, threads
        self.float_accuracy: float | None = None
        self.float_bytes: int | None = None

    def reference(self, model: nn.Module) -> dict[str, Any]:
        """Runs what needs no file: the fake-quantised model and its integers."""
        self._graph = lower(capture(model, self.images[:1]))
        last = self._graph.nodes[-1]
        self._step = None if last.gives_floats else last.scale
        self._expected = run_integer(self._graph, self.images).values
        with torch.no_grad():
            self._eval = torch.cat([model(part) for part in torch.split(self.images, 64)])
        return {
            "accuracy": {
                "teacher": None,
                "student_alone": None,
                "float": None,
                "fake_quant": 100 * accuracy(self._eval, self.targets),
                "reference": 100 * accuracy(self._expected, self.targets),
            },
            "sparsity": self._graph.count_weights().sparsity,
            "differences_in": "steps" if self._step is not None else "relative",
            "runtimes": {},
            "torch_builds": {},
        }

    def runtime(self, name: str, model: nn.Module, float_model: nn.Module | None) -> dict[str, Any]:
        """Writes the file that `name` runs, and the float one, and runs both."""
        suffix = "onnx" if name == "openvino" else name
        saved = save(model, self.images[:1], self.folder / f"student.{suffix}")
        file = _open(name, saved.path)
        outputs = run_batches(file, self.images)
        latency: dict[str, Any] = {"int8": self._latency(file), "float": dict(_UNMEASURED), "ratio": None}
        if float_model is not None:
            float_saved = save(float_model, self.images[:1], self.folder / f"student_float.{suffix}")
            float_file = _open(name, float_saved.path)
            latency["float"] = self._latency(float_file)
            latency["ratio"] = latency["int8"]["median"] / latency["float"]["median"]
            if name == "ptl":
                self.float_bytes = float_saved.bytes
                self.float_accuracy = 100 * accuracy(run_batches(float_file, self.images), self.targets)
        if name == "ptl":
            self.int8_agreement = compare_outputs(outputs, self._eval, self._step)
        return {
            "engine": file.engine,
            **self._against(outputs, self._expected),
            "bytes": saved.bytes,
            "latency_ms": latency,
        }

    def torch_build(self, name: str, build: TorchBuild) -> dict[str, Any]:
        """Runs the `.ptl` files, which are there by now, in another build of torch."""
        images = self.images[: build.images]
        float_file = self.folder / "student_float.ptl" if self.float_bytes is not None else None
        try:
            answer = build.run(self.folder / "student.ptl", images, float_file=float_file)
        except RuntimeError as error:
            raise RuntimeError(f"torchslim.deploy.report: torch build {name!r}: {error}") from error
        expected = run_integer(self._graph, images, input_rule=answer.input_rule).values
        if answer.outputs.shape != expected.shape:
            raise RuntimeError(
                f"torchslim.deploy.report: torch build {name!r}: outputs of shape {tuple(answer.outputs.shape)} came "
                f"back, expected {tuple(expected.shape)}"
            )
        ratio = None if answer.cpu_ms_float is None else answer.cpu_ms_int8 / max(answer.cpu_ms_float, 1e-9)
        return {
            "engine": f"torch {answer.torch} on {answer.machine}, QNNPACK",
            "input_rule": answer.input_rule,
            "images": images.shape[0],
            **self._against(answer.outputs, expected),
            "emulated": answer.machine != platform.machine(),
            "cpu_ms": {"int8": answer.cpu_ms_int8, "float": answer.cpu_ms_float, "ratio": ratio},
        }

    def _against(self, outputs: Tensor, expected: Tensor) -> dict[str, Any]:
        """Compares outputs of the first images with those that the integer reference has for them."""
        near = compare_outputs(outputs, expected, self._step)
        return {
            "accuracy": 100 * accuracy(outputs, self.targets[: outputs.shape[0]]),
            "agreement": 100 * near.top1,
            "differing": None if self._step is None else _count_differences(outputs, expected, self._step),
            "max_steps": near.max_steps,
            "max_relative": near.max_relative,
        }

    def _latency(self, file: LoadedModel) -> dict[str, float]:
        latency = measure_latency(file, self.images[:1], runs=self.runs, threads=self.threads)
        return {"median": latency.median_ms, "p95": latency.p95_ms}


def _open(name: str, path: Path) -> LoadedModel:
    return OpenVinoModel(path) if name == "openvino" else load(path)


def _count_differences(outputs: Tensor, expected: Tensor, step: float) -> int:
    """Return how many outputs are not the expected ones, both in whole steps of their grid."""
    return int(((outputs.double() - expected.double()) / step).round().count_nonzero())


def _fill_ptl(found: dict[str, Any], measure: _Measure) -> None:
    """Puts the numbers of the `.ptl` file where `report.json` has them."""
    ptl = found["runtimes"]["ptl"]
    found["accuracy"] |= {"float": measure.float_accuracy, "int8": ptl["accuracy"]}
    found["bytes"] = {"teacher_float": None, "student_float": measure.float_bytes, "student_int8": ptl["bytes"]}
    found["latency_ms"] = {"float": ptl["latency_ms"]["float"], "int8": ptl["latency_ms"]["int8"]}
    found["agreement"] = {
        "top1": 100 * measure.int8_agreement.top1,
        "max_steps": measure.int8_agreement.max_steps,
        "max_relative": measure.int8_agreement.max_relative,
        "reference_differences": ptl["differing"],
    }


def _layers(model: nn.Module, images: Tensor) -> dict[str, Any]:
    few = images[:_LAYER_IMAGES]
    rows = report_layers(capture(model, images[:1]), few)
    return {
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "layers": [row._asdict() for row in rows],
        "step_bins": list(STEP_BINS),
        "layer_images": few.shape[0],
    }


def format_table(report: Mapping[str, Any], *, weights: int = 0) -> str:
    """Return a report as a table of plain text; the C++ programs print the same, without runtimes and layers.

    Args:
        report: the keys of `report.json`; what is missing or None was not measured.
        weights: how many int8 weights the file holds, for the line that counts those that are left.
    """
    text = str(_C.deploy.format_table(dict(report), weights))
    builds = build_rows(report)
    builds_text = text_table(builds, left=(0, 1, 2)) + BUILDS_NOTE + "\n" if builds else ""
    runtimes = text_table(runtime_rows(report), left=(0, 1))
    layers = text_table(layer_rows(report), left=(0, 1, 2))
    return "\n".join(part for part in (text, runtimes, builds_text, layers) if part)


def report_json(report: Mapping[str, Any], *, weights: int = 0) -> str:
    """Return a report as the text of `report.json`; the C++ programs write the same, without runtimes and layers."""
    text = str(_C.deploy.report_json(dict(report), weights))
    common: dict[str, Any] = json.loads(text)
    more = {key: value for key, value in report.items() if key not in common}
    if not more:
        return text
    reference = {"reference": report.get("accuracy", {}).get("reference")}
    common["accuracy"] |= reference
    common["sparsity"] = report.get("sparsity", common["sparsity"])  # of `report`, who counted; else of `weights`
    return json.dumps({**common, **more}, indent=2) + "\n"


def machine_name() -> str:
    """Return the processor's name, its cores and torch's threads."""
    return str(_C.deploy.machine_name())
