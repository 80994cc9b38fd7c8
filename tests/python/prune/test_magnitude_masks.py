# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.magnitude_masks import magnitude_masks as reference_masks
from torch import Tensor

import torchslim as ts
from torchslim import _C

pytestmark = pytest.mark.usefixtures("cpu_capability")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def assert_masks_equal(masks: list[Tensor], expected: list[Tensor]) -> None:
    assert len(masks) == len(expected)
    for mask, reference in zip(masks, expected, strict=True):
        assert mask.dtype == torch.bool
        assert torch.equal(mask, reference)


# Few distinct values make ties, zeros of both signs, infinities and subnormals common.
values = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1.0000001, 0.5, -2.0, 1e-40, -1e-40, 65504.0, float("inf"), -float("inf")]
)
tensors_of_values = st.lists(st.lists(values, max_size=40), max_size=5)


@settings(max_examples=60, deadline=None)
@given(tensors_of_values, st.floats(0, 1), st.sampled_from(DTYPES), st.sampled_from(["global", "layer"]))
def test_equal_to_a_stable_sort(lists: list[list[float]], sparsity: float, dtype: torch.dtype, scope: str) -> None:
    tensors = [torch.tensor(list_, dtype=dtype) for list_ in lists]
    assert_masks_equal(ts.prune.magnitude_masks(tensors, sparsity, scope), reference_masks(tensors, sparsity, scope))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("distinct", [1, 5, 1000, None])
def test_large_tensors_take_the_histogram_path(dtype: torch.dtype, scope: str, distinct: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=generator) for size in (70001, 0, 1, 40000, 33)]
    if distinct is not None:
        tensors = [(tensor * 1e6).to(torch.int64).remainder(distinct).float() for tensor in tensors]
    tensors = [tensor.to(dtype) for tensor in tensors]
    for sparsity in (0.0, 1e-5, 0.3, 0.5, 0.999999, 1.0):
        masks = ts.prune.magnitude_masks(tensors, sparsity, scope)
        groups = [tensors] if scope == "global" else [[tensor] for tensor in tensors]
        expected: list[Tensor] = []
        for group in groups:
            flat = torch.cat(group).abs()
            keep = torch.ones(len(flat), dtype=torch.bool)
            keep[flat.argsort(stable=True)[: round(len(flat) * sparsity)]] = False
            expected += keep.split([len(tensor) for tensor in group])
        assert_masks_equal(masks, expected)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("size", [0, 1, 3, 100_000])
def test_all_equal_weights_are_pruned_from_the_front(size: int, sparsity: float) -> None:
    pruned = round(size * sparsity)
    for value in (0.0, -3.0):
        (mask,) = ts.prune.magnitude_masks([torch.full((size,), value)], sparsity)
        assert not mask[:pruned].any()
        assert mask[pruned:].all()


def test_count_is_rounded_half_to_even() -> None:
    ones = torch.ones(5)
    assert [int((~ts.prune.magnitude_masks([ones], s)[0]).sum()) for s in (0.1, 0.3, 0.5, 0.7)] == [0, 2, 2, 4]


def test_no_tensors() -> None:
    assert ts.prune.magnitude_masks([], 0.5) == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_masks_for_any_number_of_threads(threads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(200_000, generator=generator).bfloat16() for _ in range(3)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = ts.prune.magnitude_masks(tensors, 0.7)
    torch.set_num_threads(threads)
    try:
        assert_masks_equal(ts.prune.magnitude_masks(tensors, 0.7), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [8, 48])
def test_strides_do_not_change_the_masks(size: int) -> None:
    weight = torch.randint(-3, 4, (size, 16, 3, 3)).float()
    wide = torch.zeros(size, 32, 3, 3)
    wide[:, ::2] = weight
    layouts = [
        weight.to(memory_format=torch.channels_last),
        wide[:, ::2],
        weight.transpose(0, 1).contiguous().transpose(0, 1),
    ]
    for sparsity in (0.2, 0.5):
        (expected,) = ts.prune.magnitude_masks([weight], sparsity)
        for layout in layouts:
            (mask,) = ts.prune.magnitude_masks([layout], sparsity)
            assert torch.equal(mask, expected)
            assert mask.stride() == layout.stride() or not layout.is_contiguous()
    expanded = torch.tensor([[1.0], [2.0]]).expand(2, 3)
    assert ts.prune.magnitude_masks([expanded], 0.5)[0].tolist() == [[False] * 3, [True] * 3]
    assert ts.prune.magnitude_masks([layouts[0]], 0.5)[0].is_contiguous(memory_format=torch.channels_last)


def test_tensors_are_unchanged_and_need_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.randn(10))
    before = weight.detach().clone()
    (mask,) = ts.prune.magnitude_masks([weight], 0.5)
    assert torch.equal(weight.detach(), before)
    assert not mask.requires_grad


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_sparsity_out_of_range(sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"magnitude_masks: sparsity must be in \[0, 1\], got"):
        ts.prune.magnitude_masks([torch.ones(2)], sparsity)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [10, 100_000])
def test_nan_is_refused_by_name(dtype: torch.dtype, size: int) -> None:
    good, bad = torch.randn(size).to(dtype), torch.randn(size).to(dtype)
    good[0] = float("inf")
    bad[7] = float("nan")
    with pytest.raises(ValueError, match=r"magnitude_masks: tensors\[1\] holds 1 NaN"):
        ts.prune.magnitude_masks([good, bad], 0.5)
    with pytest.raises(ValueError, match=r"`conv2` \(tensors\[1\]\) holds 1 NaN"):
        ts.prune.magnitude_masks([good, -bad], 0.5, "layer", names=["conv1", "conv2"])
    ts.prune.magnitude_masks([good], 0.5)


def test_other_bad_arguments() -> None:
    one = torch.ones(2)
    with pytest.raises(TypeError, match=r"tensors\[0\] must be float32, float64, bfloat16 or float16, got Long"):
        ts.prune.magnitude_masks([torch.ones(2, dtype=torch.int64)], 0.5)
    with pytest.raises(
        ValueError, match=r"ranks tensors of one dtype, but tensors\[1\] is Double and tensors\[0\] is Float"
    ):
        ts.prune.magnitude_masks([one, one.double()], 0.5)
    assert len(ts.prune.magnitude_masks([one, one.double()], 0.5, "layer")) == 2
    with pytest.raises(ValueError, match='scope must be "global" or "layer", got "channel"'):
        ts.prune.magnitude_masks([one], 0.5, "channel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 1 names, one a tensor, got 2"):
        ts.prune.magnitude_masks([one], 0.5, names=["a", "b"])
    with pytest.raises(ValueError, match="must be a dense tensor with data"):
        ts.prune.magnitude_masks([one.to("meta")], 0.5)


@pytest.mark.parametrize("size", [6, 100_000])
def test_tighten_keeps_pruned_what_was_pruned(size: int) -> None:
    weight = torch.zeros(size)  # more zeros than shall be pruned: the earlier mask decides, not the flat order
    previous = torch.ones(size, dtype=torch.bool)
    previous[-2:] = False
    (mask,) = _C.prune.tighten_masks([weight], [previous], 0.5, "global", [])
    assert int((~mask).sum()) == size // 2
    assert not mask[-2:].any()
    assert not mask[: size // 2 - 2].any()
    (same,) = _C.prune.tighten_masks([weight], [mask], 0.1, "global", [])
    assert torch.equal(same, mask)
