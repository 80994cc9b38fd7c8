# SPDX-License-Identifier: BSD-3-Clause
"""`.onnx` files in OpenVINO."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchslim.deploy.loaded_model import LoadedModel, Run, check_images, import_extra, read_bytes

if TYPE_CHECKING:
    from openvino import CompiledModel

_WHO = "torchslim.deploy.OpenVinoModel"


class OpenVinoModel(LoadedModel):
    """An `.onnx` file on OpenVINO's CPU plugin.

    On processors without VNNI its pairs of 8-bit products saturate at 16 bits: prepare weights with 7 bits for it.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Loads and compiles the file.

        Args:
            path: of the file.
            threads: of the plugin; None: as many as OpenVINO likes.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no ONNX file that OpenVINO takes, or has not one input and one output.
            ImportError: openvino is not installed.
        """
        self._path = os.fspath(path)
        content = read_bytes(self._path)
        openvino = _openvino()
        try:
            self._model = openvino.Core().read_model(content)
        except RuntimeError as error:
            raise ValueError(f"{_WHO}: OpenVINO does not take {self._path}: {error}") from error
        if len(self._model.inputs) != 1 or len(self._model.outputs) != 1:
            raise ValueError(
                f"{_WHO}: expected a file with one input and one output, got {len(self._model.inputs)} and "
                f"{len(self._model.outputs)} in {self._path}"
            )
        sizes = self._model.inputs[0].get_partial_shape()
        place = ["framework", "torchslim"]
        text = self._model.get_rt_info(place).astype(str) if self._model.has_rt_info(place) else ""
        super().__init__(text, [None if size.is_dynamic else size.get_length() for size in sizes])
        self._compiled = self._compile(threads)

    def __call__(self, images: Tensor) -> Tensor:
        """Runs a batch: float32 (N, ...) to float32 (N, ...), without gradients."""
        check_images(_WHO, images, self._shape)
        return _run(self._compiled, images)

    @property
    def engine(self) -> str:
        """The name and version of the runtime."""
        return f"openvino {_openvino().__version__.split('-')[0]}"

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[Run]:
        """Lends the file on a pool of so many threads, to time it."""
        compiled = self._compile(threads)
        yield lambda images: _run(compiled, images)

    def _compile(self, threads: int | None) -> "CompiledModel":
        settings = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        return _openvino().Core().compile_model(self._model, "CPU", settings)


def _run(compiled: "CompiledModel", images: Tensor) -> Tensor:
    return torch.from_numpy(compiled({0: images.detach().contiguous().numpy()})[0].copy())


def _openvino() -> ModuleType:
    return import_extra(_WHO, "openvino", "OpenVINO is not installed")
