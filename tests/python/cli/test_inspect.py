# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import pytest

from torchslim.cli import main


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


def test_an_int8_ptl_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(files / "int8.ptl", capsys)
    size = (files / "int8.ptl").stat().st_size
    assert f"int8.ptl: int8, {size:,} bytes, runs in PyTorch lite" in text
    assert "input: N x 3 x 20 x 20, (pixel - [0.5, 0.5, 0.5]) / [0.25, 0.25, 0.25]" in text
    assert "6  quantized::conv2d.new" in text
    assert "2  quantized::add" in text
    assert "labels: a, b, c" in text


@pytest.mark.parametrize("name", ["int8.ptl", "float.ptl", "int8.onnx"])
def test_bytes_add_up_to_the_file(files: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(files / name, capsys).partition("\nbytes\n")[2].splitlines()
    counted = sum(int(line.split()[0].replace(",", "")) for line in lines)
    assert counted == (files / name).stat().st_size


def test_an_onnx_file_has_layers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(files / "int8.onnx", capsys)
    assert "6  Conv\n" in text
    assert "  4.side.0\n" in text
    assert "zero point" in text


def test_a_pte_file_has_its_size(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(files / "int8.pte", capsys)
    assert f"no manifest, {(files / 'int8.pte').stat().st_size:,} bytes, runs in executorch" in text
    assert "input: 1 x 3 x 20 x 20" in text


def test_a_file_cut_short_is_one_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.ptl").write_bytes((files / "int8.ptl").read_bytes()[:-50])
    assert main(["inspect", str(tmp_path / "cut.ptl")]) == 1
    assert "not a whole PyTorch Mobile file" in capsys.readouterr().err
