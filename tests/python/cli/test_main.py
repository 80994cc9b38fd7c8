# SPDX-License-Identifier: BSD-3-Clause
import os
import subprocess
import sys
from pathlib import Path

import pytest

import torchslim as ts
from torchslim.cli import main


def test_the_module_runs_as_a_program() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(ts.__file__).parents[1])}
    command = [sys.executable, "-m", "torchslim", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0
    for name in ("export", "check", "inspect", "run", "bench"):
        assert f"\n    {name} " in run.stdout


@pytest.mark.parametrize("arguments", [[], ["paint"], ["bench"], ["bench", "a.ptl", "--runs", "0"]])
def test_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: torchslim" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"torchslim {ts.__version__}\n"


@pytest.mark.parametrize("command", [["inspect"], ["bench"], ["run", "--input", "x.npy"]])
def test_a_missing_file_is_code_1_and_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command[0], "missing.onnx", *command[1:]]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"torchslim {command[0]}: ")
    assert "missing.onnx" in captured.err
