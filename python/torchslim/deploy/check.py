# SPDX-License-Identifier: BSD-3-Clause
"""Whether a runtime of PyTorch Mobile loads a file."""

import os
from typing import TYPE_CHECKING

from torchslim import _C

if TYPE_CHECKING:

    class CheckProblem:
        """One reason why a runtime refuses a file."""

        op: str  #: name.overload, or "bytecode" or "operator version"
        why: str  #: what the runtime has and what the file needs

    class CheckedOperator:
        """An operator that a file calls."""

        name: str  #: with the overload behind a dot
        arguments: int | None  #: that the calls give; files of bytecode 5 and before do not say
        calls: int  #: places in the program that call it

    class CheckedRecord:
        """A part of the archive that a file is."""

        name: str  #: "bytecode.pkl", "data/0", ...
        bytes: int

    class CheckReport:
        """What `check` found; as text, a line that says yes or no, and one for each problem."""

        path: str
        runtime: str
        bytecode_version: int
        operator_version: int
        operators: list[CheckedOperator]  #: in alphabetical order
        records: list[CheckedRecord]  #: in the file's order
        problems: list[CheckProblem]  #: empty: the runtime loads the file
        ok: bool
else:
    CheckProblem = _C.deploy.CheckProblem
    CheckReport = _C.deploy.CheckReport
    CheckedOperator = _C.deploy.CheckedOperator
    CheckedRecord = _C.deploy.CheckedRecord


def known_runtimes() -> list[str]:
    """Return the runtimes that `check` knows, "current" first."""
    names: list[str] = _C.deploy.known_runtimes()
    return names


def check(path: str | os.PathLike[str], runtime: str = "current") -> CheckReport:
    """Compare a `.ptl` file with what a runtime of PyTorch Mobile loads; the file is not run.

    Compared are the bytecode's version, the operators' version, and for each operator that the file calls its name, its
    overload and the number of arguments.

    Args:
        path: a `.ptl` file, of torchslim or of torch.
        runtime: "1.13.1" or "2.1.0", tables that those builds of torch wrote themselves, all operators of a computer's
            build (an app that was built with chosen operators has fewer); or "current", the LibTorch of this process.

    Raises:
        ValueError: the runtime is unknown, or the file is cut short, changed, or not such a file.
        OSError: it cannot be read.

    Example:
        >>> print(ts.deploy.check("student.ptl", "1.13.1"))
    """
    report: CheckReport = _C.deploy.check(os.fspath(path), runtime)
    return report


__all__ = ["CheckProblem", "CheckReport", "CheckedOperator", "CheckedRecord", "check", "known_runtimes"]
