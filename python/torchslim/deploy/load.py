# SPDX-License-Identifier: BSD-3-Clause
"""From a file to something that runs."""

import os

from torchslim.deploy.loaded_model import LoadedModel
from torchslim.deploy.run_onnx import OnnxModel
from torchslim.deploy.run_pte import PteModel
from torchslim.deploy.run_ptl import PtlModel

_MODELS: dict[str, type[PtlModel] | type[OnnxModel] | type[PteModel]] = {
    ".ptl": PtlModel,
    ".onnx": OnnxModel,
    ".pte": PteModel,
}


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Load a file by its suffix: `.ptl` (lite interpreter), `.onnx` (ONNX Runtime) or `.pte` (ExecuTorch).

    Args:
        path: of the file. OpenVINO runs `.onnx` files too: `OpenVinoModel(path)`.

    Raises:
        OSError: it cannot be read.
        ValueError: another suffix, or the file is cut short, changed, or not such a file.
        ImportError: the runtime is not installed; the message names the extra.

    Example:
        >>> model = ts.deploy.load("student.ptl")
        >>> model(images).argmax(1)
    """
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in _MODELS:
        raise ValueError(
            f"torchslim.deploy.load: the path must end in {', '.join(_MODELS)}, got {os.fspath(path)}; "
            "torchslim.deploy.save writes such files"
        )
    return _MODELS[suffix](path)
