# SPDX-License-Identifier: BSD-3-Clause
import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deploy_zoo import NETWORKS, ODD_NETWORKS, depthwise, images, resnet, trained, vgg
from torch import nn
from torch.jit.mobile import _load_for_lite_interpreter

import torchslim as ts


@pytest.mark.parametrize("make", NETWORKS)
def test_the_file_computes_what_the_reference_computes(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = trained(make)
    graph = ts.deploy.lower(ts.graph.capture(model, images(1)))
    saved = ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    assert saved.kind == "int8"
    assert saved.bytes == os.path.getsize(saved.path)
    file = ts.deploy.load(saved.path)
    for batch in (1, 2, 37):
        x = images(batch, seed=batch) * 2
        assert torch.equal(file(x), ts.deploy.run_integer(graph, x).values)


@pytest.mark.parametrize("name", ODD_NETWORKS)
def test_odd_networks_too(name: str, tmp_path: Path) -> None:
    model = trained(ODD_NETWORKS[name])
    graph = ts.deploy.lower(ts.graph.capture(model, images(1)))
    saved = ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    x = images(11, seed=4) * 2
    assert torch.equal(ts.deploy.load(saved.path)(x), ts.deploy.run_integer(graph, x).values)


@pytest.mark.parametrize("make", NETWORKS)
def test_the_file_agrees_with_the_trained_model(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = trained(make)
    saved = ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    step = ts.deploy.lower(ts.graph.capture(model, images(1))).nodes[-1].scale
    x = images(256, seed=9)
    with torch.no_grad():
        found = ts.deploy.compare_outputs(ts.deploy.load(saved.path)(x), model(x), step)
    assert found.mean_steps < 0.2
    assert found.top1 > 0.95


def test_a_converted_model_gives_the_same_file(tmp_path: Path) -> None:
    model = trained(resnet)
    ts.deploy.save(model, images(1), tmp_path / "prepared.ptl")
    converted = ts.quant.convert(model)
    assert ts.deploy.save(converted, images(1), tmp_path / "converted.ptl").kind == "int8"
    assert (tmp_path / "prepared.ptl").read_bytes() == (tmp_path / "converted.ptl").read_bytes()
    assert torch.equal(ts.deploy.load(tmp_path / "converted.ptl")(images(5)), converted(images(5)))


def test_a_float_model_is_written_in_float(tmp_path: Path) -> None:
    for make in NETWORKS:
        torch.manual_seed(1)
        model = make()
        model(images(64))  # moves the running statistics
        model.eval()
        saved = ts.deploy.save(model, images(1), tmp_path / "float.ptl")
        assert saved.kind == "float"
        with torch.no_grad():
            torch.testing.assert_close(ts.deploy.load(saved.path)(images(5)), model(images(5)), rtol=1e-4, atol=1e-5)


def test_the_weights_are_in_the_file_once(tmp_path: Path) -> None:
    model = trained(resnet)
    saved = ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    codes = ts.deploy.lower(ts.graph.capture(model, images(1))).count_weights().total
    channels = sum(m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    with zipfile.ZipFile(saved.path) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    assert [entry.file_size for entry in entries].count(codes) == 1
    assert len(entries) == saved.records
    assert {entry.date_time for entry in entries} == {(1980, 0, 0, 0, 0, 0)}
    assert saved.bytes < codes + 24 * channels + 400 * saved.records + 25_000


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ptl", "b.ptl"):
        ts.deploy.save(trained(depthwise), images(1), tmp_path / name)
    assert (tmp_path / "a.ptl").read_bytes() == (tmp_path / "b.ptl").read_bytes()


def test_the_manifest_says_what_goes_in_and_comes_out(tmp_path: Path) -> None:
    model = trained(depthwise)
    saved = ts.deploy.save(
        model, images(1), tmp_path / "net.ptl", mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), labels=["zebra"] * 10
    )
    file = ts.deploy.load(saved.path)
    manifest = file.manifest
    assert manifest["input"]["shape"] == [None, 3, 20, 20]
    assert manifest["input"]["normalisation"]["mean"] == [0.4, 0.5, 0.6]
    assert manifest["labels"][0] == "zebra"
    # Whoever ports the file can check it with the sample alone.
    grid, out = manifest["input_grid_uint8"], manifest["output_grid_uint8"]
    codes = torch.tensor([(89 * i + 7) % 256 for i in range(3 * 20 * 20)])
    sample = ((codes - grid["zero_point"]) * grid["scale"]).to(torch.float32).view(1, 3, 20, 20)
    steps = torch.round(file(sample) / out["scale"]).to(torch.int64) + out["zero_point"]
    assert steps.flatten().tolist() == manifest["sample"]["output_uint8"]


def test_torch_loads_the_file_without_us(tmp_path: Path) -> None:
    model = trained(vgg)
    saved = ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    try:
        loaded = _load_for_lite_interpreter(str(saved.path))
        assert torch.equal(loaded(images(3)), ts.deploy.load(saved.path)(images(3)))
    finally:
        torch.backends.quantized.engine = before


def test_saving_changes_neither_model_nor_engine(tmp_path: Path) -> None:
    model = trained(resnet)
    before = copy.deepcopy(model.state_dict())
    engine = torch.backends.quantized.engine
    ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    assert torch.backends.quantized.engine == engine
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".slim", r"\.slim files are not available yet; save to a path that ends in \.ptl or \.onnx"),
        (".pt", r"the path must end in \.ptl \(PyTorch Mobile\) or \.onnx"),
    ],
)
def test_other_formats_are_refused_by_name(suffix: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ts.deploy.save(vgg().eval(), images(1), tmp_path / f"net{suffix}")


@pytest.mark.parametrize("bytecode", [4, 5, 7])
def test_older_bytecode(bytecode: int, tmp_path: Path) -> None:
    model, x = trained(resnet), images(3)
    new = ts.deploy.save(model, x[:1], tmp_path / "new.ptl")
    old = ts.deploy.save(model, x[:1], tmp_path / "old.ptl", bytecode=bytecode)
    assert ts.deploy.check(old.path).bytecode_version == bytecode
    assert ts.deploy.check(new.path).bytecode_version == 8
    assert torch.equal(ts.deploy.load(old.path)(x), ts.deploy.load(new.path)(x))
    assert ts.deploy.load(old.path).manifest == ts.deploy.load(new.path).manifest
    assert old.bytes < new.bytes + 15_000  # weights are not doubled


def test_bytecode_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bytecode must be in \[4, 7\] or be left out, got 3"):
        ts.deploy.save(vgg().eval(), images(1), tmp_path / "net.ptl", bytecode=3)


def test_a_large_file_is_less_than_a_third_of_the_float_one(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 32, 32)
    model = ts.models.mobilenet_v2(1000, in_channels=3)
    prepared = ts.quant.prepare(model, x)
    prepared(x)
    in_float = ts.deploy.save(model.eval(), x[:1], tmp_path / "float.ptl")
    in_int8 = ts.deploy.save(prepared.eval(), x[:1], tmp_path / "int8.ptl")
    assert in_float.bytes > 4_000_000
    assert in_int8.bytes <= 0.30 * in_float.bytes


def test_an_unknown_operation_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "net.ptl"
    path.write_bytes(b"old")

    class Gamma(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x)

    unknown = nn.Sequential(nn.Conv2d(3, 4, 3), Gamma())
    with pytest.raises(ValueError, match="lgamma"):
        ts.deploy.save(unknown.eval(), images(1), path)
    assert path.read_bytes() == b"old"


def test_nan_in_a_weight_is_refused(tmp_path: Path) -> None:
    model = trained(vgg)
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    with pytest.raises(ValueError, match=r"0\.weight holds NaN"):
        ts.deploy.save(model, images(1), tmp_path / "net.ptl")
    assert not (tmp_path / "net.ptl").exists()


def test_a_directory_that_is_missing_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        ts.deploy.save(vgg().eval(), images(1), tmp_path / "missing" / "net.ptl")
    with pytest.raises(FileNotFoundError):
        ts.deploy.load(tmp_path / "missing.ptl")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    saved = ts.deploy.save(vgg().eval(), images(1), tmp_path / "net.ptl")
    saved.path.write_bytes(saved.path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole PyTorch Mobile file"):
        ts.deploy.load(saved.path)


def test_an_integer_graph_pickles_and_copies() -> None:
    model = trained(depthwise)
    graph = ts.deploy.lower(ts.graph.capture(model, images(1)))
    for copied in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert copied.checksum() == graph.checksum()
        assert str(copied) == str(graph)
        assert torch.equal(
            ts.deploy.run_integer(copied, images(2)).codes, ts.deploy.run_integer(graph, images(2)).codes
        )


def test_the_older_input_rule_differs_at_ties_only() -> None:
    graph = ts.deploy.lower(ts.graph.capture(trained(vgg), images(1)))
    new, old = (
        ts.deploy.run_integer_nodes(graph, images(8), input_rule=rule)[0] for rule in ("torch-2.13", "round-then-add")
    )
    assert (new.int() - old.int()).abs().max() <= 1
    with pytest.raises(ValueError, match=r"got `torch-1\.0`"):
        ts.deploy.run_integer(graph, images(1), input_rule="torch-1.0")  # type: ignore[arg-type]
