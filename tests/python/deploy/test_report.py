# SPDX-License-Identifier: BSD-3-Clause
import json
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
    "agreement": {"top1", "max_steps", "reference_differences"},
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
    "runtimes": {"ptl"},
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
    table = ts.deploy.format_table(report)
    for part in ("onnxruntime", "openvino", "executorch", "on 2 threads of", "3.main.0"):
        assert part in table
    written = json.loads(ts.deploy.report_json(report))
    assert written == json.loads(json.dumps(report))


def test_what_cannot_be_reported_is_refused() -> None:
    with pytest.raises(ValueError, match="runtimes must be of ptl, onnx, openvino, pte, got 'tflite'"):
        ts.deploy.report(trained(vgg), images(2), torch.zeros(2, dtype=torch.int64), runtimes=("tflite",))
    prepared = ts.quant.prepare(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 20), torch.nn.Softmax(1)), images(1))
    prepared(images(8))
    with pytest.raises(ValueError, match="gives floats, and differences are counted in steps"):
        ts.deploy.report(prepared.eval(), images(2), torch.zeros(2, dtype=torch.int64))


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
