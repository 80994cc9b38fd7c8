# SPDX-License-Identifier: BSD-3-Clause
import json
from pathlib import Path

import torch
from deploy_zoo import images, resnet, trained, vgg

import torchslim as ts

KEYS = {
    "accuracy": {"teacher", "student_alone", "float", "fake_quant", "int8"},
    "bytes": {"teacher_float", "student_float", "student_int8"},
    "sparsity": None,
    "latency_ms": {"float", "int8"},
    "agreement": {"top1", "max_steps", "reference_differences"},
    "seconds": None,
    "quick": None,
    "epochs_dropped": None,
    "seed": None,
    "machine": None,
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
