# SPDX-License-Identifier: BSD-3-Clause
import re
from pathlib import Path

import pytest

from torchslim.cli import main


def test_two_files_are_compared(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = str(files / "float.ptl"), str(files / "int8.ptl")
    assert main(["bench", first, second, "--runs", "5", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    medians = [float(re.findall(r"([\d.]+) ms", line)[0]) for line in lines[1:3]]
    assert "ATen" in lines[1]
    assert "QNNPACK" in lines[2]
    ratio = float(re.findall(r"takes ([\d.]+) x", lines[3])[0])
    assert ratio == pytest.approx(medians[1] / medians[0], rel=0.05, abs=0.02)
    assert lines[4].startswith("5 runs, threads: 2; ")
    assert "nothing about a phone" in lines[4]


def test_one_or_three_files_have_no_ratio(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *(str(files / name) for name in ("int8.ptl", "int8.onnx", "int8.pte")), "--runs", "3"]) == 0
    text = capsys.readouterr().out
    assert "onnxruntime" in text
    assert "executorch" in text
    assert "the time of" not in text
