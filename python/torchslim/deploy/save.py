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
from torchslim.graph import capture


@dataclass(frozen=True)
class SavedFile:
    """A file that was written."""

    path: Path
    kind: Literal["int8", "float"]
    bytes: int  #: on disk
    records: int  #: entries of the zip archive


def save(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    labels: Sequence[str] = (),
) -> SavedFile:
    """Write `model` as a file for a phone, by the suffix of `path`: `.ptl` for PyTorch Mobile.

    A prepared or converted model is written in int8 with its trained grids, a float model in float with batch norms
    folded. The file runs any batch size; `extra/manifest.json` inside it says what goes in and comes out. An older file
    at `path` stays whole unless the new one is complete.

    Args:
        model: float, prepared (`torchslim.quant.prepare`) or converted (`torchslim.quant.convert`); not changed.
        example_inputs: a float32 batch of the shape that the model takes.
        path: ends in `.ptl`. `.pte`, `.onnx` and `.slim` are not available yet.
        mean: per channel, for the manifest: the caller computes (pixel − mean) / std, the file does not.
        std: per channel, as `mean`.
        labels: names of the outputs, for the manifest.

    Raises:
        ValueError: the suffix, or a layer that the file cannot hold; the message names it and the remedy.
        OSError: the file cannot be written (directory, permission, space).

    Example:
        >>> ts.deploy.save(model.eval(), images[:1], "student.ptl").bytes
    """
    target = os.fspath(path)
    _C.deploy.check_suffix(target)
    manifest = [float(value) for value in mean], [float(value) for value in std], [str(label) for label in labels]
    integer_graph = getattr(model, "integer_graph", None)
    if isinstance(integer_graph, IntegerGraph):
        saved = _C.deploy.save_integer_graph(integer_graph, target, *manifest)
    else:
        _check_finite(model)  # before a quantiser meets a NaN scale and can only name a channel
        saved = _C.deploy.save_graph(capture(model, example_inputs), target, *manifest)
    return SavedFile(Path(saved.path), cast(Literal["int8", "float"], saved.kind), saved.bytes, saved.records)


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"torchslim.deploy.save: {name} holds NaN or infinity; nothing was written")
