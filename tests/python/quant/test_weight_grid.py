# SPDX-License-Identifier: BSD-3-Clause
import math
from itertools import pairwise

import pytest
import torch
from quant_tools import DTYPES
from torch import Tensor

from torchslim.quant import channel_qparams, fake_quantize, round_weight, weight_qparams, weight_scale


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 3, 3), (4, 1, 5), (1, 1)])
def test_rounds_as_fake_quantize_does(bits: int, shape: tuple[int, ...]) -> None:
    weight = random_weight(*shape)
    weight[0] = 0
    grid = round_weight(weight, bits)
    rows = weight.flatten(1)
    limit = 2 ** (bits - 1) - 1
    expected = channel_qparams(rows.amin(1), rows.amax(1), -limit, limit, symmetric=True)[0]
    torch.testing.assert_close(grid.scale, expected, rtol=1e-6, atol=0)
    zeros = torch.zeros(shape[0], dtype=torch.int32)
    assert torch.equal(grid.weight, fake_quantize(weight, grid.scale, zeros, -limit, limit, axis=0))
    assert torch.equal(grid.weight, grid.codes * grid.scale.reshape(-1, *[1] * (weight.dim() - 1)))
    assert grid.codes.dtype == torch.int8 and grid.codes.abs().max() <= limit
    assert torch.equal(round_weight(grid.weight, bits, scale=grid.scale).codes, grid.codes)


def test_eight_bits_are_the_grid_of_weight_qparams() -> None:
    weight = random_weight(6, 3, 3, 3)
    assert torch.equal(weight_scale(weight), weight_qparams(weight)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_keeps_the_type(dtype: torch.dtype) -> None:
    weight = random_weight(4, 10).to(dtype)
    grid = round_weight(weight, 4)
    assert grid.weight.dtype == dtype and grid.scale.dtype == torch.float32
    assert torch.equal(grid.scale, weight_scale(weight.float(), 4))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_is_the_best_share(bits: int) -> None:
    weight = random_weight(5, 40, seed=bits)
    weight[0] = 0
    scale = weight_scale(weight, bits, "mse")
    largest = weight_scale(weight, bits)
    shares = 1 - torch.arange(80) / 100
    errors = torch.stack(
        [(round_weight(weight, bits, scale=largest * s).weight - weight).square().sum(1) for s in shares]
    )
    chosen = (round_weight(weight, bits, scale=scale).weight - weight).square().sum(1)
    torch.testing.assert_close(chosen, errors.amin(0), rtol=1e-4, atol=1e-10)
    assert scale[0] == 1


def test_more_bits_are_nearer() -> None:
    weight = random_weight(3, 50)
    for search in ("absmax", "mse"):
        errors = [float((round_weight(weight, bits, search).weight - weight).norm()) for bits in range(2, 9)]
        assert all(a > b for a, b in pairwise(errors))


def test_strided_weights() -> None:
    weight = random_weight(6, 4, 3, 3)
    grid = round_weight(weight, 4, "mse")
    for view in (weight.to(memory_format=torch.channels_last), weight.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(round_weight(view, 4, "mse").codes, grid.codes)


def test_refuses() -> None:
    weight = random_weight(3, 4)
    for bits in (1, 9, 0):
        with pytest.raises(ValueError, match=rf"torchslim::round_weight: bits must be in \[2, 8\], got {bits}$"):
            round_weight(weight, bits)
    with pytest.raises(ValueError, match=r"weight_scale: scale_search must be `absmax` or `mse`, got `best`$"):
        weight_scale(weight, 4, "best")  # type: ignore[arg-type]
    for value in (math.nan, math.inf):
        bad = weight.clone()
        bad[1, 2] = value
        with pytest.raises(ValueError, match=r"weight_scale: the weight holds NaN or infinity in channel 1$"):
            weight_scale(bad)
    for empty in (torch.empty(0, 3), torch.empty(3, 0), torch.ones(3)):
        with pytest.raises(ValueError, match=r"round_weight: weight must be \(out_channels, ...\)"):
            round_weight(empty)
    with pytest.raises(TypeError, match=r"round_weight: expected a float32"):
        round_weight(torch.ones(2, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"scale must have shape \[3\], one number for each .*, got \[2\]$"):
        round_weight(weight, scale=torch.ones(2))
    with pytest.raises(ValueError, match=r"scale must be > 0, normal and finite in each channel$"):
        round_weight(weight, scale=torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(TypeError, match=r"scale must be float32, got Double$"):
        round_weight(weight, scale=torch.ones(3).double())
