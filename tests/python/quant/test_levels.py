# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch

import torchslim as ts

#: Magnitudes of the authors' code (github.com/yhhhli/APoT_Quantization), written out from the exponents in its loops.
AUTHORS = {
    2: [[1, 2, 3]],
    3: [[1, 2, 4], [3]],
    4: [[1, 3, 5], [2, 4, 6]],
    5: [[1, 3, 6], [2, 4, 7], [5]],
    6: [[1, 4, 7], [2, 5, 8], [3, 6, 9]],
}


@pytest.mark.parametrize("magnitude_bits", AUTHORS)
@pytest.mark.parametrize("is_signed", [False, True])
def test_apot_levels_are_the_authors(magnitude_bits: int, is_signed: bool) -> None:
    values = {0.0}
    for exponents in AUTHORS[magnitude_bits]:
        values = {value + power for value in values for power in (0.0, *(2.0**-e for e in exponents))}
    expected = torch.tensor(sorted(values)) / max(values)
    if is_signed:
        expected = torch.cat([-expected.flip(0), expected[1:]])
    levels = ts.quant.apot_levels(magnitude_bits + is_signed, is_signed)
    assert levels.dtype == torch.float32
    torch.testing.assert_close(levels, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("build", [ts.quant.apot_levels, ts.quant.power_of_two_levels])
def test_tables_ascend_to_one_and_have_a_level_for_each_code(build, is_signed: bool) -> None:  # noqa: ANN001
    for bits in range(1 + is_signed, 8 + is_signed):
        levels = build(bits, is_signed)
        assert len(levels) == 2**bits - is_signed
        assert (levels.diff() > 0).all() and levels[-1] == 1 and (levels == 0).sum() == 1
        assert torch.equal(levels, -levels.flip(0)) or not is_signed
        ts.quant.level_fake_quantize(torch.randn(10), levels, 1.0)  # the op takes it


def test_power_of_two_levels_are_powers_of_two() -> None:
    levels = ts.quant.power_of_two_levels(4, is_signed=False)
    assert levels.tolist() == [0.0, *(2.0**-i for i in reversed(range(15)))]


@pytest.mark.parametrize(("bits", "is_signed"), [(0, False), (8, False), (1, True), (9, True), (-3, True)])
def test_other_bits_are_refused(bits: int, is_signed: bool) -> None:
    for build, name in ((ts.quant.apot_levels, "apot"), (ts.quant.power_of_two_levels, "power_of_two")):
        with pytest.raises(ValueError, match=rf"torchslim::{name}_levels: bits must be in .* sign, got {bits}$"):
            build(bits, is_signed)


def lloyd(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """One iteration, with the matrix of distances."""
    nearest = (x.double().flatten().unsqueeze(1) - levels.double()).abs().argmin(1)
    return torch.stack([x.double().flatten()[nearest == i].mean() for i in range(len(levels))])


@pytest.mark.parametrize("k", [1, 2, 5, 16, 100])
def test_kmeans_ends_where_nothing_moves(k: int) -> None:
    x = torch.randn(40, 50, generator=torch.Generator().manual_seed(k))
    levels = ts.quant.kmeans_levels(x, k, iterations=1000)
    assert len(levels) == k and (levels.diff() > 0).all()
    torch.testing.assert_close(levels.double(), lloyd(x, levels), rtol=1e-6, atol=1e-6)
    assert torch.equal(levels, ts.quant.kmeans_levels(x.t().flip(0), k, iterations=1000))  # the order does not matter


def test_kmeans_does_better_than_even_levels() -> None:
    x = torch.randn(10000, generator=torch.Generator().manual_seed(0))
    even = torch.linspace(float(x.min()), float(x.max()), 16)
    error = [
        (ts.quant.level_fake_quantize(x, levels, 1.0) - x).square().mean()
        for levels in (ts.quant.kmeans_levels(x, 16), even)
    ]
    assert error[0] < 0.7 * error[1]


def test_kmeans_of_few_values_gives_the_values() -> None:
    x = torch.tensor([3.0, -1.0, 3.0, 3.0, 0.0, -1.0])
    assert ts.quant.kmeans_levels(x, 3).tolist() == [-1, 0, 3]
    assert ts.quant.kmeans_levels(x, 7).tolist() == [-1, 0, 3]
    assert ts.quant.kmeans_levels(x, 3, iterations=0).tolist() == [-1, 0, 3]
    mostly_zero = torch.cat([torch.zeros(1000), torch.arange(1.0, 6.0)])
    assert ts.quant.kmeans_levels(mostly_zero, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_kmeans_refuses() -> None:
    for arguments, message in (
        ((torch.empty(0), 2), r"x must not be empty, got shape \[0\]$"),
        ((torch.tensor([math.inf]), 2), r"x must be finite, got NaN or infinity$"),
        ((torch.ones(2), 0), r"k must be in \[1, 65536\], got 0$"),
        ((torch.ones(2), 2, -1), r"iterations must be at least 0, got -1$"),
    ):
        with pytest.raises(ValueError, match="torchslim::kmeans_levels: " + message):
            ts.quant.kmeans_levels(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_power_of_two_scale_is_nearest_in_the_logarithm(dtype: torch.dtype) -> None:
    scale = torch.exp(torch.randn(3, 50) * 2).to(dtype)
    rounded = ts.quant.power_of_two_scale(scale)
    assert rounded.dtype == dtype and rounded.shape == scale.shape
    assert torch.equal(rounded.double(), 2 ** scale.double().log2().round())
    assert torch.equal(ts.quant.power_of_two_scale(rounded), rounded)


def test_power_of_two_scale_goes_up_from_the_root_of_two() -> None:
    below, above = torch.tensor(math.sqrt(2)), torch.tensor(1.4142137)
    assert ts.quant.power_of_two_scale(torch.stack([below * 0.9999999, above])).tolist() == [1.0, 2.0]


def test_bad_scales_are_refused() -> None:
    for value, shown in ((0.0, "0"), (-1.0, "-1"), (math.nan, "nan")):
        with pytest.raises(ValueError, match=rf"torchslim::power_of_two_scale: scale .* got {shown} at index 1"):
            ts.quant.power_of_two_scale(torch.tensor([1.0, value]))
    with pytest.raises(TypeError, match="torchslim::power_of_two_scale: expected a float32"):
        ts.quant.power_of_two_scale(torch.tensor([1]))


def test_absmax_scale() -> None:
    x = torch.randn(3, 4, 5)
    x[1] = 0
    assert torch.equal(ts.quant.absmax_scale(x, 2.0), x.abs().max() / 2)
    expected = x.abs().amax((1, 2)) / 2
    expected[1] = 1
    assert torch.equal(ts.quant.absmax_scale(x, 2.0, 0), expected)
    assert torch.equal(ts.quant.absmax_scale(x, 2.0, -1), x.abs().amax((0, 1)) / 2)
    assert ts.quant.absmax_scale(x.bfloat16(), 2.0).dtype == torch.float32


def test_absmax_scale_refuses() -> None:
    with pytest.raises(ValueError, match=r"x must be finite, got NaN or infinity$"):
        ts.quant.absmax_scale(torch.tensor([math.nan]), 1.0)
    with pytest.raises(ValueError, match=r"x must not be empty, got shape \[0\]$"):
        ts.quant.absmax_scale(torch.empty(0), 1.0)
    with pytest.raises(ValueError, match=r"largest must be > 0 and finite, got 0$"):
        ts.quant.absmax_scale(torch.ones(2), 0.0)
    with pytest.raises(ValueError, match=r"axis must be in \[-1, 0\].* got 1$"):
        ts.quant.absmax_scale(torch.ones(2), 1.0, 1)
