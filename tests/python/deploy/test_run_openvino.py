# SPDX-License-Identifier: BSD-3-Clause
import sys
from pathlib import Path

import pytest
import torch
from deploy_zoo import images, vgg

import torchslim as ts


def test_openvino_runs_the_file(tmp_path: Path) -> None:
    model, x = vgg().eval(), images(3)
    path = ts.deploy.save(model, x[:1], tmp_path / "net.onnx", labels=["a"]).path
    file = ts.deploy.OpenVinoModel(path)
    torch.testing.assert_close(file(x), model(x).detach(), rtol=1e-3, atol=1e-4)
    assert file.input_shape == [None, 3, 20, 20]
    assert file.manifest["labels"] == ["a"]
    assert file.engine.startswith("openvino 20")
    assert ts.deploy.measure_latency(file, x[:1], runs=3, warm_up=1).median_ms > 0


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network" * 100)
    with pytest.raises(ValueError, match=r"OpenVINO does not take .*net\.onnx"):
        ts.deploy.OpenVinoModel(tmp_path / "net.onnx")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ts.deploy.save(vgg().eval(), images(1), tmp_path / "net.onnx").path
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'torchslim\[export\]'"):
        ts.deploy.OpenVinoModel(path)
