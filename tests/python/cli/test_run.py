# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_zoo import images
from PIL import Image

import torchslim as ts
from torchslim.cli import main


@pytest.mark.parametrize("name", ["int8.ptl", "int8.onnx", "int8.pte"])
def test_an_array_goes_in_as_it_is(files: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    x = images(3)
    np.save(tmp_path / "x.npy", x.numpy())
    arguments = ["--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy"), "--top", "2"]
    assert main(["run", str(files / name), *arguments]) == 0
    expected = ts.deploy.load(files / name)(x)
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected.numpy())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 * 2
    image, output, value = lines[1].split()
    best = int(expected[0].argmax())
    assert (image, output) == ("0", "abcdefghij"[best])
    assert float(value) == pytest.approx(float(expected[0].max()), rel=1e-4)


def test_one_image_without_a_batch(files: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(1)[0].numpy())
    assert main(["run", str(files / "int8.ptl"), "--input", str(tmp_path / "x.npy")]) == 0


def test_an_image_is_normalised_by_the_manifest(files: Path, tmp_path: Path) -> None:
    pixels = np.arange(20 * 20 * 3).reshape(20, 20, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    arguments = ["--input", str(tmp_path / "x.png"), "--output", str(tmp_path / "y.npy")]
    assert main(["run", str(files / "int8.ptl"), *arguments]) == 0
    x = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    assert np.array_equal(np.load(tmp_path / "y.npy"), ts.deploy.load(files / "int8.ptl")(x).numpy())


def test_without_a_normalisation_it_says_so(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    assert main(["run", str(files / "float.ptl"), "--input", str(tmp_path / "x.png")]) == 0
    assert "names no normalisation" in capsys.readouterr().err


def test_what_does_not_fit_is_one_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (21, 20)).save(tmp_path / "wide.png")
    np.save(tmp_path / "double.npy", np.zeros((1, 3, 20, 20)))
    np.save(tmp_path / "small.npy", np.zeros((1, 3, 20, 19), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.png").write_text("no image")
    for name, message in {
        "wide.png": "has 21 x 20 pixels, the file takes 20 x 20",
        "double.npy": "holds float64, expected float32",
        "small.npy": "takes images of shape (N, 3, 20, 20), got (1, 3, 20, 19)",
        "objects.npy": "is no array that numpy.save wrote",
        "text.png": "is no image that Pillow reads",
    }.items():
        assert main(["run", str(files / "int8.ptl"), "--input", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["run", str(files / "int8.ptl"), "--input", str(tmp_path / "small.npy"), "--output", "y.txt"]) == 1
    assert "must end in .npy" in capsys.readouterr().err
