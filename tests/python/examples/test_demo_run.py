# SPDX-License-Identifier: BSD-3-Clause
"""The whole job on a tiny scale: what it leaves, and that an interrupted run ends as if nothing had happened."""

import itertools
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import demo_job
import pytest
import torch

import torchslim as ts

KEYS = {
    "accuracy": {"teacher", "student_alone", "float", "fake_quant", "int8"},
    "bytes": {"teacher_float", "student_float", "student_int8"},
    "sparsity": None,
    "latency_ms": {"float", "int8"},
    "agreement": {"top1", "max_steps", "max_relative", "reference_differences"},
    "seconds": None,
    "quick": None,
    "epochs_dropped": None,
    "seed": None,
    "machine": None,
    "versions": None,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_job.write_images(tmp_path_factory.mktemp("demo") / "data")


@pytest.fixture(scope="module")
def whole(directory: Path) -> tuple[Path, Any, str]:
    """A run that nothing interrupts: its folder, report and output."""
    out = directory.parent / "whole"
    report, text = demo_job.run(directory, out)
    return out, report, text


def test_report_has_the_keys_that_others_read(whole: tuple[Path, Any, str]) -> None:
    out, report, _ = whole
    assert json.loads((out / "report.json").read_text()) == report
    assert set(report) == set(KEYS)
    for name, inner in KEYS.items():
        if inner is not None:
            assert set(report[name]) == inner
    assert all(set(times) == {"median", "p95"} for times in report["latency_ms"].values())
    assert report["quick"] is True and report["seed"] == 3 and report["epochs_dropped"] == 0


def test_int8_file_equals_the_reference_and_half_of_its_codes_are_zero(whole: tuple[Path, Any, str]) -> None:
    _, report, _ = whole
    assert report["agreement"]["reference_differences"] == 0
    assert report["sparsity"] >= 0.5
    assert report["bytes"]["student_int8"] < report["bytes"]["teacher_float"]


def test_sizes_in_the_report_are_those_of_the_files(whole: tuple[Path, Any, str]) -> None:
    out, report, _ = whole
    assert report["bytes"]["student_int8"] == (out / "student.ptl").stat().st_size
    assert report["bytes"]["teacher_float"] == (out / "teacher.ptl").stat().st_size
    assert not list(out.glob("*.tmp")) and not (out / "checkpoint.pt").exists()


def test_manifest_says_what_goes_in(whole: tuple[Path, Any, str]) -> None:
    manifest = ts.deploy.load(whole[0] / "student.ptl").manifest
    normalisation = manifest["input"]["normalisation"]
    assert (normalisation["mean"], normalisation["std"]) == ([0], [1]) and "[0, 1]" in normalisation["formula"]
    assert manifest["input_grid_uint8"]["zero_point"] == 0
    assert manifest["input_grid_uint8"]["scale"] == pytest.approx(1 / 255)
    assert manifest["labels"][9] == "Ankle boot"


def test_page_is_one_file_that_says_quick(whole: tuple[Path, Any, str]) -> None:
    page = (whole[0] / "report.html").read_text()
    assert "QUICK" in page and page.count("<svg") == 5
    assert "src=" not in page and "<link" not in page and "$" not in page


def test_one_line_an_epoch_without_a_terminal(whole: tuple[Path, Any, str]) -> None:
    lines = whole[2].splitlines()
    assert sum(line.startswith("teacher ") for line in lines) == 2
    assert sum(line.startswith("students ") for line in lines) == 3
    assert "QUICK" in whole[2]


# 5 steps an epoch, 2 epochs of the teacher, then 3 of the students: in the first epoch, in the teacher's second, in the
# students' first and last.
@pytest.mark.parametrize("steps", [3, 8, 12, 25])
def test_interrupted_run_ends_bit_for_bit_like_a_whole_one(
    directory: Path, whole: tuple[Path, Any, str], tmp_path: Path, steps: int
) -> None:
    report, _ = demo_job.run(directory, tmp_path, stop_after=steps)
    assert report is None and not list(tmp_path.glob("*.tmp"))
    resumed, text = demo_job.run(directory, tmp_path)
    assert ("Going on from" in text) == (steps > 5)
    for name in ("accuracy", "sparsity", "agreement", "bytes"):
        assert resumed[name] == whole[1][name]
    for name in ("teacher.ptl", "student.ptl"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_other_arguments_start_anew(directory: Path, tmp_path: Path) -> None:
    demo_job.run(directory, tmp_path, stop_after=8)
    _, text = demo_job.run(directory, tmp_path, stop_after=1, seed=4)
    assert "another seed: starting anew" in text


def test_damaged_checkpoint_starts_anew(directory: Path, tmp_path: Path) -> None:
    demo_job.run(directory, tmp_path, stop_after=8)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    _, text = demo_job.run(directory, tmp_path, stop_after=1)
    assert "cannot be read" in text and "starting anew" in text


def test_slow_machine_drops_epochs_and_says_so(directory: Path, tmp_path: Path) -> None:
    looks = itertools.count()
    report, text = demo_job.run(
        directory,
        tmp_path,
        demo_job.LONG,
        minutes=0.5,
        now=lambda: 0.5 * next(looks),  # each look takes half a second
    )
    assert 0 < report["epochs_dropped"] < 24
    assert "too slow" in text.lower() and "too slow" in (tmp_path / "report.html").read_text()


def test_ctrl_c_says_how_to_go_on_and_leaves_no_torn_file(directory: Path, tmp_path: Path) -> None:
    program = (
        # a shell's background job hands its children an ignored SIGINT
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import demo_job\n"
        "script = demo_job.load_script(); script.QUICK = demo_job.ENDLESS; sys.exit(script.main(sys.argv[1:]))"
    )
    arguments = ["--quick", "--threads=1", "--minutes=600", f"--data={directory}", f"--out={tmp_path}"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("teacher "):  # the first epoch is saved
            break
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in text and "same command goes on" in text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    torch.load(tmp_path / "checkpoint.pt", weights_only=True)


def test_full_disk_is_an_error_and_the_last_checkpoint_stays(directory: Path, tmp_path: Path) -> None:
    demo_job.run(directory, tmp_path, stop_after=8)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # a disk that takes half of it
    try:
        with pytest.raises(OSError, match=r"what was there before is whole.*checkpoint\.pt"):
            demo_job.run(directory, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_folder_that_cannot_be_made_is_an_error_in_one_line(directory: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    script = demo_job.load_script()
    assert script.main(["--quick", "--data", str(directory), "--out", str(tmp_path / "file" / "demo")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
