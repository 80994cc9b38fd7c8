# SPDX-License-Identifier: BSD-3-Clause
import sys
from pathlib import Path

import onnx
import pytest
import torch
from deploy_zoo import images, trained, vgg

import torchslim as ts


def saved(folder: Path, **options: object) -> Path:
    return ts.deploy.save(trained(vgg), images(1), folder / "net.onnx", **options).path  # type: ignore[arg-type]


def test_the_manifest_is_the_files(tmp_path: Path) -> None:
    model = ts.deploy.OnnxModel(saved(tmp_path, labels=["a", "b"]))
    assert model.manifest["labels"] == ["a", "b"]
    assert model.manifest["input"]["shape"] == [None, 3, 20, 20]
    assert model.input_shape == [None, 3, 20, 20]
    assert model.engine.startswith("onnxruntime ")


def test_threads_change_nothing(tmp_path: Path) -> None:
    path, x = saved(tmp_path), images(5)
    assert torch.equal(ts.deploy.OnnxModel(path, threads=1)(x), ts.deploy.OnnxModel(path, threads=2)(x))


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = ts.deploy.OnnxModel(saved(tmp_path))
    with pytest.raises(ValueError, match=r"takes images of shape \(N, 3, 20, 20\), got \(2, 3, 20, 21\)"):
        model(torch.zeros(2, 3, 20, 21))
    with pytest.raises(TypeError, match="must be float32, got float64"):
        model(images(1).double())


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "abc"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["c"])], "g", values[:2], values[2:])
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(file, tmp_path / "two.onnx")
    for runtime in (ts.deploy.OnnxModel, ts.deploy.OpenVinoModel):
        with pytest.raises(ValueError, match="one input and one output, got 2 and 1"):
            runtime(tmp_path / "two.onnx")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'torchslim\[export\]'"):
        ts.deploy.load(path)
