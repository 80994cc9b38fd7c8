# SPDX-License-Identifier: BSD-3-Clause
"""`.onnx` files in ONNX Runtime."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchslim.deploy.loaded_model import LoadedModel, Run, check_images, import_extra, read_bytes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_WHO = "torchslim.deploy.OnnxModel"


class OnnxModel(LoadedModel):
    """An `.onnx` file on ONNX Runtime's CPU kernels, with those whose 8-bit products do not saturate."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Loads the file.

        Args:
            path: of the file.
            threads: of the pool that shares an operation; None: as many as ONNX Runtime likes.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no ONNX file that ONNX Runtime takes, or has not one input and one output.
            ImportError: onnxruntime is not installed.
        """
        self._path = os.fspath(path)
        self._content = read_bytes(self._path)
        self._session = self._open(threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"{_WHO}: expected a file with one input and one output, got {len(inputs)} and {len(outputs)} in "
                f"{self._path}"
            )
        self._name: str = inputs[0].name
        text = self._session.get_modelmeta().custom_metadata_map.get("torchslim", "")
        super().__init__(text, [size if isinstance(size, int) else None for size in inputs[0].shape])

    def __call__(self, images: Tensor) -> Tensor:
        """Runs a batch: float32 (N, ...) to float32 (N, ...), without gradients."""
        check_images(_WHO, images, self._shape)
        return self._run(self._session, images)

    @property
    def engine(self) -> str:
        """The name and version of the runtime."""
        return f"onnxruntime {_onnxruntime().__version__}"

    @contextmanager
    def on_threads(self, threads: int) -> Iterator[Run]:
        """Lends the file on a pool of so many threads, to time it."""
        session = self._open(threads)
        yield lambda images: self._run(session, images)

    def _open(self, threads: int | None) -> "InferenceSession":
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        # Without VNNI, pairs of products saturate at 16 bits; this has onnxruntime choose kernels where they do not.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            return onnxruntime.InferenceSession(self._content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no base of their own
            raise ValueError(f"{_WHO}: ONNX Runtime does not take {self._path}: {_first_line(error)}") from error

    def _run(self, session: "InferenceSession", images: Tensor) -> Tensor:
        try:
            (result,) = session.run(None, {self._name: images.detach().contiguous().numpy()})
        except Exception as error:
            raise ValueError(
                f"{_WHO}: {self._path} cannot run a batch of shape {tuple(images.shape)}: {_first_line(error)}"
            ) from error
        return torch.from_numpy(result)


def _onnxruntime() -> ModuleType:
    return import_extra(_WHO, "onnxruntime", ".onnx files need ONNX Runtime")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
