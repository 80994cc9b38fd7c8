# SPDX-License-Identifier: BSD-3-Clause
"""From a model to a file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from torch import Tensor, nn

from torchslim import _C
from torchslim.deploy.lower import IntegerGraph
from torchslim.graph import Graph, capture


@dataclass(frozen=True)
class SavedFile:
    """A file that was written."""

    path: Path
    kind: Literal["int8", "float"]
    bytes: int  #: on disk
    records: int  #: entries of the zip archive of a `.ptl` file, tensors of an
    #: `.onnx` file, parts that XNNPACK runs of a `.pte` file


def save(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    labels: Sequence[str] = (),
    opset: int | None = None,
    bytecode: int | None = None,
) -> SavedFile:
    """Write `model` as a file for a phone, by the suffix of `path`: `.ptl`, `.onnx` or `.pte`.

    A prepared or converted model is written in int8 with its trained grids, a float model in float with batch norms
    folded. The file runs any batch size and a manifest inside it says what goes in and comes out. An older file
    at `path` stays whole unless the new one is complete.

    Args:
        model: float, prepared (`torchslim.quant.prepare`) or converted (`torchslim.quant.convert`); not changed.
        example_inputs: a float32 batch of the shape that the model takes.
        path: ends in `.ptl`, `.onnx` or `.pte` (ExecuTorch: needs the extra `[export]`; the file runs the batch
            size of the example). `.slim` is not available yet.
        mean: per channel, for the manifest: the caller computes (pixel − mean) / std, the file does not.
        std: per channel, as `mean`.
        labels: names of the outputs, for the manifest.
        opset: of `.onnx` files: the version of the operators, 13 to 21. None: the lowest that has all operators of the
            network; weights whose codes fit in 4 bits are then stored in 4, which takes 21.
        bytecode: of `.ptl` files: an older version, 4 to 7, for runtimes before torch 1.12 (1.10 and 1.11 load 7, 1.9
            loads 5). None: 8. The operators stay the same.

    Raises:
        ValueError: the suffix, or a layer that the file cannot hold; the message names it and the remedy.
        ImportError: `.pte`, and executorch is not installed.
        OSError: the file cannot be written (directory, permission, space).

    Example:
        >>> ts.deploy.save(model.eval(), images[:1], "student.ptl").bytes
    """
    target = os.fspath(path)
    manifest = [float(value) for value in mean], [float(value) for value in std], [str(label) for label in labels]
    if target.endswith(".pte"):
        return _save_pte(model, example_inputs, target, manifest)
    _C.deploy.check_suffix(target)
    integer_graph = getattr(model, "integer_graph", None)
    if isinstance(integer_graph, IntegerGraph):
        saved = _C.deploy.save(integer_graph, target, *manifest, opset, bytecode)
    else:
        _check_finite(model)  # before a quantiser meets a NaN scale and can only name a channel
        saved = _C.deploy.save(_capture_one(model, example_inputs), target, *manifest, opset, bytecode)
    return SavedFile(Path(saved.path), cast(Literal["int8", "float"], saved.kind), saved.bytes, saved.records)


def _capture_one(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> Graph:
    """The graph for one image: where the batch lies elsewhere for a while, the integer reference counts on it."""
    graph = capture(model, example_inputs)  # larger batches show what is fixed to their size
    if graph.nodes[0].shape[0] == 1:
        return graph
    example = example_inputs if isinstance(example_inputs, Tensor) else example_inputs[0]
    return capture(model, example[:1])


def _save_pte(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str,
    manifest: tuple[list[float], list[float], list[str]],
) -> SavedFile:
    from torchslim.deploy.save_pte import write_pte  # loads ExecuTorch

    graph = getattr(model, "integer_graph", None)
    if not isinstance(graph, IntegerGraph):
        _check_finite(model)
        graph = capture(model, example_inputs)
    content, kind, delegates = write_pte(graph, path, *manifest)
    _C.write_file(path, content)
    return SavedFile(Path(path), cast(Literal["int8", "float"], kind), len(content), delegates)


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"torchslim.deploy.save: {name} holds NaN or infinity; nothing was written")
