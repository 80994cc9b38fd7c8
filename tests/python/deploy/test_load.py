# SPDX-License-Identifier: BSD-3-Clause
"""What all loaded files have in common, whatever runs them."""

from pathlib import Path

import pytest
import torch
from deploy_zoo import images, resnet, trained

import torchslim as ts

CLASSES = {"net.ptl": ts.deploy.PtlModel, "net.onnx": ts.deploy.OnnxModel, "net.pte": ts.deploy.PteModel}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as a file of each kind, with its integers beside it."""
    folder = tmp_path_factory.mktemp("files")
    model = trained(resnet)
    for name in CLASSES:
        ts.deploy.save(model, images(1), folder / name)
    torch.save(ts.quant.convert(model)(images(6)), folder / "expected.pt")
    torch.save(ts.deploy.lower(ts.graph.capture(model, images(1))).nodes[-1].scale, folder / "step.pt")
    return folder


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_loads_by_its_suffix_and_runs(folder: Path, name: str) -> None:
    model = ts.deploy.load(folder / name)
    assert type(model) is CLASSES[name]
    expected, step = torch.load(folder / "expected.pt"), torch.load(folder / "step.pt")
    assert ((model(images(6)) - expected) / step).abs().max() <= 2.5
    assert torch.equal(model(images(6)), ts.deploy.run_batches(model, images(6), batch=4))
    assert model.input_shape[1:] == [3, 20, 20]
    assert any(digit in model.engine for digit in "0123456789")
    assert model.manifest["kind"] == "int8"
    assert ts.deploy.OpenVinoModel(folder / "net.onnx").manifest["format"] == "torchslim.onnx/1"


@pytest.mark.parametrize("name", CLASSES)
def test_latency_of_any_file(folder: Path, name: str) -> None:
    threads = torch.get_num_threads()
    latency = ts.deploy.measure_latency(ts.deploy.load(folder / name), images(1), runs=5, warm_up=1, threads=2)
    assert (latency.runs, latency.threads) == (5, 2)
    assert latency.p95_ms >= latency.median_ms > 0
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="runs and threads must be > 0"):
        ts.deploy.measure_latency(ts.deploy.load(folder / name), images(1), threads=0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_file_is_an_oserror(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        ts.deploy.load(tmp_path / name)


@pytest.mark.parametrize("name", CLASSES)
def test_another_file_under_the_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no network" * 100)
    with pytest.raises(ValueError, match=name):
        ts.deploy.load(tmp_path / name)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.ptl, \.onnx, \.pte, got .*net\.pth"):
        ts.deploy.load(tmp_path / "net.pth")
