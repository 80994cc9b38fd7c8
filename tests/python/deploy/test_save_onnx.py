# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files: read by onnx's checker, its reference evaluator, onnxruntime and OpenVINO."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import openvino
import pytest
import torch
from deploy_zoo import NETWORKS, ODD_NETWORKS, images, trained
from torch import Tensor, nn

import torchslim as ts

sys.path.append(str(Path(__file__).parents[1] / "quant"))
from test_operations import CASES, Around


def in_onnxruntime(path: Path, x: Tensor, optimise: bool = False) -> Tensor:
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Without VNNI, pairs of products saturate at 16 bits; this has onnxruntime choose kernels where they do not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def steps(result: Tensor, converted: nn.Module, x: Tensor) -> Tensor:
    """How far a result is from the integer reference, in steps of its grid."""
    scale = converted.integer_graph.nodes[-1].scale
    return ((result - converted(x)) / scale).abs()


def around(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = Around(CASES[name][0]).eval()
    model(torch.randn(1, 3, 8, 8))  # sets the size of what is lazy
    return model


def prepared_around(name: str, **config: object) -> nn.Module:
    prepared = ts.quant.prepare(around(name).train(), torch.randn(1, 3, 8, 8), config or None)
    for _ in range(2):
        prepared(torch.randn(8, 3, 8, 8))
    return prepared.eval()


@pytest.mark.parametrize("name", CASES)
def test_a_float_file_computes_what_the_model_computes(name: str, tmp_path: Path) -> None:
    model, x = around(name), torch.randn(5, 3, 8, 8)
    saved = ts.deploy.save(model, x[:1], tmp_path / "net.onnx")
    assert saved.kind == "float"
    onnx.checker.check_model(str(saved.path), full_check=True)
    for optimise in (False, True):
        result = in_onnxruntime(saved.path, x, optimise)
        torch.testing.assert_close(result, model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_an_int8_file_computes_what_the_reference_computes(name: str, tmp_path: Path) -> None:
    prepared, x = prepared_around(name), torch.randn(5, 3, 8, 8)
    saved = ts.deploy.save(prepared, x[:1], tmp_path / "net.onnx")
    assert saved.kind == "int8"
    onnx.checker.check_model(str(saved.path), full_check=True)
    converted = ts.quant.convert(prepared)
    away = steps(in_onnxruntime(saved.path, x), converted, x)
    assert away.max() <= 1.5
    assert (away > 0.5).float().mean() < 0.02
    # Optimised, two roundings in a row become one.
    assert steps(in_onnxruntime(saved.path, x, optimise=True), converted, x).max() <= 2.5


@pytest.mark.parametrize("make", NETWORKS)
def test_onnx_reference_evaluator(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    prepared, x = trained(make), images(2)
    saved = ts.deploy.save(prepared, x[:1], tmp_path / "net.onnx", opset=19)  # older ones it lacks
    evaluator = onnx.reference.ReferenceEvaluator(str(saved.path))
    result = torch.from_numpy(np.asarray(evaluator.run(None, {"input": x.numpy()})[0]))
    away = steps(result, ts.quant.convert(prepared), x)
    assert away.max() <= 1.5
    assert (away > 0.5).float().mean() < 0.25  # of 20 numbers


@pytest.mark.parametrize("name", ODD_NETWORKS)
def test_odd_networks(name: str, tmp_path: Path) -> None:
    prepared, x = trained(ODD_NETWORKS[name]), images(3)
    saved = ts.deploy.save(prepared, x[:1], tmp_path / "net.onnx")
    away = steps(in_onnxruntime(saved.path, x), ts.quant.convert(prepared), x)
    assert away.max() <= 1.5
    assert (away > 0.5).float().mean() < 0.05


@pytest.mark.parametrize("make", NETWORKS)
def test_openvino_computes_in_integers(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Weights have 7 bits: with 8, pairs of products pass 16 bits, where processors without VNNI saturate."""
    torch.manual_seed(0)
    prepared, x = ts.quant.prepare(make(), images(4), {"weight": {"bits": 7}}), images(16)
    prepared(images(64, 1))
    saved = ts.deploy.save(prepared.eval(), x[:1], tmp_path / "net.onnx")
    converted = ts.quant.convert(prepared)
    compiled = openvino.Core().compile_model(str(saved.path), "CPU")
    away = steps(torch.from_numpy(compiled({"input": x.numpy()})[0]), converted, x)
    assert away.max() <= 3
    assert away.mean() <= 1
    types = [
        operation.get_rt_info()["runtimePrecision"].astype(str)
        for operation in compiled.get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) in ("Convolution", "FullyConnected")
    ]
    layers = [node for node in converted.integer_graph.nodes if node.codes is not None]
    assert len(types) == len(layers)
    assert set(types) <= {"u8", "i8"}


def test_weights_of_few_bits_are_stored_in_four(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 65, 3), nn.Flatten(), nn.Linear(65 * 16, 7))
    prepared = ts.quant.prepare(
        model, torch.randn(1, 3, 8, 8), {"weight": {"bits": 4}, "names": {"0": {"weight": {"bits": 8}}}}
    )
    prepared(torch.randn(8, 3, 8, 8))
    prepared.eval()
    x = torch.randn(5, 3, 8, 8)
    small = ts.deploy.save(prepared, x[:1], tmp_path / "small.onnx")
    large = ts.deploy.save(prepared, x[:1], tmp_path / "large.onnx", opset=17)
    onnx.checker.check_model(str(small.path), full_check=True)
    file = onnx.load(small.path)
    assert file.opset_import[0].version == 21
    types = {tuple(t.dims): t.data_type for t in file.graph.initializer if len(t.dims) > 1}
    assert types == {
        (64, 3, 3, 3): onnx.TensorProto.INT8,
        (65, 64, 3, 3): onnx.TensorProto.INT4,
        (7, 65 * 16): onnx.TensorProto.INT4,
    }
    halved = (65 * 64 * 9 + 7 * 65 * 16) // 2
    assert halved <= large.bytes - small.bytes <= halved + 100
    codes = prepared.get_submodule("2").folded()[0]
    stored = onnx.numpy_helper.to_array(next(t for t in file.graph.initializer if tuple(t.dims) == (65, 64, 3, 3)))
    assert np.array_equal(stored.astype(np.int8), codes.numpy())
    converted = ts.quant.convert(prepared)
    for saved in (small, large):
        assert steps(in_onnxruntime(saved.path, x), converted, x).max() <= 1.5


def test_what_the_file_says_about_itself(tmp_path: Path) -> None:
    prepared, x = trained(NETWORKS[1]), images(2)
    saved = ts.deploy.save(prepared, x[:1], tmp_path / "net.onnx", labels=["cat"], mean=[0.5] * 3, std=[0.25] * 3)
    file = onnx.load(saved.path)
    assert file.producer_name == "torchslim"
    assert [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3, 20, 20]
    manifest = json.loads(file.metadata_props[0].value)
    assert manifest["format"] == "torchslim.onnx/1"
    assert manifest["labels"] == ["cat"]
    scale = manifest["output_grid_uint8"]["scale"]
    grid = manifest["input_grid_uint8"]
    codes = (89 * torch.arange(3 * 20 * 20) + 7) % 256
    sample = grid["scale"] * (codes - grid["zero_point"]).float().view(1, 3, 20, 20)
    expected = scale * (torch.tensor(manifest["sample"]["output_uint8"]) - manifest["output_grid_uint8"]["zero_point"])
    assert ((in_onnxruntime(saved.path, sample) - expected) / scale).abs().max() <= 1.5
    sizes = {tuple(t.dims): len(t.raw_data) for t in file.graph.initializer}
    assert sizes[(24, 16, 3, 3)] == 24 * 16 * 9
    assert saved.records == len(file.graph.initializer)
    assert saved.bytes == saved.path.stat().st_size


def test_a_converted_model_and_one_that_was_pickled(tmp_path: Path) -> None:
    """A table without its function is a look-up."""
    converted = ts.quant.convert(prepared_around("hardswish"))
    x = torch.randn(5, 3, 8, 8)
    torch.save(converted, tmp_path / "converted.pt")
    again = torch.load(tmp_path / "converted.pt", weights_only=False)
    for model, name in ((converted, "a.onnx"), (again, "b.onnx")):
        saved = ts.deploy.save(model, x[:1], tmp_path / name)
        assert steps(in_onnxruntime(saved.path, x), converted, x).max() <= 1.5
    types = [{node.op_type for node in onnx.load(tmp_path / name).graph.node} for name in ("a.onnx", "b.onnx")]
    assert "HardSwish" in types[0] and "Gather" in types[1]


@pytest.mark.parametrize(
    ("opset", "message"),
    [
        (12, r"opset must be in \[13, 21\], got 12"),
        (22, r"opset must be in \[13, 21\], got 22"),
        (13, r"has an operator that came with opset 14, but opset 13 was asked for"),
    ],
)
def test_opsets_that_do_not_do(opset: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ts.deploy.save(around("hardswish"), torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_operator_is_refused_by_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ConvTranspose3d(3, 4, 1)).eval()
    with pytest.raises(ValueError, match="layer '0': aten::_convolution is written with padding as numbers"):
        ts.deploy.save(model, torch.randn(1, 3, 4, 4, 4), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_volumes(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d((1, 2, 2)), nn.AvgPool3d(2, 1, 1),
        nn.Conv3d(8, 4, 1, groups=2, bias=False), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 4, 9, 8)
    saved = ts.deploy.save(model, x[:1], tmp_path / "net.onnx")
    torch.testing.assert_close(in_onnxruntime(saved.path, x), model(x).detach(), rtol=1e-4, atol=1e-5)


#: What OpenVINO crashed on, failed on or computed otherwise in the form that is nearest at hand.
HARD_FOR_OPENVINO = {
    "zero padding": lambda x: torch.nn.functional.pad(x, (2, 1, 0, 1)),
    "uneven adaptive maximum": lambda x: torch.nn.functional.adaptive_max_pool2d(x, 3),
    "circular padding": lambda x: torch.nn.functional.pad(x, (2, 1, 0, 1), mode="circular"),
}


@pytest.mark.parametrize("name", HARD_FOR_OPENVINO)
def test_openvino_takes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Around(HARD_FOR_OPENVINO[name]).eval(), torch.randn(16, 3, 8, 8)
    model(x)
    prepared = ts.quant.prepare(model.train(), x, {"weight": {"bits": 7}})
    prepared(x)
    saved = ts.deploy.save(prepared.eval(), x[:1], tmp_path / "net.onnx")
    assert steps(ts.deploy.OpenVinoModel(saved.path)(x), ts.quant.convert(prepared), x).max() <= 1.5


def test_ceil_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 3, 1, ceil_mode=True)).eval()
    for sides in ((7, 8), (8, 8), (9, 13), (4, 4)):
        x = torch.randn(2, 3, *sides)
        saved = ts.deploy.save(model, x[:1], tmp_path / "net.onnx")
        torch.testing.assert_close(in_onnxruntime(saved.path, x), model(x))
