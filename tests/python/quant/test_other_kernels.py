# SPDX-License-Identifier: BSD-3-Clause
"""The tests of the ops again, with the kernels that this machine would not choose by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parent
OPS = (
    "binary_fake_quantize",
    "fake_quantize",
    "fake_quantize_group",
    "fake_quantize_passthrough",
    "fake_quantize_stochastic",
    "float_fake_quantize",
    "learned_fake_quantize",
    "level_fake_quantize",
    "observe_fake_quantize",
    "observers",
)


@pytest.mark.parametrize(
    "setting", ["TORCHSLIM_COMPOSITE=1", "TORCHSLIM_CPU_CAPABILITY=portable"], ids=["composite", "portable"]
)
def test_the_ops_pass_their_tests(setting: str) -> None:
    tests = [str(ROOM / f"test_{op}.py") for op in OPS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    name, value = setting.split("=")
    run = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
