# SPDX-License-Identifier: BSD-3-Clause
"""Other builds of torch to run `.ptl` files in: older ones, or those for other processors."""

import os
import pickle
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchslim.deploy.reference import InputRule

_WHO = "torchslim.deploy.TorchBuild"
_SCRIPT = Path(__file__).with_name("_torch_build_script.py")
_LAST_LINES = 8
_ANSWER: dict[str, Any] = {
    "torch": str,
    "machine": str,
    "input_rule": str,
    "outputs": Tensor,
    "cpu_ms_int8": float,
    "cpu_ms_float": float | None,
}


class BuildAnswer(NamedTuple):
    """What another build of torch made of a `.ptl` file."""

    torch: str  #: its version
    machine: str  #: the processor's kind, such as "aarch64"
    input_rule: InputRule  #: how it rounds images to codes
    outputs: Tensor  #: float32 (N, ...)
    cpu_ms_int8: float  #: of one image on one thread, user and system: the median of 10 passes
    cpu_ms_float: float | None  #: of the float file, where one was given


@dataclass(frozen=True)
class TorchBuild:
    """Another build of torch, as a command that runs a Python script with it.

    Args:
        command: program and arguments, such as `["tools/run_on_arm_torch.sh", ".venv/bin/python"]`; the path of a
            script that needs torch alone, and its argument, are put behind. It sees this machine's files.
        images: > 0, of how many images at most a report asks it; emulators are slow.
        timeout: > 0, seconds after which the command, and what it started, is killed.

    Raises:
        ValueError: an empty command, or a number that is not positive.
    """

    command: Sequence[str]
    images: int = 256
    timeout: float = 900.0

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if isinstance(self.command, str) or not self.command:
            raise ValueError(f"{_WHO}: command must be a list of program and arguments, got {self.command!r}")
        if self.images <= 0 or self.timeout <= 0:
            raise ValueError(f"{_WHO}: images and timeout must be > 0, got {self.images} and {self.timeout}")

    def check(self) -> None:
        """Raises FileNotFoundError where the command's program is not there."""
        if shutil.which(self.command[0]) is None:
            raise FileNotFoundError(f"{_WHO}: no such program: {self.command[0]}")

    def run(
        self,
        int8: str | os.PathLike[str],
        images: Tensor,
        *,
        float_file: str | os.PathLike[str] | None = None,
    ) -> BuildAnswer:
        """Run a `.ptl` file there with the engine QNNPACK on all of `images`, and time it on the first.

        Args:
            int8: path of the file.
            images: float32 (N, ...).
            float_file: path of a file to time beside it.

        Raises:
            FileNotFoundError: there is no such program.
            RuntimeError: the command fails, does not end in time, or gives no answer; with the last lines it printed.

        Example:
            >>> ts.deploy.TorchBuild([sys.executable]).run("student.ptl", images).input_rule
            'torch-2.13'
        """
        self.check()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            question = {
                "int8": os.path.abspath(int8),
                "float": None if float_file is None else os.path.abspath(float_file),
                "images": images.detach().contiguous(),
            }
            torch.save(question, folder / "question.pt")
            # A copy, beside which Python finds no other module of ours by the name of one of its own.
            script = shutil.copy(_SCRIPT, folder)
            ended = self._execute([*self.command, str(script), str(folder)], folder / "output.txt")
            answer = _read(folder / "answer.pt") if ended == "ended with code 0" else None
            if answer is None or answer.outputs.shape[:1] != images.shape[:1]:
                raise RuntimeError(
                    f"{_WHO}: {' '.join(self.command)} {ended} and gave no answer; the last that it printed:\n"
                    f"{_last_lines(folder / 'output.txt')}"
                )
            return answer

    def _execute(self, command: list[str], output: Path) -> str:
        """Runs the command to its end or its time, and returns how it ended."""
        with (
            open(output, "wb") as file,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            ) as process,
        ):
            try:
                return f"ended with code {process.wait(self.timeout)}"
            except subprocess.TimeoutExpired:
                return f"did not end within {self.timeout:g} s, was killed"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it started


def _read(path: Path) -> BuildAnswer | None:
    try:
        answer: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    fits = set(answer) == set(_ANSWER) and all(isinstance(answer[key], kind) for key, kind in _ANSWER.items())
    return BuildAnswer(**answer) if fits else None


def _last_lines(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return "\n".join(f"    {line[:300]}" for line in lines) or "    (nothing)"
