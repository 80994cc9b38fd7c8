# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim check`: whether a runtime takes a file."""

import argparse

import torchslim
from torchslim.cli.commands import Commands


def add_parser(commands: Commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "check",
        help="whether a PyTorch Mobile runtime takes a .ptl file",
        description="Says whether a PyTorch Mobile runtime takes a .ptl file; exit code 1 where it does not.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--runtime", default="current", help="1.13.1, 2.1.0 or current, that of this LibTorch")
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    result = torchslim.deploy.check(options.file, options.runtime)
    print(result)
    return 1 if result.problems else 0
