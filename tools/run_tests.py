# SPDX-License-Identifier: BSD-3-Clause
"""Runs every test, C++ then Python, and prints the count of both as the last line: `N passed, N failed`."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Runs a command, passing its output through as it comes. Returns its exit code and all it printed."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def count_catch(output: str) -> tuple[int, int]:
    """Sums the test cases of all Catch2 programs in ctest's output: (passed, failed)."""
    passed = sum(int(n) for n in re.findall(r"All tests passed \([\d,]+ assertions? in (\d+) test cases?\)", output))
    failed = 0
    for line in re.findall(r"test cases: .*", output):
        passed += sum(int(n) for n in re.findall(r"(\d+) passed", line))
        failed += sum(int(n) for n in re.findall(r"(\d+) failed", line))
    return passed, failed


def count_pytest(output: str) -> tuple[int, int]:
    """Reads pytest's closing line, behind which libraries may still warn: (passed, failed or in error)."""
    closing = next(
        (
            line
            for line in reversed(output.splitlines())
            if re.search(r"\d+ (passed|failed|errors?)\b.* in [\d.]+s", line)
        ),
        "",
    )
    passed = sum(int(n) for n in re.findall(r"(\d+) passed", closing))
    failed = sum(int(n) for n in re.findall(r"(\d+) (?:failed|errors?)", closing))
    return passed, failed


def main() -> int:
    """Returns 0 if every test passed and at least one ran in each language."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="CMake's build folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's idx files")
    options = parser.parse_args()
    env = dict(os.environ, TORCHSLIM_DATA=str(options.data.resolve()), TORCHSLIM_BUILD=str(options.build.resolve()))

    start = time.monotonic()
    ctest = Path(sys.executable).with_name("ctest")
    cpp_code, cpp_output = run([str(ctest), "--test-dir", str(options.build), "--verbose"], env)
    middle = time.monotonic()
    pytest = [sys.executable, "-m", "pytest", "--durations=10"]
    py_code, py_output = run([*pytest, "-n2", "tests/python"], env)
    package_code, package_output = run([*pytest, "tests/package"], env)  # its build has both cores to itself
    end = time.monotonic()

    cpp = count_catch(cpp_output)
    rooms, package = count_pytest(py_output), count_pytest(package_output)
    py = (rooms[0] + package[0], rooms[1] + package[1])
    print(f"C++: {cpp[0]} passed, {cpp[1]} failed in {middle - start:.0f} s")
    print(f"Python: {py[0]} passed, {py[1]} failed in {end - middle:.0f} s")
    print(f"{cpp[0] + py[0]} passed, {cpp[1] + py[1]} failed")
    return 0 if cpp_code == py_code == package_code == 0 and cpp[0] > 0 and rooms[0] > 0 and package[0] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
