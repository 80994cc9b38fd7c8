# SPDX-License-Identifier: BSD-3-Clause
import re
from pathlib import Path

import pytest
import torch

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


def byte_rows(text: str) -> dict[str, int]:
    """What stands behind the bytes of each row."""
    rows = [line.split(maxsplit=1) for line in text.partition("\nbytes\n")[2].splitlines()]
    return {" ".join(name.split()): int(number.replace(",", "")) for number, name in rows}


@pytest.mark.parametrize("name", ["int8.ptl", "float.ptl", "int8.onnx", "float.onnx", "int8.pte", "float.pte"])
def test_bytes_add_up_to_the_file(files: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = byte_rows(shown(files / name, capsys))
    assert sum(rows.values()) == (files / name).stat().st_size
    assert all(number > 0 for number in rows.values())
    assert sum(" x " in row for row in rows) == 7  # layers with a weight
    (first,) = (row for row in rows if row.startswith("0 "))
    assert first.endswith(" 16 x 3 x 3 x 3")


def test_bytes_of_a_layer_are_its_codes_and_channels(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert byte_rows(shown(files / "int8.ptl", capsys))["4.side.0 conv2d 24 x 16 x 1 x 1"] == 24 * 16 + 12 * 24
    assert byte_rows(shown(files / "float.ptl", capsys))["4.side.0 conv2d 24 x 16 x 1 x 1"] == 4 * (24 * 16 + 24)


def test_an_int8_ptl_file_stays_within_the_bound_that_is_shown(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = (line for line in shown(files / "int8.ptl", capsys).splitlines() if line.startswith("bound: "))
    codes, channels, records, rest, total = (
        int(number.replace(",", ""))
        for number in re.findall(r"[\d,]{2,}", line.replace("24 x", "").replace("400 x", ""))
    )
    assert codes + 24 * channels + 400 * records + rest == total > (files / "int8.ptl").stat().st_size
    assert "bound: " not in shown(files / "float.ptl", capsys)


def test_a_ptl_file_of_others_has_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 4)).eval())
    scripted._save_for_lite_interpreter(str(tmp_path / "other.ptl"))
    rows = byte_rows(shown(tmp_path / "other.ptl", capsys))
    assert sum(rows.values()) == (tmp_path / "other.ptl").stat().st_size
    assert any(row.endswith("bytecode.pkl") for row in rows)


def test_an_onnx_file_has_layers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(files / "int8.onnx", capsys)
    assert "6  Conv\n" in text
    assert byte_rows(text)["4.side.0 Conv 24 x 16 x 1 x 1"] > 24 * 16
    assert "zero point" in text


def test_a_pte_file_has_a_manifest(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(files / "int8.pte", capsys)
    assert "input: 1 x 3 x 20 x 20, (pixel - [0.5, 0.5, 0.5]) / [0.25, 0.25, 0.25]" in text
    assert "labels: a, b, c" in text
    assert f"int8, {(files / 'int8.pte').stat().st_size:,} bytes, runs in executorch" in text


def test_a_file_cut_short_is_one_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.ptl").write_bytes((files / "int8.ptl").read_bytes()[:-50])
    assert main(["inspect", str(tmp_path / "cut.ptl")]) == 1
    assert "not a whole PyTorch Mobile file" in capsys.readouterr().err
