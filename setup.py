# SPDX-License-Identifier: BSD-3-Clause
"""Builds the wheel with the CMake build that C++ users have: library, headers, CMake package and bindings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()


class BuildWithCMake(build_ext):
    """Configures, builds and installs into the package folder of the wheel."""

    def run(self) -> None:
        """Runs CMake; fails in one sentence where torch is missing."""
        try:
            import torch
        except ImportError as error:
            raise SystemExit(
                "torchslim: torch is not importable while building; run "
                "`pip install torch==2.13.0` and then `pip install --no-build-isolation .`"
            ) from error
        build = Path(os.environ.get("TORCHSLIM_WHEEL_BUILD", ROOT / "build" / "wheel"))
        package = Path(self.build_lib).resolve() / "torchslim"
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build),
            f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
            f"-DCMAKE_INSTALL_PREFIX={package}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            "-DTORCHSLIM_BUILD_PYTHON=ON",
        ]  # fmt: skip
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        if shutil.which("ccache"):
            configure += ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        subprocess.run(["cmake", "--install", str(build)], check=True)


class BuildPyAndLibrary(build_py):
    """The library is part of the package, so building the package builds it."""

    def run(self) -> None:
        """Copies the Python sources, then runs CMake."""
        super().run()
        self.run_command("build_ext")


class BinaryDistribution(Distribution):
    """Tells setuptools that the wheel is for this platform."""

    def has_ext_modules(self) -> bool:
        """There is no setuptools extension, but a compiled library."""
        return True


setup(
    packages=find_packages("python"),
    package_dir={"": "python"},
    package_data={"torchslim": ["py.typed"]},
    cmdclass={"build_ext": BuildWithCMake, "build_py": BuildPyAndLibrary},
    distclass=BinaryDistribution,
)
