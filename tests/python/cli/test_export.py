# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import pytest
import torch

import torchslim as ts
from torchslim.cli import main

CODE = """
import torch
from neighbour import CHANNELS
import torchslim as ts

def plain():
    return torch.nn.Sequential(torch.nn.Conv2d(CHANNELS, 4, 3), torch.nn.ReLU())

def prepared():
    model = ts.quant.prepare(plain(), torch.zeros(1, 3, 8, 8))
    model(torch.randn(4, 3, 8, 8))
    return model, torch.zeros(1, 3, 8, 8)

def number():
    return 3

def broken():
    raise KeyError("weights")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("CHANNELS = 3\n")
    path = tmp_path / "my_model.py"
    path.write_text(CODE)
    return path


def test_a_function_of_a_file(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = code.with_name("net.ptl")
    assert main(["export", f"{code}:plain", str(out), "--example", "1,3,8,8"]) == 0
    assert capsys.readouterr().out == f"{out}: float, {out.stat().st_size:,} bytes\n"
    assert ts.deploy.load(out)(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 6, 6)


def test_it_may_return_its_example(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = code.with_name("net.onnx")
    assert main(["export", f"{code}:prepared", str(out), "--opset", "17"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: int8, ")
    assert ts.deploy.load(out).manifest["kind"] == "int8"


def test_a_function_of_an_installed_module(tmp_path: Path) -> None:
    arguments = ["export", "torchslim.models:mobilenet_v1", str(tmp_path / "net.ptl"), "--example", "1,3,32,32"]
    assert main(arguments) == 0


def test_a_pickled_module_needs_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "net.pt")
    arguments = ["export", str(tmp_path / "net.pt"), str(tmp_path / "net.ptl"), "--example", "1,3,8,8"]
    assert main(arguments) == 1
    assert "pass --unpickle" in capsys.readouterr().err
    assert main([*arguments, "--unpickle"]) == 0
    (tmp_path / "net.pt").write_bytes(b"nothing")
    assert main([*arguments, "--unpickle"]) == 1


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("plain", [], "gave no example batch; pass its shape"),
        ("number", ["--example", "1,3,8,8"], "gave a int, expected an nn.Module"),
        ("broken", [], "failed with KeyError: 'weights'"),
        ("missing", [], "failed with AttributeError"),
        ("plain", ["--example", "1,7,8,8"], "the model does not run a batch of shape (1, 7, 8, 8)"),
    ],
)
def test_what_is_wrong_is_one_line(
    code: Path, capsys: pytest.CaptureFixture[str], function: str, arguments: list[str], message: str
) -> None:
    assert main(["export", f"{code}:{function}", str(code.with_name("net.ptl")), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not code.with_name("net.ptl").exists()


def test_a_shape_that_is_none_is_usage(code: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", f"{code}:plain", "net.ptl", "--example", "1,x"])
