# SPDX-License-Identifier: BSD-3-Clause
"""The wheel as a stranger meets it: clean venv, another folder, a C++ project that knows only the package."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from places import BIN, ROOT

Run = Callable[..., str]


def failure(*command: str | Path, cwd: Path) -> str:
    """Runs a command that must fail; returns its error output on one line."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, text=True, capture_output=True)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def build(run: Run, source: Path, build_folder: Path, prefix: str) -> None:
    """Configures and builds a C++ project."""
    run("cmake", "-G", "Ninja", "-S", source, "-B", build_folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build_folder)


def test_import_from_another_folder(run: Run, clean_venv: Path, tmp_path: Path) -> None:
    script = (
        "import torch, torchslim as ts; print(ts.__file__);"
        "print(ts.quant.fake_quantize(torch.tensor([0.26]), 0.5, 0, -128, 127).item())"
    )
    where, value = run(clean_venv / "bin/python", "-c", script, cwd=tmp_path).split()
    assert where.startswith(str(clean_venv))
    assert float(value) == 0.5


def test_cpp_project_trains_five_steps(run: Run, cmake_prefix: str, tmp_path: Path) -> None:
    source = tmp_path / "consumer"
    shutil.copytree(ROOT / "tests/package/consumer", source)
    build(run, source, tmp_path / "build", cmake_prefix)
    assert "step 4" in run(tmp_path / "build/train_five_steps")
    run(tmp_path / "build/ops_by_name")


def test_readme_python_loop_runs(run: Run, clean_venv: Path, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(script.splitlines()) <= 20
    run(clean_venv / "bin/python", "-c", script, cwd=tmp_path)
    assert (tmp_path / "student.ptl").stat().st_size > 0


def test_readme_cpp_loop_runs(run: Run, cmake_prefix: str, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"```cpp\n(.*?)```", readme, re.S)
    (cmake,) = re.findall(r"```cmake\n(.*?)```", readme, re.S)
    source = tmp_path / "app"
    source.mkdir()
    (source / "main.cpp").write_text(program)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(app LANGUAGES CXX)\nadd_executable(app main.cpp)\n" + cmake
    )
    build(run, source, tmp_path / "build", cmake_prefix)
    run(tmp_path / "build/app", cwd=tmp_path)
    assert (tmp_path / "student.ptl").stat().st_size > 0


def test_another_torch_series_is_refused_in_one_sentence(clean_venv: Path, tmp_path: Path) -> None:
    note = next(clean_venv.glob("lib/python*/site-packages/torchslim/lib/built_with_torch.txt"))
    built_with = note.read_text()
    note.write_text("2.9.1\n")
    try:
        message = failure(clean_venv / "bin/python", "-c", "import torchslim", cwd=tmp_path)
    finally:
        note.write_text(built_with)
    assert "ImportError: torchslim was built for torch 2.9, but torch 2.13" in message


def test_cmake_refuses_another_libtorch_in_one_sentence(clean_venv: Path, tmp_path: Path) -> None:
    config = tmp_path / "torch/share/cmake/Torch"
    config.mkdir(parents=True)
    header = tmp_path / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n#define TORCH_VERSION_PATCH 1\n")
    (config / "TorchConfig.cmake").write_text(
        "set(TORCH_FOUND TRUE)\nadd_library(torch INTERFACE IMPORTED)\n"
        f'set(TORCH_INSTALL_PREFIX "{tmp_path / "torch"}")\n'
    )
    package = next(clean_venv.glob("lib/python*/site-packages/torchslim/share/cmake"))
    prefix = f"-DCMAKE_PREFIX_PATH={package};{config.parent}"
    message = failure("cmake", "-S", ROOT / "tests/package/consumer", "-B", tmp_path / "b", prefix, cwd=tmp_path)
    assert "built for LibTorch 2.13" in message


def test_foreign_pybind11_headers_are_refused_in_one_sentence(tmp_path: Path) -> None:
    header = tmp_path / "torch/csrc/utils/pybind.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define PYBIND11_INTERNALS_VERSION 4\nnamespace pybind11 { class module_; }\n")
    message = failure(
        "g++", "-std=c++20", "-fsyntax-only", f"-I{tmp_path}", "-DTORCHSLIM_PYBIND_INTERNALS=11",
        "-x", "c++", ROOT / "csrc/bindings/bindings.h", cwd=tmp_path,
    )  # fmt: skip
    assert "another pybind11 than LibTorch's own comes first in the include path" in message
