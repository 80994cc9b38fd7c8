# SPDX-License-Identifier: BSD-3-Clause
"""The examples of quantisation in their quick form, on synthetic images: what they print, write and share."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import demo_job
import pytest
import torch

import torchslim as ts
from fashion_mnist import float_network, seeds

TRAINING, AFTER = "120_quantise_fashion_mnist", "130_quantise_after_training"
CIRCUMSTANCES = {
    "size", "seeds", "float_epochs", "tune_epochs", "calibration_images", "adaround_iterations", "machine",
    "versions",
}  # fmt: skip


def run(name: str, folder: Path, *arguments: str) -> int:
    """Runs an example as its command line does."""
    common = ["--quick", "--jobs", "1", "--data", str(folder / "data"), "--out", str(folder / "out")]
    code: int = demo_job.load_script(name).main([*common, *arguments])
    return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both examples have run, one after the other, with two seeds."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("quantise")
    demo_job.write_images(folder / "data")
    for name in (TRAINING, AFTER):
        assert run(name, folder, "--seeds", "3", "4") == 0
    torch.set_num_threads(threads)
    return folder


def results(folder: Path, name: str) -> Any:
    return json.loads((folder / "out" / f"{name}.json").read_text())


def test_training_has_a_number_for_each_case_and_seed_and_equal_integers(folder: Path) -> None:
    found = results(folder, "training")
    cases = demo_job.load_script(TRAINING).CASES
    assert set(found) == CIRCUMSTANCES | {"accuracy", "integers_differ_by"}
    assert set(found["accuracy"]) == set(cases) and found["seeds"] == [3, 4]
    assert all(len(values) == 2 and all(0 <= v <= 100 for v in values) for values in found["accuracy"].values())
    assert found["integers_differ_by"] == {case: [0, 0] for case in cases if case != "float"}


def test_after_training_keeps_the_bytes_and_writes_the_pictures(folder: Path) -> None:
    found = results(folder, "after_training")
    assert set(found) == CIRCUMSTANCES | {"accuracy", "recovered", "plans"}
    assert set(found["recovered"]) == {"W4 nearest + norms", "W4 AdaRound", "W4 GPTQ", "W4 GPTQ + norms"}
    assert all(0 < plan["bytes"] <= plan["budget"] for plan in found["plans"]) and len(found["plans"]) == 2
    for picture in ("sensitivity", "mixed_precision"):
        assert (folder / "out" / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_float_networks_are_shared_and_a_second_run_gives_the_same(folder: Path, capsys: Any) -> None:
    before = results(folder, "training")
    assert run(TRAINING, folder, "--seeds", "3") == 0
    text = capsys.readouterr().out
    assert "seed 3: the float network of" in text and "training in float" not in text and "QUICK" in text
    after = results(folder, "training")
    for case, values in after["accuracy"].items():
        assert values == before["accuracy"][case][:1], case


def test_float_network_of_another_recipe_is_not_taken(folder: Path, tmp_path: Path) -> None:
    images, _ = float_network.images_of(float_network.QUICK, folder / "data")
    said: list[str] = []
    path = tmp_path / f"float_{float_network.QUICK.name}_seed3.pt"
    path.write_bytes((folder / "out" / path.name).read_bytes()[:1000])  # cut
    float_network.trained_float(float_network.QUICK, 3, images, tmp_path, said.append)
    float_network.trained_float(float_network.QUICK, 3, images.first(100), tmp_path, said.append)
    assert all("training in float" in line for line in said) and len(said) == 2


def test_what_the_search_allots_is_what_the_prepared_layers_have(folder: Path) -> None:
    script = demo_job.load_script(AFTER)
    images, _ = float_network.images_of(float_network.QUICK, folder / "data")
    model = float_network.trained_float(float_network.QUICK, 3, images, folder / "out", lambda text: None)
    calibration = script.Calibration.of(images, 64, seed=0)
    found = script.sensitivity(model, calibration)
    plan = ts.quant.search(found, bytes=script.bytes_of(found, 4))
    network = script.calibrated(model, plan.config, calibration)
    assert len(set(plan.bits.values())) > 1
    for layer, bits in plan.bits.items():
        quantizer = network.get_submodule(layer).weight_fake_quantize
        assert (8 if quantizer is None else quantizer.bits) == bits
        assert len(network.get_submodule(layer).folded()[0][0].unique()) <= 2**bits - 1


def test_missing_images_are_an_error_in_one_line(tmp_path: Path, capsys: Any) -> None:
    for name in (TRAINING, AFTER):
        assert run(name, tmp_path) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_the_page_is_made_of_the_results_and_holds_still(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(demo_job.EXAMPLES.parent / "docs")
    spec = importlib.util.spec_from_file_location("write_results", demo_job.EXAMPLES.parent / "docs/write_results.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    found = results(folder, "training"), results(folder, "after_training")
    text = writer.PAGE.read_text()
    page = writer.fill(text, found)
    assert page.count("<!-- begin ") == 5 and writer.fill(page, found) == page
    for accuracies in (each["accuracy"] for each in found):
        for case, values in accuracies.items():
            assert f"| {case} | {seeds.mean(values):.2f} % | {seeds.spread(values):.2f} |" in page, case
    assert all(f"{plan['bytes']:,} of {plan['budget']:,}" in page for plan in found[1]["plans"])


def test_seeds_in_processes_of_their_own_give_the_same(folder: Path, tmp_path: Path) -> None:
    """As the command line runs them; two copies of the float networks spare the training."""
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    script = demo_job.EXAMPLES / f"{AFTER}.py"
    command = [sys.executable, str(script), "--quick", "--jobs", "2", "--seeds", "3", "4"]
    environment = {**os.environ, "PYTHONPATH": str(Path(ts.__file__).parents[1])}
    run = subprocess.run(
        [*command, "--data", str(folder / "data"), "--out", str(out)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert json.loads((out / "after_training.json").read_text()) == results(folder, "after_training")


def test_table_of_known_numbers() -> None:
    lines = seeds.table({"float": [90.0, 92.0], "W4": [89.0, 90.0]}).splitlines()
    assert lines[1].split() == ["float", "91.00", "%", "1.41", "-"]
    assert lines[2].split() == ["W4", "89.50", "%", "0.71", "1.50"]
