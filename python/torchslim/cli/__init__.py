# SPDX-License-Identifier: BSD-3-Clause
"""The command `torchslim`: write files of models, look into them, run and time them."""

import argparse
import sys

import torchslim
from torchslim.cli import bench, check, export, inspect, run

_COMMANDS = (export, check, inspect, run, bench)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 1 after one line on stderr that says what is wrong.

    Args:
        arguments: of the command line, without the program's name; None: those of this process.

    Raises:
        SystemExit: with code 2 where the arguments are not of the command's form, with 0 for `--help`.
    """
    parser = argparse.ArgumentParser(prog="torchslim", description=__doc__)
    parser.add_argument("--version", action="version", version=f"torchslim {torchslim.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.execute(options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"torchslim {options.command}: {_reason(error)}", file=sys.stderr)
        return 1
    return code


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split())
