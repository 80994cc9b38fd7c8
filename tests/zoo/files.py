# SPDX-License-Identifier: BSD-3-Clause
"""How far the files of a prepared network are from its integers, in each runtime that is installed."""

import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

import torchslim as ts

#: The columns, and the package that each needs.
RUNTIMES = {
    "ptl": "torch",
    "onnx": "onnxruntime",
    "onnx optimised": "onnxruntime",
    "openvino": "openvino",
    "pte": "executorch",
}

Result = float | str  # steps of the output's grid, or why there are none


def differences(
    prepared: nn.Module, converted: nn.Module, images: Tensor, folder: Path, runtimes: Collection[str]
) -> dict[str, Result]:
    """The largest difference in steps, by runtime."""
    images = on_grid(converted, images)
    last = converted.integer_graph.nodes[-1]
    expected = converted(images)
    step = expected.abs().max().item() / 127 if last.gives_floats else last.scale

    def steps(run: Callable[[], Tensor]) -> Result:
        try:
            return float((run() - expected).abs().max().item() / step)
        except (ValueError, RuntimeError) as error:
            return str(error).strip().splitlines()[0]

    def saved(suffix: str) -> Path:
        example = images if suffix == "pte" else images[:1]
        return ts.deploy.save(prepared, example, folder / f"net.{suffix}").path

    runs: dict[str, Callable[[], Tensor]] = {
        "ptl": lambda: ts.deploy.load(saved("ptl"))(images),
        "onnx": lambda: in_onnxruntime(saved("onnx"), images, optimise=False),
        "onnx optimised": lambda: in_onnxruntime(saved("onnx"), images, optimise=True),
        "openvino": lambda: ts.deploy.OpenVinoModel(saved("onnx"))(images),
        "pte": lambda: ts.deploy.load(saved("pte"))(images),
    }
    return {
        name: steps(run) if importlib.util.find_spec(RUNTIMES[name]) else f"needs {RUNTIMES[name]}"
        for name, run in runs.items()
        if name in runtimes
    }


def on_grid(converted: nn.Module, images: Tensor) -> Tensor:
    """The images rounded to the input's grid: runtimes differ in a pixel now and then that lies between two codes."""
    first = converted.integer_graph.nodes[0]
    if first.gives_floats:
        return images
    codes = ts.deploy.run_integer_nodes(converted.integer_graph, images)[0]
    return first.scale * (codes.float() - first.zero_point)


def in_onnxruntime(path: Path, images: Tensor, optimise: bool) -> Tensor:
    """The file's output, with the kernels that do not saturate."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
