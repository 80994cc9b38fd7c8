# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.fake_quantize import choose_qparams as reference

import torchslim as ts

GRIDS = [(-128, 127), (-127, 127), (0, 255), (-8, 7), (0, 1)]


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=5),
    st.sampled_from(GRIDS[:4]),
    st.booleans(),
)
def test_equals_the_written_out_rule(ranges: list[tuple[float, float]], grid: tuple[int, int], symmetric: bool) -> None:
    low = torch.tensor([min(pair) for pair in ranges])
    high = torch.tensor([max(pair) for pair in ranges])
    scale, zero_point = ts.quant.choose_qparams(low, high, *grid, symmetric)
    expected = [reference(a, b, *grid, symmetric) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    assert list(zip(scale.tolist(), zero_point.tolist(), strict=True)) == expected


@pytest.mark.parametrize("grid", GRIDS)
def test_zero_is_a_grid_point(grid: tuple[int, int]) -> None:
    for low, high in [(0.5, 3.0), (-3.0, -0.5), (-1.0, 2.0), (0.0, 0.0)]:
        scale, zero_point = ts.quant.choose_qparams(torch.tensor(low), torch.tensor(high), *grid)
        assert grid[0] <= zero_point <= grid[1]
        assert ts.quant.fake_quantize(torch.zeros(1), scale, zero_point, *grid) == 0


def test_keeps_the_shape() -> None:
    for shape in [(), (1,), (3,), (2, 2)]:
        scale, zero_point = ts.quant.choose_qparams(-torch.ones(shape), torch.ones(shape), -128, 127)
        assert scale.shape == zero_point.shape == shape
        assert scale.dtype == torch.float32 and zero_point.dtype == torch.int32


@pytest.mark.parametrize(
    ("low", "high", "grid", "message"),
    [
        (math.inf, -math.inf, (-128, 127), "no range has been observed yet; run the model in training mode"),
        (0.0, math.nan, (-128, 127), r"the range must be finite, got \[0, nan\]"),
        (1.0, 0.0, (-128, 127), "min_val must be <= max_val, got 1 and 0"),
        (0.0, 1.0, (3, 3), "the grid has one point: quant_min = quant_max = 3"),
        (0.0, 1.0, (4, 3), "the range is empty: quant_min 4 > quant_max 3"),
    ],
)
def test_bad_ranges_are_refused(low: float, high: float, grid: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"torchslim::choose_qparams: {message}"):
        ts.quant.choose_qparams(torch.tensor(low), torch.tensor(high), *grid)


def test_weight_qparams_are_the_largest_over_127() -> None:
    weight = torch.randn(4, 3, 5, 5)
    weight[1] = 0
    weight[2] = 1e-44  # its scale would not be a normal float32
    scale, zero_point = ts.quant.weight_qparams(weight.requires_grad_())
    expected = weight.detach().abs().amax((1, 2, 3)) / 127
    expected[1:3] = 1
    assert torch.equal(scale, expected) and torch.equal(zero_point, torch.zeros(4, dtype=torch.int32))
    assert not scale.requires_grad


def test_weight_qparams_fit_the_weights_whole() -> None:
    weight = torch.randn(8, 9)
    scale, zero_point = ts.quant.weight_qparams(weight)
    wide = ts.quant.fake_quantize(weight, scale, zero_point, -(2**15), 2**15, 0)
    assert torch.equal(ts.quant.fake_quantize(weight, scale, zero_point, -127, 127, 0), wide)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    weight = torch.zeros(3, 2)
    weight[2, 1] = bad
    with pytest.raises(ValueError, match="torchslim::weight_qparams: the weight holds NaN or infinity in channel 2"):
        ts.quant.weight_qparams(weight)
    with pytest.raises(ValueError, match="got a tensor of 0 dimensions"):
        ts.quant.weight_qparams(torch.tensor(1.0))


def test_channels_have_no_lowest_scale() -> None:
    low, high = torch.tensor([-1e-5, 0.0, -2.0]), torch.tensor([3e-5, 0.0, 1.0])
    scale, zero_point = ts.quant.channel_qparams(low, high, -127, 127, symmetric=True)
    assert torch.equal(scale, torch.tensor([3e-5, 127.0, 2.0]) / 127) and zero_point.tolist() == [0, 0, 0]
    scale, zero_point = ts.quant.channel_qparams(low, high, -128, 127)
    torch.testing.assert_close(scale, torch.tensor([4e-5 / 255, 1.0, 3 / 255]))
    assert zero_point.tolist() == [-64, -128, 42]
    assert ts.quant.choose_qparams(low, high, -128, 127)[0][0] == 2.0**-12
    with pytest.raises(ValueError, match="torchslim::channel_qparams: no range has been observed yet"):
        ts.quant.channel_qparams(torch.tensor(math.inf), torch.tensor(-math.inf), -128, 127)
