# SPDX-License-Identifier: BSD-3-Clause
import math

import numpy as np
import pytest
import torch
from quant_tools import DTYPES
from reference.gptq import unfolded

from torchslim.quant import HessianAccumulator


def close(actual: torch.Tensor, rows: np.ndarray) -> None:
    """`actual` is the mean of 2·x·xᵀ over the rows (groups, rows, K)."""
    expected = torch.from_numpy(2 * np.einsum("gri,grj->gij", rows, rows) / rows.shape[1])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_linear_over_batches_of_any_shape() -> None:
    batches = [torch.randn(5, 6), torch.randn(2, 3, 6), torch.randn(6)]
    hessian = HessianAccumulator((4, 6))
    for batch in batches:
        hessian.add(batch)
    assert hessian.rows == 12
    close(hessian.hessian(), torch.cat([b.reshape(-1, 6) for b in batches]).double().numpy()[None])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 2)])
def test_convolution_is_unfolded_per_group(groups: int, stride: int, padding: int, dilation: int) -> None:
    x = torch.randn(3, 4, 8, 7)
    hessian = HessianAccumulator(
        (8, 4 // groups, 3, 2), stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    hessian.add(x[:1])
    hessian.add(x[1:])
    close(hessian.hessian(), unfolded(x.double().numpy(), (3, 2), stride, padding, dilation, groups))


def test_one_number_for_each_dimension() -> None:
    x = torch.randn(2, 3, 9, 8)
    geometry = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}
    hessian = HessianAccumulator((1, 3, 2, 3), **geometry)
    hessian.add(x)
    columns = torch.nn.functional.unfold(x, (2, 3), **geometry)
    close(hessian.hessian(), columns.transpose(1, 2).reshape(1, -1, 18).double().numpy())


def test_one_dimension() -> None:
    x = torch.randn(2, 4, 10)
    hessian = HessianAccumulator((4, 2, 3), stride=2, padding=1, groups=2)
    hessian.add(x)
    rows = unfolded(np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1)))[:, :, None], (1, 3), 2, 0, 1, 2)
    close(hessian.hessian(), rows)


def test_chunks_add_up() -> None:
    """Inputs of more than one chunk (4 M numbers in rows)."""
    torch.manual_seed(0)
    x = torch.randn(30, 16, 40, 40)
    whole = HessianAccumulator((1, 16, 3, 3), padding=1)
    whole.add(x)
    parts = HessianAccumulator((1, 16, 3, 3), padding=1)
    for sample in x:
        parts.add(sample[None])
    assert whole.rows == parts.rows == 30 * 1600
    torch.testing.assert_close(whole.hessian(), parts.hessian(), rtol=1e-4, atol=1e-5)


def test_the_drift_from_the_float_inputs() -> None:
    x, moved = torch.randn(3, 4, 8, 7), torch.randn(3, 4, 8, 7)
    hessian = HessianAccumulator((8, 2, 3, 2), padding=1, groups=2)
    hessian.add(moved[:1], x[:1])
    hessian.add(moved[1:], x[1:].double())
    rows, floats = (unfolded(each.double().numpy(), (3, 2), 1, 1, 1, 2) for each in (moved, x))
    close(hessian.hessian(), rows)
    expected = 2 * np.einsum("gri,grj->gij", floats - rows, rows) / rows.shape[1]
    torch.testing.assert_close(hessian.drift(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_every_batch_has_a_float_input_or_none() -> None:
    hessian = HessianAccumulator((4, 3))
    with pytest.raises(ValueError, match=r"no float input was added; call add\(\) with what"):
        hessian.drift()
    x = torch.ones(2, 3)
    for other, message in (
        (torch.ones(3, 3), r"the float input must have the input's shape \[2, 3\], got \[3, 3\]$"),
        (x * math.nan, r"the input holds NaN or infinity$"),
    ):
        with pytest.raises(ValueError, match="torchslim::HessianAccumulator: .*" + message):
            hessian.add(x, other)
    with pytest.raises(ValueError, match=r"the input holds NaN or infinity$"):
        hessian.add(x * math.nan, x)
    assert hessian.rows == 0
    hessian.add(x)
    with pytest.raises(ValueError, match=r"every batch must have a float input or none, got one with$"):
        hessian.add(x, x)
    assert hessian.rows == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_takes_every_floating_type(dtype: torch.dtype) -> None:
    x = torch.randn(10, 3).to(dtype)
    hessian = HessianAccumulator((2, 3))
    hessian.add(x.requires_grad_())
    close(hessian.hessian(), x.detach().double().numpy()[None])
    assert not hessian.hessian().requires_grad


def test_refuses_and_adds_nothing() -> None:
    hessian = HessianAccumulator((4, 3, 3, 3))
    with pytest.raises(ValueError, match=r"no input was added; call add\(\) with calibration data first$"):
        hessian.hessian()
    for x, message in (
        (torch.ones(2, 4, 8, 8), r"groups 1 takes inputs \(N, I, H, W\), got shape \[2, 4, 8, 8\]$"),
        (torch.ones(3, 8, 8), r"takes inputs \(N, I, H, W\)"),
        (torch.ones(0, 3, 8, 8), r"the input must not be empty"),
        (torch.ones(1, 3, 2, 8), r"is larger than the padded input \[1, 3, 2, 8\]$"),
        (torch.full((1, 3, 4, 4), math.nan), r"the input holds NaN or infinity$"),
        (torch.full((1, 3, 4, 4), -math.inf), r"the input holds NaN or infinity$"),
    ):
        with pytest.raises(ValueError, match="torchslim::HessianAccumulator: .*" + message):
            hessian.add(x)
    with pytest.raises(TypeError, match=r"expected a float32"):
        hessian.add(torch.ones(1, 3, 8, 8, dtype=torch.int32))
    assert hessian.rows == 0


def test_refuses_layers_that_cannot_exist() -> None:
    for shape, geometry, message in (
        ((4,), {}, r"weight must be \(O, I\)"),
        ((4, 3, 1, 1, 1), {}, r"weight must be \(O, I\)"),
        ((4, 0), {}, r"weight must not be empty"),
        ((4, 3, 3), {"groups": 3}, r"groups must divide the 4 output channels"),
        ((4, 3), {"groups": 2}, r"be 1 for a linear layer"),
        ((4, 3, 3), {"stride": (1, 2)}, r"stride must have 1 number or one for each of the 1 spatial"),
        ((4, 3, 3, 3), {"stride": 0}, r"stride must be >= 1, got 0$"),
        ((4, 3, 3, 3), {"padding": -1}, r"padding must be >= 0, got -1$"),
        ((4, 3, 3, 3), {"dilation": (1, 0)}, r"dilation must be >= 1, got 0$"),
    ):
        with pytest.raises(ValueError, match="torchslim::HessianAccumulator: .*" + message):
            HessianAccumulator(shape, **geometry)
