# SPDX-License-Identifier: BSD-3-Clause
"""Damaged `.ptl` files: refused before LibTorch sees them, without a crash and without a large allocation."""

import io
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import torchslim as ts

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
IMAGES = torch.linspace(-1, 1, 32).view(2, 1, 4, 4)


def rewritten(source: Path, **changes: bytes) -> dict[str, bytes]:
    """The records of an archive, some of them others."""
    with zipfile.ZipFile(source) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    for name, content in changes.items():
        key = f"archive/{name.replace('_pkl', '.pkl')}"
        assert key in records
        records[key] = content
    return records


def zipped(records: dict[str, bytes], compress: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in records.items():
            method = zipfile.ZIP_DEFLATED if name.endswith(compress) and compress else zipfile.ZIP_STORED
            archive.writestr(name, content, method)
    return buffer.getvalue()


def refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ts.deploy.load(path)


@pytest.mark.parametrize("name", ["int8", "float"])
def test_a_byte_that_was_changed(name: str, tmp_path: Path) -> None:
    """Refused, or of no effect: a time stamp, the text that another runtime compresses."""
    content = (CORPUS / f"{name}.ptl").read_bytes()
    expected = ts.deploy.load(CORPUS / f"{name}.ptl")(IMAGES)
    path, loaded = tmp_path / "net.ptl", 0
    places = range(0, len(content), 3)
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            model = ts.deploy.load(path)
        except ValueError:
            continue
        loaded += 1
        assert torch.equal(model(IMAGES), expected), place
    assert loaded < 0.4 * len(places)


@pytest.mark.parametrize("name", ["int8", "float"])
def test_cut_anywhere(name: str, tmp_path: Path) -> None:
    content = (CORPUS / f"{name}.ptl").read_bytes()
    for size in range(0, len(content), 37):
        refused(tmp_path / "net.ptl", content[:size], "is not a whole PyTorch Mobile file: ")


def test_the_corpus_loads_when_zipped_anew(tmp_path: Path) -> None:
    """What the tests below change is why they fail."""
    (tmp_path / "net.ptl").write_bytes(zipped(rewritten(CORPUS / "int8.ptl")))
    expected = ts.deploy.load(CORPUS / "int8.ptl")(IMAGES)
    assert torch.equal(ts.deploy.load(tmp_path / "net.ptl")(IMAGES), expected)


def test_a_zip_bomb(tmp_path: Path) -> None:
    records = rewritten(CORPUS / "int8.ptl", bytecode_pkl=bytes(200_000_000))
    content = zipped(records, compress=("bytecode.pkl",))
    del records
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "net.ptl", content, r"record archive/bytecode.pkl is compressed")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_record_with_two_sizes(tmp_path: Path) -> None:
    content = bytearray((CORPUS / "int8.ptl").read_bytes())
    place = content.rindex(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", 1 << 30)
    refused(tmp_path / "net.ptl", bytes(content), "has two sizes")


def test_a_record_that_is_there_twice(tmp_path: Path) -> None:
    buffer = io.BytesIO(zipped(rewritten(CORPUS / "int8.ptl")))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data/1", b"other weights")
    refused(tmp_path / "net.ptl", buffer.getvalue(), "record archive/data/1 is there twice")


@pytest.mark.parametrize("record", ["archive/bytecode.pkl", "archive/data.pkl", "archive/constants.pkl"])
def test_a_record_that_is_missing(record: str, tmp_path: Path) -> None:
    records = rewritten(CORPUS / "float.ptl")
    del records[record]
    refused(tmp_path / "net.ptl", zipped(records), f"it has no record {record.removeprefix('archive/')}")


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"", "it is cut short"),
        (b"\x80\x02K\x08.", "bytecode.pkl is not what the lite interpreter reads"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "it is cut short"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "bytecode.pkl is not what the lite interpreter reads"),
        (b"\x80\x02" + b")" + b"\x85" * 100_000 + b".", "it nests too deep"),
        (b"\x80\x02](" + b"K\x01" * 10_000 + b"e" + b"(K\x01e" * 10_000 + b".", "its lists grow too often"),
        (b"\x80\x02q\x01.", "a value is missing"),
        (b"\x80\x02h\x01.", "it recalls what it never had"),
        (b"\x80\x02t.", "a mark is missing"),
        (b"\x80\x04K\x01.", "it has another protocol"),
        (b"\x80\x02K\x01K\x02.", "it goes on behind its end"),
        (b"\x80\x02ios\nsystem\n.", "it holds an opcode that LibTorch does not write"),
    ],
)
def test_programs_that_are_none(pickle: bytes, message: str, tmp_path: Path) -> None:
    refused(tmp_path / "net.ptl", zipped(rewritten(CORPUS / "float.ptl", bytecode_pkl=pickle)), message)


def test_an_operator_that_does_not_exist(tmp_path: Path) -> None:
    records = rewritten(CORPUS / "float.ptl")
    bytecode = records["archive/bytecode.pkl"].replace(b"aten::linear", b"aten::lineal")
    content = zipped(rewritten(CORPUS / "float.ptl", bytecode_pkl=bytecode))
    refused(tmp_path / "net.ptl", content, "calls the operator aten::lineal, which this LibTorch does not have")


def test_what_is_no_file(tmp_path: Path) -> None:
    folder, zeros = tmp_path / "folder.ptl", tmp_path / "zeros.ptl"
    folder.mkdir()
    zeros.symlink_to("/dev/zero")
    with pytest.raises(IsADirectoryError, match=r"folder\.ptl is no file"):
        ts.deploy.load(folder)
    with pytest.raises(OSError, match=r"zeros\.ptl is no file"):
        ts.deploy.load(zeros)
    with pytest.raises(FileNotFoundError):
        ts.deploy.load(tmp_path / "none.ptl")
