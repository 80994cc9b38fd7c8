# SPDX-License-Identifier: BSD-3-Clause
"""What a runtime lacks is refused by name before a phone has to."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from deploy_zoo import SIDE, depthwise, trained
from torch import Tensor, nn

import torchslim as ts

TOOL = Path(__file__).parents[3] / "tools/make_runtime_tables.py"


def scripted(module: nn.Module, path: Path) -> Path:
    """The module's file as torch writes it."""
    with pytest.warns(DeprecationWarning):
        torch.jit.trace(module, torch.rand(1, 3, 4, 4))._save_for_lite_interpreter(str(path))
    return path


class _Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ts.quant.fake_quantize(x, 0.1, 0, -128, 127)


class _Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("runtime", ts.deploy.known_runtimes())
@pytest.mark.parametrize("prepare", [True, False])
def test_files_of_torchslim_fit_every_runtime(prepare: bool, runtime: str, tmp_path: Path) -> None:
    model = trained(depthwise) if prepare else depthwise().eval()
    saved = ts.deploy.save(model, torch.zeros(1, 3, SIDE, SIDE), tmp_path / "net.ptl")
    report = ts.deploy.check(saved.path, runtime)
    assert report.ok and not report.problems
    assert report.bytecode_version == 8
    assert ("quantized::conv2d.new" in {op.name for op in report.operators}) == prepare
    assert all(op.calls > 0 for op in report.operators)
    with zipfile.ZipFile(report.path) as archive:
        sizes = {entry.filename.partition("/")[2]: entry.compress_size for entry in archive.infolist()}
    assert {record.name: record.bytes for record in report.records} == sizes
    assert str(report).startswith(f"{saved.path} fits ")


def test_an_operator_of_a_library_is_refused_by_name(tmp_path: Path) -> None:
    path = scripted(_Custom(), tmp_path / "custom.ptl")
    report = ts.deploy.check(path, runtime="1.13.1")
    assert [problem.op for problem in report.problems] == ["torchslim::fake_quantize"]
    assert "torch 1.13.1 has no operator of this name" in str(report)
    assert ts.deploy.check(path).ok  # here the library is loaded


def test_an_operator_that_came_later_is_refused_where_it_is_missing(tmp_path: Path) -> None:
    path = scripted(_Attention(), tmp_path / "attention.ptl")
    assert not ts.deploy.check(path, "1.13.1").ok
    assert ts.deploy.check(path, "2.1.0").ok


def test_an_unknown_runtime_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of current, 1\.13\.1, 2\.1\.0; got '1\.9'"):
        ts.deploy.check(tmp_path / "any.ptl", "1.9")
    with pytest.raises(FileNotFoundError):
        ts.deploy.check(tmp_path / "missing.ptl")


def test_any_torch_can_write_its_table(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", str(TOOL), str(tmp_path), "mine"], check=True)
    licence, note, bytecode, version, *rows = (tmp_path / "mine.inc").read_text().splitlines()
    assert licence.endswith("BSD-3-Clause") and note.startswith("// Written by")
    assert (bytecode, version) == ('R"(bytecode 4 9', "operators 10")
    assert rows.pop() == ')"'
    assert {"aten::relu 1 1", "aten::flatten.using_ints 3 1", "aten::add.out 4 3", "aten::format any 1"} <= set(rows)
