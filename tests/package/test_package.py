# SPDX-License-Identifier: BSD-3-Clause
"""The wheel as a stranger meets it: clean venv, another folder, a C++ project that knows only the installed package."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(command: list[str | Path], **options: object) -> str:
    """Runs a command outside the checkout's Python path; returns what it printed, shows it where the command fails."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-q", "-w", folder, ROOT])
    (found,) = folder.glob("torchslim-*.whl")
    return found


@pytest.fixture(scope="session")
def clean_venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds the wheel and sees this venv's torch and numpy, but not the checkout."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    ours = Path(sysconfig.get_path("purelib"))
    for package in ours.iterdir():
        if package.name != "torchslim" and not package.name.startswith(("pip", "torchslim", "__")):
            (site / package.name).symlink_to(package)
    run([python, "-m", "pip", "install", "-q", "--no-deps", wheel])
    return folder


def test_import_from_another_folder(clean_venv: Path, tmp_path: Path) -> None:
    script = (
        "import torch, torchslim as ts; print(ts.__file__);"
        "print(ts.quant.fake_quantize(torch.tensor([0.26]), 0.5, 0, -128, 127).item())"
    )
    where, value = run([clean_venv / "bin/python", "-c", script], cwd=tmp_path).split()
    assert where.startswith(str(clean_venv))
    assert float(value) == 0.5


def test_cpp_project_trains_five_steps(clean_venv: Path, tmp_path: Path) -> None:
    prefix = run(
        [clean_venv / "bin/python", "-c",
         "import torch, torchslim; print(torchslim.cmake_prefix_path, torch.utils.cmake_prefix_path, sep=';')"],
        cwd=tmp_path,
    ).strip()  # fmt: skip
    source = tmp_path / "consumer"
    shutil.copytree(ROOT / "tests/package/consumer", source)
    run(["cmake", "-G", "Ninja", "-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"])
    run(["cmake", "--build", tmp_path / "build"])
    assert "step 4" in run([tmp_path / "build/train_five_steps"])
    run([tmp_path / "build/ops_by_name"])


def test_another_torch_series_is_refused_in_one_sentence(clean_venv: Path, tmp_path: Path) -> None:
    note = next(clean_venv.glob("lib/python*/site-packages/torchslim/lib/built_with_torch.txt"))
    built_with = note.read_text()
    note.write_text("2.9.1\n")
    try:
        script = "import torchslim"
        done = subprocess.run([clean_venv / "bin/python", "-c", script], cwd=tmp_path, text=True, capture_output=True)
    finally:
        note.write_text(built_with)
    assert done.returncode == 1
    assert "torchslim was built for torch 2.9, but torch 2.13" in done.stderr.splitlines()[-1]


def test_cmake_refuses_another_libtorch_in_one_sentence(clean_venv: Path, tmp_path: Path) -> None:
    torch_like = tmp_path / "torch/share/cmake/Torch"
    torch_like.mkdir(parents=True)
    header = tmp_path / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n#define TORCH_VERSION_PATCH 1\n")
    (torch_like / "TorchConfig.cmake").write_text(
        "set(TORCH_FOUND TRUE)\nadd_library(torch INTERFACE IMPORTED)\n"
        f'set(TORCH_INSTALL_PREFIX "{tmp_path / "torch"}")\n'
    )
    package = next(clean_venv.glob("lib/python*/site-packages/torchslim/share/cmake"))
    done = subprocess.run(
        ["cmake", "-S", ROOT / "tests/package/consumer", "-B", tmp_path / "build",
         f"-DCMAKE_PREFIX_PATH={package};{tmp_path / 'torch/share/cmake'}"],
        text=True, capture_output=True, env=dict(os.environ, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"),
    )  # fmt: skip
    assert done.returncode != 0
    assert "built for LibTorch 2.13" in " ".join(done.stderr.split())


def test_foreign_pybind11_headers_are_refused_in_one_sentence(tmp_path: Path) -> None:
    detail = tmp_path / "pybind11/detail"
    detail.mkdir(parents=True)
    (tmp_path / "torch/csrc/utils").mkdir(parents=True)
    (tmp_path / "torch/csrc/utils/pybind.h").write_text(
        "#pragma once\n#define PYBIND11_INTERNALS_VERSION 4\nnamespace pybind11 { class module_; }\n"
    )
    done = subprocess.run(
        ["g++", "-std=c++20", "-fsyntax-only", f"-I{tmp_path}", "-DTORCHSLIM_PYBIND_INTERNALS=11",
         "-x", "c++", str(ROOT / "csrc/bindings/bindings.h")],
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "another pybind11 than LibTorch's own comes first in the include path" in done.stderr
