# SPDX-License-Identifier: BSD-3-Clause
import copy

import pytest
import torch

import torchslim as ts

pytestmark = pytest.mark.usefixtures("cpu_capability")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0, 1, 37, 300_000])
def test_apply_masks_zeroes_whatever_was_there(dtype: torch.dtype, size: int) -> None:
    tensor = torch.randn(size).to(dtype)
    tensor[::3] = float("nan")
    tensor[1::3] = -float("inf")
    mask = torch.rand(size) < 0.5
    expected = torch.where(mask, tensor, torch.zeros((), dtype=dtype))
    second = copy.deepcopy(tensor)
    ts.prune.apply_masks_([tensor, second], [mask, mask])
    for result in (tensor, second):
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.nan_to_num(7.0), expected.nan_to_num(7.0))
        assert not result[~mask].signbit().any()


def test_apply_masks_with_other_strides() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    mask = torch.rand(4, 3, 2, 2) < 0.5
    expected = weight * mask
    ts.prune.apply_masks_([weight], [mask])
    assert torch.equal(weight, expected)


def test_apply_masks_below_autograd_but_seen_by_it() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    ts.prune.apply_masks_([weight], [torch.tensor([True, False, True])])
    assert weight.is_leaf
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_apply_masks_refuses_before_it_writes() -> None:
    good, bad = torch.ones(2), torch.ones(3)
    no = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"masks\[1\] must have the shape of its tensor \[3\], got \[2\]"):
        ts.prune.apply_masks_([good, bad], [no, no])
    with pytest.raises(TypeError, match=r"masks\[1\] must be bool, got Float"):
        ts.prune.apply_masks_([good, good], [no, no.float()])
    with pytest.raises(ValueError, match="expected one mask a tensor, got 1 masks for 2 tensors"):
        ts.prune.apply_masks_([good, good], [no])
    assert good.tolist() == [1.0, 1.0]
