# SPDX-License-Identifier: BSD-3-Clause
"""The idx reader and the batches: what is wrong with a file is said with its name and what to do."""

import gzip
from pathlib import Path

import demo_job
import pytest
import torch

from fashion_mnist import data


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return demo_job.write_images(tmp_path / "data")


def test_reads_gzipped_and_plain_files_alike(directory: Path) -> None:
    train, test = data.load(directory)
    for path in directory.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain_train, plain_test = data.load(directory)
    assert (len(train), len(test)) == (160, 60)
    assert torch.equal(train.pixels, plain_train.pixels) and torch.equal(test.labels, plain_test.labels)


def test_missing_file_is_named_with_the_remedy(directory: Path) -> None:
    (directory / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataError, match=r"t10k-labels-idx1-ubyte.gz: no such file.*dataset-fashion-mnist.*--data"):
        data.load(directory)


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_truncated_gzip_is_named(directory: Path, keep: float) -> None:
    path = directory / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(data.DataError, match=r"train-images.*truncated or damaged"):
        data.load(directory)


@pytest.mark.parametrize(
    ("size", "message"), [(7, "the header alone has 16"), (1000, r"160×28×28 needs 125456 bytes, got 1000")]
)
def test_truncated_plain_file_says_what_it_needs(directory: Path, size: int, message: str) -> None:
    path = directory / "train-images-idx3-ubyte.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes())[:size])
    path.unlink()
    with pytest.raises(data.DataError, match=rf"train-images-idx3-ubyte: truncated.*{message}"):
        data.load(directory)


def test_longer_file_than_its_header_says_is_refused(directory: Path) -> None:
    path = directory / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"x"))
    with pytest.raises(data.DataError, match="longer than its header says: 160 needs 168 bytes, got 169"):
        data.load(directory)


def test_labels_in_the_place_of_images_are_refused(directory: Path) -> None:
    labels = (directory / "train-labels-idx1-ubyte.gz").read_bytes()
    (directory / "train-images-idx3-ubyte.gz").write_bytes(labels)
    with pytest.raises(data.DataError, match="magic 0x0803 expected, got 0x0801"):
        data.load(directory)


def test_file_that_is_not_gzip_is_refused(directory: Path) -> None:
    (directory / "train-images-idx3-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(data.DataError, match=r"train-images.*damaged gzip"):
        data.load(directory)


def test_counts_sizes_and_labels_must_fit(directory: Path) -> None:
    demo_job.write_idx(directory / "t10k-labels-idx1-ubyte.gz", torch.zeros(59, dtype=torch.uint8))
    with pytest.raises(data.DataError, match=r"60 images.*59 labels"):
        data.load(directory)
    demo_job.write_idx(directory / "t10k-labels-idx1-ubyte.gz", torch.full((60,), 10, dtype=torch.uint8))
    with pytest.raises(data.DataError, match=r"labels 0 to 9 expected, got \[10\]"):
        data.load(directory)
    demo_job.write_idx(directory / "t10k-images-idx3-ubyte.gz", torch.zeros(60, 32, 32, dtype=torch.uint8))
    with pytest.raises(data.DataError, match="28×28 expected, got 32×32"):
        data.load(directory)


def test_batches_hold_every_image_once_shifted_by_at_most_one_pixel(directory: Path) -> None:
    train, _ = data.load(directory)
    seen = []
    for batch in data.batches(train, 32, torch.Generator().manual_seed(0)):
        seen += batch.index.tolist()
        assert torch.equal(batch.labels, train.labels[batch.index])
        for image, index in zip(batch.inputs, batch.index, strict=True):
            assert any(torch.equal(image[0], shifted) for shifted in _all_shifts(train.pixels[index]))
    assert sorted(seen) == list(range(160))


def _all_shifts(pixels: torch.Tensor) -> list[torch.Tensor]:
    """The image moved by -1, 0 or 1 rows and columns into zeros."""
    framed = torch.zeros(30, 30)
    framed[1:29, 1:29] = pixels / 255
    return [framed[y : y + 28, x : x + 28] for y in range(3) for x in range(3)]
