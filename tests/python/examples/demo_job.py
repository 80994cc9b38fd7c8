# SPDX-License-Identifier: BSD-3-Clause
"""The demo on a tiny scale: synthetic images, tiny networks, the same code."""

import argparse
import dataclasses
import gzip
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
sys.path.insert(0, str(EXAMPLES))

from fashion_mnist.progress import Watch  # noqa: E402
from fashion_mnist.recipe import QUICK, Recipe  # noqa: E402

TINY = dataclasses.replace(
    QUICK,
    teacher={"depth": 6, "channels": (8, 16), "stem_stride": 2},
    student={"channels": (8, 16, 16), "strides": (2, 2, 1)},
    teacher_epochs=2,
    student_epochs=3,
    train_images=None,
    batch=32,
    latency_runs=5,
    floors={},
    largest_loss=100.0,
)

LONG = dataclasses.replace(
    TINY, teacher_epochs=12, student_epochs=12, rest_seconds=1
)  # long enough for the clock to look at
ENDLESS = dataclasses.replace(TINY, teacher_epochs=100_000)


def load_script(name: str = "110_distill_fashion_mnist") -> ModuleType:
    """The example as a module; its name begins with a digit, so it cannot be imported by name."""
    spec = importlib.util.spec_from_file_location(name.split("_", 1)[1], EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_images(directory: Path, train: int = 160, test: int = 60) -> Path:
    """Writes the four files: each class is a pattern of its own under noise."""
    directory.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    patterns = torch.randint(0, 200, (10, 28, 28), generator=generator)
    for split, count in (("train", train), ("t10k", test)):
        labels = torch.arange(count) % 10
        noise = torch.randint(0, 56, (count, 28, 28), generator=generator)
        pixels = (patterns[labels] + noise).to(torch.uint8)
        pixels[:, 14, 14] = 255  # as in the real images, every batch reaches white
        write_idx(directory / f"{split}-images-idx3-ubyte.gz", pixels)
        write_idx(directory / f"{split}-labels-idx1-ubyte.gz", labels.to(torch.uint8))
    return directory


def write_idx(path: Path, values: torch.Tensor) -> None:
    """Writes one gzipped idx file of bytes."""
    sizes = (0x0800 + values.dim(), *values.shape)
    content = b"".join(size.to_bytes(4, "big") for size in sizes) + values.numpy().tobytes()
    path.write_bytes(gzip.compress(content))


def options(data: Path, out: Path, **changes: Any) -> argparse.Namespace:
    """What the command line would give."""
    values = {"quick": True, "data": data, "out": out, "minutes": 60.0, "threads": 1, "seed": 3}
    return argparse.Namespace(**{**values, **changes})


class StopAfter(Watch):
    """Raises KeyboardInterrupt, as Ctrl-C does, at the given training step."""

    def __init__(self, steps: int | None = None) -> None:
        """`steps` None: never."""
        super().__init__(io.StringIO())
        self.left = steps

    def step(self, *arguments: Any) -> None:
        """Counts down."""
        super().step(*arguments)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def text(self) -> str:
        """All that was printed."""
        assert isinstance(self.stream, io.StringIO)
        return self.stream.getvalue()


def run(data: Path, out: Path, recipe: Recipe = TINY, stop_after: int | None = None, **changes: Any) -> tuple[Any, str]:
    """Runs the job; returns the report (None if it was interrupted) and what was printed."""
    script, display = load_script(), StopAfter(stop_after)
    now = changes.pop("now", None)
    try:
        report = script.run(recipe, options(data, out, **changes), display, **({"now": now} if now else {}))
    except KeyboardInterrupt:
        return None, display.text()
    return report, display.text()
