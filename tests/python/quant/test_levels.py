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
