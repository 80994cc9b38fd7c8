# SPDX-License-Identifier: BSD-3-Clause
"""Files of one small network, written once."""

import sys
from pathlib import Path

import pytest

import torchslim as ts

sys.path.append(str(Path(__file__).parents[1] / "deploy"))
from deploy_zoo import images, resnet, trained


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with int8 and float files of each kind."""
    folder = tmp_path_factory.mktemp("files")
    model = trained(resnet)
    for name in ("int8.ptl", "int8.onnx", "int8.pte"):
        ts.deploy.save(model, images(1), folder / name, mean=[0.5] * 3, std=[0.25] * 3, labels=list("abcdefghij"))
    for name in ("float.ptl", "float.onnx", "float.pte"):
        ts.deploy.save(resnet().eval(), images(1), folder / name)
    return folder
