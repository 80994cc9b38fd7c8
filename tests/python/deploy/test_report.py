# SPDX-License-Identifier: BSD-3-Clause
import json
import sys
from pathlib import Path

import pytest
import torch
from deploy_zoo import images, resnet, trained, vgg

import torchslim as ts

KEYS = {
    "accuracy": {"teacher", "student_alone", "float", "fake_quant", "int8", "reference"},
    "bytes": {"teacher_float", "student_float", "student_int8"},
    "sparsity": None,
    "latency_ms": {"float", "int8"},
    "agreement": {"top1", "max_steps", "max_relative", "reference_differences"},
    "seconds": None,
    "quick": None,
    "epochs_dropped": None,
    "seed": None,
    "machine": None,
    "parameters": None,
    "macs": None,
    "layers": None,
    "layer_images": None,
    "step_bins": None,
    "differences_in": None,
    "runtimes": {"ptl"},
    "torch_builds": set(),
    "threads": None,
    "engine": None,
    "versions": None,
}


def test_a_report_measures_the_file(tmp_path: Path) -> None:
    model, x, labels = trained(resnet), images(80, seed=3), torch.randint(10, (80,))
    report = ts.deploy.report(
        model, x, labels, float_model=resnet().eval(), teacher=vgg().eval(), directory=tmp_path, runs=5, seed=11
    )
    assert set(report) == set(KEYS)
    for key, inner in KEYS.items():
        assert inner is None or set(report[key]) == inner
    assert report["agreement"]["reference_differences"] == 0
    assert report["bytes"]["student_int8"] == (tmp_path / "student.ptl").stat().st_size
    assert report["bytes"]["teacher_float"] == (tmp_path / "teacher.ptl").stat().st_size
    assert report["latency_ms"]["int8"]["p95"] >= report["latency_ms"]["int8"]["median"] > 0
    with torch.no_grad():
        right = (model(x).argmax(1) == labels).double().mean().item()
    assert abs(report["accuracy"]["fake_quant"] - 100 * right) < 1e-9
    assert report["accuracy"]["reference"] == report["accuracy"]["int8"] == report["runtimes"]["ptl"]["accuracy"]
    assert report["runtimes"]["ptl"]["differing"] == report["runtimes"]["ptl"]["max_steps"] == 0
    times = report["runtimes"]["ptl"]["latency_ms"]
    assert times["ratio"] == times["int8"]["median"] / times["float"]["median"]
    assert report["parameters"] == sum(layer["parameters"] for layer in report["layers"])
    assert report["layer_images"] == 80


def test_each_runtime_is_held_to_the_reference(tmp_path: Path) -> None:
    done = []
    report = ts.deploy.report(
        trained(resnet),
        images(6),
        torch.randint(10, (6,)),
        float_model=resnet().eval(),
        directory=tmp_path,
        runs=2,
        threads=2,
        runtimes=ts.deploy.RUNTIMES,
        progress=lambda part, parts: done.append((part, parts)),
    )
    assert set(report["runtimes"]) == {"ptl", "onnx", "openvino", "pte"}
    assert done == [(i + 1, 6) for i in range(6)]
    for name in ("ptl", "onnx", "pte"):
        found = report["runtimes"][name]
        assert found["max_steps"] <= 3
        assert found["bytes"] == (tmp_path / f"student.{name}").stat().st_size
        for kind in ("int8", "float"):
            assert found["latency_ms"][kind]["p95"] >= found["latency_ms"][kind]["median"] > 0
        assert found["latency_ms"]["ratio"] > 0
    table = ts.deploy.format_table(report)
    for part in ("onnxruntime", "openvino", "executorch", "on 2 threads of", "3.main.0", "int8/float"):
        assert part in table
    written = json.loads(ts.deploy.report_json(report))
    assert written == json.loads(json.dumps(report))


def test_what_cannot_be_reported_is_refused() -> None:
    with pytest.raises(ValueError, match="runtimes must be of ptl, onnx, openvino, pte, got 'tflite'"):
        ts.deploy.report(trained(vgg), images(2), torch.zeros(2, dtype=torch.int64), runtimes=("tflite",))
    builds = {"none": ts.deploy.TorchBuild(["no-such-program"])}
    with pytest.raises(FileNotFoundError, match="no such program: no-such-program"):
        ts.deploy.report(trained(vgg), images(2), torch.zeros(2, dtype=torch.int64), torch_builds=builds)


def test_other_builds_of_torch_are_held_to_the_reference() -> None:
    """The interpreter that runs this test stands for another build."""
    model, x, labels = trained(resnet), images(20), torch.randint(10, (20,))
    builds = {"this one": ts.deploy.TorchBuild([sys.executable], images=12)}
    done = []
    report = ts.deploy.report(
        model,
        x,
        labels,
        float_model=resnet().eval(),
        runs=2,
        torch_builds=builds,
        progress=lambda part, parts: done.append((part, parts)),
    )
    assert done == [(i + 1, 4) for i in range(4)]
    found = report["torch_builds"]["this one"]
    assert (found["differing"], found["max_steps"], found["agreement"]) == (0, 0, 100)
    assert (found["images"], found["emulated"], found["max_relative"]) == (12, False, None)
    with torch.no_grad():
        right = (ts.quant.convert(model)(x[:12]).argmax(1) == labels[:12]).double().mean().item()
    assert abs(found["accuracy"] - 100 * right) < 1e-9
    assert found["cpu_ms"]["ratio"] == found["cpu_ms"]["int8"] / found["cpu_ms"]["float"] > 0
    table = ts.deploy.format_table(report)
    assert f"this one     {found['engine']}  torch-2.13" in table
    assert "a rough stand-in for instructions executed, and says nothing of a phone's latency" in table
    assert json.loads(ts.deploy.report_json(report)) == json.loads(json.dumps(report))


def test_a_build_that_fails_ends_the_report() -> None:
    builds = {"broken": ts.deploy.TorchBuild([sys.executable, "-c", "print('nonsense')"])}
    with pytest.raises(RuntimeError, match=r"(?s)torch build 'broken'.* code 0 and gave no answer.*nonsense"):
        ts.deploy.report(trained(vgg), images(2), torch.zeros(2, dtype=torch.int64), runs=1, torch_builds=builds)


def test_a_network_that_ends_in_floats_differs_relatively() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 20), torch.nn.Flatten(), torch.nn.Softmax(1)]
    plain = torch.nn.Sequential(*layers)
    prepared = ts.quant.prepare(torch.nn.Sequential(*layers), images(1))
    prepared(images(8))
    x, labels = images(16, seed=1), torch.randint(4, (16,))
    report = ts.deploy.report(
        prepared.eval(),
        x,
        labels,
        float_model=plain.eval(),
        runs=1,
        runtimes=("onnx",),
        torch_builds={"this one": ts.deploy.TorchBuild([sys.executable])},
    )
    assert report["differences_in"] == "relative"
    for found in (*report["runtimes"].values(), *report["torch_builds"].values()):
        assert found["differing"] is found["max_steps"] is None
        assert 0 <= found["max_relative"] < 0.05
    assert report["runtimes"]["ptl"]["max_relative"] < 1e-5
    assert report["runtimes"]["ptl"]["agreement"] == 100
    agreement = report["agreement"]
    assert agreement["max_steps"] is agreement["reference_differences"] is None
    assert agreement["max_relative"] < 0.05
    table = ts.deploy.format_table(report)
    assert "of the largest output apart" in table
    assert "largest difference" in table and "outputs differ" not in table
    assert json.loads(ts.deploy.report_json(report)) == json.loads(json.dumps(report))


def test_table_and_json_come_from_the_same_numbers() -> None:
    report = ts.deploy.report(trained(vgg), images(8), torch.randint(10, (8,)), runs=3)
    assert json.loads(ts.deploy.report_json(report, weights=1000))["accuracy"] == report["accuracy"]
    table = ts.deploy.format_table({**report, "sparsity": 0.5, "quick": True}, weights=1000)
    assert table.startswith("QUICK")
    assert "500 of 1,000 int8 weights are not zero" in table
    assert f"{report['bytes']['student_int8']:,}" in table
    assert "integer reference: 0 outputs differ" in table


def test_what_was_not_measured_is_a_dash_and_null() -> None:
    assert json.loads(ts.deploy.report_json({}))["accuracy"]["teacher"] is None
    assert "student, int8 file" in ts.deploy.format_table({})
    assert " core" in ts.deploy.machine_name()


def test_latency_is_ordered(tmp_path: Path) -> None:
    saved = ts.deploy.save(vgg().eval(), images(1), tmp_path / "net.ptl")
    latency = ts.deploy.measure_latency(ts.deploy.load(saved.path), images(1), runs=10, warm_up=1)
    assert latency.runs == 10
    assert latency.p95_ms >= latency.median_ms > 0
