# SPDX-License-Identifier: BSD-3-Clause
"""Weight files: exchange with the public safetensors package, checksums, refusals, an old file kept."""

import json
import resource
import struct
import zlib
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from torchslim.models import load_tensors, load_weights, mobilenet_v1, save_tensors, save_weights

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def tensors_of_every_type() -> dict[str, torch.Tensor]:
    tensors = {str(dtype): torch.randint(0, 2, (2, 3)).to(dtype) for dtype in DTYPES}
    return tensors | {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), 'quo"te\n é': torch.ones(1)}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def student() -> nn.Module:
    return mobilenet_v1(10, in_channels=1, channels=(8, 16), strides=(2, 1))


def test_the_public_package_reads_our_file(tmp_path: Path) -> None:
    expected = tensors_of_every_type()
    save_tensors(tmp_path / "a", expected, {"epoch": "5"})
    assert_same(safetensors.torch.load_file(tmp_path / "a"), expected)
    with safetensors.safe_open(tmp_path / "a", framework="pt") as file:
        assert file.metadata()["epoch"] == "5"


def test_we_read_the_public_packages_file(tmp_path: Path) -> None:
    expected = tensors_of_every_type()
    safetensors.torch.save_file(expected, tmp_path / "a", {"epoch": "5"})
    tensors, metadata = load_tensors(tmp_path / "a")
    assert_same(tensors, expected)
    assert metadata == {"epoch": "5"}


def test_checksums_are_zlibs_over_type_shape_and_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"x": torch.tensor([[1, 2, 3]], dtype=torch.int16)})
    content = (tmp_path / "a").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert metadata["crc32.x"] == f"{zlib.crc32(b'I16[1,3]' + content[8 + length :]):08x}"


def test_a_model_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    source, copy = student(), student()
    source(torch.randn(2, 1, 8, 8))
    save_weights(source, tmp_path / "a")
    load_weights(copy, tmp_path / "a")
    assert_same(copy.state_dict(), source.state_dict())
    assert copy.get_buffer("features.0.bn.num_batches_tracked").item() == 1


def test_a_damaged_or_wrong_file_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = student()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(student(), tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="checksum of tensor"):
        load_weights(model, tmp_path / "a")
    save_weights(mobilenet_v1(7, in_channels=1, channels=(8, 16), strides=(2, 1)), tmp_path / "a")
    with pytest.raises(ValueError, match=r"`classifier.weight` is Float \[7, 16\], expected Float \[10, 16\]"):
        load_weights(model, tmp_path / "a")
    assert_same(model.state_dict(), before)


def test_system_errors_are_os_errors_and_an_old_file_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cannot read"):
        load_tensors(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="cannot write"):
        save_tensors(tmp_path / "missing" / "a", {})
    save_tensors(tmp_path / "a", {"x": torch.zeros(1)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_tensors(tmp_path / "a", {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(load_tensors(tmp_path / "a")[0], {"x": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_state_that_is_no_tensor_is_refused_by_name(tmp_path: Path) -> None:
    class Extra(nn.Module):
        def get_extra_state(self) -> object:
            return {"step": 1}

    with pytest.raises(ValueError, match="`_extra_state` of the model's state is a dict"):
        save_weights(Extra(), tmp_path / "a")
