# SPDX-License-Identifier: BSD-3-Clause
"""Fashion-MNIST: idx files in, uint8 tensors in memory, batches of floats in [0, 1] out."""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SIDE = 28
_IMAGES_MAGIC, _LABELS_MAGIC = 0x0803, 0x0801


class DataError(ValueError):
    """A data file is missing, or is not what its name says."""


@dataclass(frozen=True)
class Images:
    """Images with their labels."""

    pixels: Tensor  #: (N, 28, 28) uint8
    labels: Tensor  #: (N,) int64, below 10

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def first(self, count: int | None) -> "Images":
        """The first `count` images; all of them if None."""
        return Images(self.pixels[:count], self.labels[:count])

    def inputs(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Images `start` to `stop` as the networks take them: (N, 1, 28, 28) float32, pixel / 255, nothing else."""
        return to_input(self.pixels[start:stop])


@dataclass(frozen=True)
class Batch:
    """One training batch; `index` says which images of the training set it holds."""

    inputs: Tensor
    labels: Tensor
    index: Tensor


def to_input(pixels: Tensor) -> Tensor:
    """(N, 28, 28) uint8 -> (N, 1, 28, 28) float32 in [0, 1]: on the grid of scale 1/255, every pixel is exact."""
    return pixels.unsqueeze(1).to(torch.float32).div_(255)


def default_directory() -> Path:
    """Where `make demo` unpacks the images if they are there, else where Debian's package puts them."""
    unpacked = Path("build/data/fashion-mnist")
    return unpacked if unpacked.is_dir() else Path("/usr/share/datasets/fashion-mnist")


def load(directory: Path) -> tuple[Images, Images]:
    """Reads the training and the test images from `directory`, gzipped or not.

    Raises:
        DataError: a file is missing, truncated or of another kind; says which, what was expected, and what to do.
    """
    return _load_split(directory, "train"), _load_split(directory, "t10k")


def batches(images: Images, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch in random order, each image moved by -1, 0 or 1 pixels both ways. No flip: it harms small networks."""
    padded = torch.nn.functional.pad(images.pixels, (1, 1, 1, 1)).flatten(1)
    windows = _shift_windows()
    for index in torch.randperm(len(images), generator=generator).split(size):
        shift = torch.randint(len(windows), (len(index),), generator=generator)
        pixels = padded[index].gather(1, windows[shift])
        yield Batch(to_input(pixels.view(-1, SIDE, SIDE)), images.labels[index], index)


def batches_per_epoch(images: Images, size: int) -> int:
    """How many batches one epoch has; the last may be smaller."""
    return math.ceil(len(images) / size)


def read_idx(path: Path, magic: int) -> Tensor:
    """Reads one idx file of unsigned bytes: a big-endian header (magic, one size per dimension), then the bytes."""
    content = _read_bytes(path)
    dimensions = magic & 0xFF
    header = 4 * (1 + dimensions)
    if len(content) < header:
        raise DataError(f"{path}: truncated, {len(content)} bytes, but the header alone has {header}. {_REMEDY}")
    found, *shape = (int.from_bytes(content[i : i + 4], "big") for i in range(0, header, 4))
    if found != magic:
        raise DataError(
            f"{path}: not the idx file expected here: magic {magic:#06x} expected, got {found:#06x}. {_REMEDY}"
        )
    expected = header + math.prod(shape)
    if len(content) != expected:
        size = "×".join(map(str, shape))
        kind = "truncated" if len(content) < expected else "longer than its header says"
        raise DataError(f"{path}: {kind}: {size} needs {expected} bytes, got {len(content)}. {_REMEDY}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)


_REMEDY = "Reinstall the Debian package dataset-fashion-mnist, or name another folder with --data."


def _load_split(directory: Path, split: str) -> Images:
    pixels_path = _find(directory, f"{split}-images-idx3-ubyte")
    labels_path = _find(directory, f"{split}-labels-idx1-ubyte")
    pixels, labels = read_idx(pixels_path, _IMAGES_MAGIC), read_idx(labels_path, _LABELS_MAGIC)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{pixels_path}: images of {SIDE}×{SIDE} expected, got {pixels.shape[1]}×{pixels.shape[2]}")
    if len(pixels) != len(labels):
        raise DataError(
            f"{pixels_path} has {len(pixels)} images, but {labels_path} has {len(labels)} labels. {_REMEDY}"
        )
    if len(labels) == 0 or int(labels.max()) >= len(CLASSES):
        raise DataError(f"{labels_path}: labels 0 to 9 expected, got {labels.unique().tolist()}. {_REMEDY}")
    return Images(pixels, labels.long())


def _find(directory: Path, name: str) -> Path:
    for path in (directory / f"{name}.gz", directory / name):
        if path.is_file():
            return path
    raise DataError(
        f"{directory / name}.gz: no such file (nor without .gz). "
        "Install the Debian package dataset-fashion-mnist, or name the folder with --data."
    )


def _read_bytes(path: Path) -> bytearray:
    try:
        content = path.read_bytes()
        return bytearray(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip file ({error}). {_REMEDY}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _shift_windows() -> Tensor:
    """(9, 784): for each shift, where the pixels of the shifted image lie in an image padded by one pixel."""
    row = torch.arange(SIDE)
    start = [(dy, dx) for dy in range(3) for dx in range(3)]
    return torch.stack([((row + dy)[:, None] * (SIDE + 2) + row + dx).flatten() for dy, dx in start])
