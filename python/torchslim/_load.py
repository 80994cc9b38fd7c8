# SPDX-License-Identifier: BSD-3-Clause
"""Loads the compiled library, or says in one sentence why it cannot."""

import importlib
import re
from pathlib import Path

import torch  # must be loaded first: the library links to LibTorch by name


def load_library() -> None:
    """Imports `torchslim._C` and checks that it was built for the torch that is running.

    Raises:
        ImportError: the library is not built, or was built for another minor version of torch.
    """
    built_with = _built_with_torch()
    running = torch.__version__.split("+")[0]
    if built_with is not None and _series(built_with) != _series(running):
        raise ImportError(
            f"torchslim was built for torch {_series(built_with)}, but torch {running} is installed: "
            f"pip install torch=={built_with}, or rebuild torchslim with "
            "`pip install --no-build-isolation .`"
        )
    try:
        importlib.import_module("torchslim._C")
    except ImportError as error:
        raise ImportError(
            f"torchslim: the compiled library could not be loaded ({error}): "
            "build it with `make build`, or install with `pip install --no-build-isolation .`"
        ) from error


def _built_with_torch() -> str | None:
    """The torch version noted beside the library when it was built, so that a mismatch is seen before linking fails."""
    note = Path(__file__).parent / "lib" / "built_with_torch.txt"
    return note.read_text().strip() if note.is_file() else None


def _series(version: str) -> str:
    match = re.match(r"\d+\.\d+", version)
    return match.group(0) if match else version
