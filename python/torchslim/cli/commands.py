# SPDX-License-Identifier: BSD-3-Clause
"""What the commands share."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # the class that add_subparsers returns
else:
    Commands = object


def positive(text: str) -> int:
    """Reads a number > 0 of the command line."""
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be > 0, got {number}")
    return number


def shape(text: str) -> list[int]:
    """Reads a shape such as `1,3,224,224` of the command line."""
    try:
        return [positive(size) for size in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,3,224,224, got {text!r}") from error
