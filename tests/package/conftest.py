# SPDX-License-Identifier: BSD-3-Clause
"""The wheel, built once, and a venv that holds it."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from places import BIN, ROOT

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a command outside the checkout's Python path; returns what it printed, shows it where the command fails."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"

    def run_command(*command: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run_command


@pytest.fixture(scope="session")
def wheel(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-q", "-w", folder, ROOT)
    (found,) = folder.glob("torchslim-*.whl")
    return found


@pytest.fixture(scope="session")
def clean_venv(run: Run, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds the wheel and sees this venv's torch and numpy, but not the checkout."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        link = site / package.name
        if not package.name.startswith(("torchslim", "_")) and not link.exists():
            link.symlink_to(package)
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    return folder


@pytest.fixture(scope="session")
def cmake_prefix(run: Run, clean_venv: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a C++ project passes as CMAKE_PREFIX_PATH to use the installed wheel."""
    script = "import torch, torchslim; print(torchslim.cmake_prefix_path, torch.utils.cmake_prefix_path, sep=';')"
    return run(clean_venv / "bin/python", "-c", script, cwd=tmp_path_factory.mktemp("elsewhere")).strip()
