# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import DTYPES, with_threads
from reference.adaround import best_error, learned_codes, output_error
from reference.gptq import unfolded
from torch import Tensor

from torchslim.quant import LayerSamples, adaround, round_weight, weight_scale

Problem = tuple[Tensor, Tensor, Tensor, Tensor, LayerSamples]


def problem(out: int, width: int, rows: int = 100, seed: int = 0) -> Problem:
    """Weight, bias, inputs that differ a little between the quantised network and the float one, targets, samples."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -1, width)[:, None]
    x = torch.randn(rows, width, generator=generator) @ mixing
    weight = torch.randn(out, width, generator=generator)
    bias = torch.randn(out, generator=generator)
    targets = x @ weight.T + bias
    x = x + 0.02 * torch.randn(rows, width, generator=generator)
    samples = LayerSamples((out, width))
    samples.add(x, targets)
    return weight, bias, x, targets, samples


# ---- the rows that are kept ----


def test_samples_hold_rows_and_targets_per_group() -> None:
    samples = LayerSamples((6, 2, 3, 3), stride=2, padding=1, groups=3)
    x, y = torch.randn(2, 6, 7, 5), torch.randn(2, 6, 4, 3)
    samples.add(x[:1], y[:1])
    samples.add(x[1:], y[1:])
    expected = torch.from_numpy(unfolded(x.double().numpy(), (3, 3), 2, 1, 1, 3)).float()
    assert torch.equal(samples.inputs, expected)
    assert torch.equal(samples.targets, y.reshape(2, 3, 2, 12).permute(1, 0, 3, 2).reshape(3, 24, 2))
    assert samples.rows == 24


def test_samples_keep_every_row_alike() -> None:
    """100 of 1000 rows in 200 draws: each row is kept 20 times on average."""
    counts = torch.zeros(1000)
    x = torch.arange(1000.0)[:, None]
    for seed in range(200):
        samples = LayerSamples((1, 1), max_bytes=800, seed=seed)
        for part, target in zip(x.split(300), (2 * x).split(300), strict=True):
            samples.add(part, target)
        kept = samples.inputs.flatten()
        assert samples.rows == 1000 and len(kept) == len(set(kept.tolist())) == 100
        assert torch.equal(samples.targets.flatten(), 2 * kept)
        counts[kept.long()] += 1
    by_hundred = counts.view(10, 100).mean(1)
    assert ((by_hundred - 20).abs() < 3).all()  # six deviations of the mean of a hundred rows
    assert counts.max() < 50


def test_samples_refuse() -> None:
    samples = LayerSamples((4, 3))
    for arguments, message in (
        (
            (torch.ones(2, 3), torch.ones(2, 3)),
            r"the layer's output has shape \[2, 4\], got a target of shape \[2, 3\]$",
        ),
        ((torch.ones(2, 4), torch.ones(2, 4)), r"takes inputs \(..., I\), got shape \[2, 4\]$"),
        ((torch.ones(2, 3) * math.nan, torch.ones(2, 4)), r"the input holds NaN or infinity$"),
        ((torch.ones(2, 3), torch.ones(2, 4) * math.inf), r"the target holds NaN or infinity$"),
    ):
        with pytest.raises(ValueError, match="torchslim::LayerSamples: .*" + message):
            samples.add(*arguments)
    with pytest.raises(ValueError, match=r"torchslim::LayerSamples: nothing was added"):
        adaround(torch.ones(4, 3), None, samples)
    with pytest.raises(ValueError, match=r"max_bytes must hold a row of 28 bytes, got 27$"):
        LayerSamples((4, 3), max_bytes=27)


# ---- adaround ----


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("bits", [3, 4])
def test_learns_what_the_reference_does(activation: str, bits: int) -> None:
    weight, bias, x, targets, samples = problem(5, 7, rows=60, seed=bits)
    limit, scale = 2 ** (bits - 1) - 1, weight_scale(weight, bits)
    options = {"regularization": 0.01, "activation": activation}
    grid = adaround(weight, bias, samples, bits, iterations=200, **options)
    learned = learned_codes(weight, scale, bias, x, targets, limit, 200, **options)
    nearest = round_weight(weight, bits).codes
    data = scale, bias, x, targets, activation
    better = output_error(learned, *data) < output_error(nearest, *data)
    assert better.any()
    assert torch.equal(grid.codes, torch.where(better[:, None], learned, nearest))
    assert torch.equal(grid.scale, scale)
    assert torch.equal(grid.weight, grid.codes * scale[:, None])


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_comes_nearer_to_the_best_choice(activation: str) -> None:
    weight, bias, x, targets, samples = problem(12, 8, seed=3)
    scale = weight_scale(weight, 3)
    data = scale, bias, x, targets
    ours = output_error(
        adaround(weight, bias, samples, 3, iterations=500, activation=activation).codes, *data, activation
    )
    nearest = output_error(round_weight(weight, 3).codes, *data, activation)
    best = best_error(weight, *data, 3, activation)
    assert (best <= ours * (1 + 1e-9)).all()
    assert (ours - best).sum() < 0.5 * (nearest - best).sum()


@settings(max_examples=15, deadline=None)
@given(
    out=st.integers(1, 40),
    width=st.integers(1, 12),
    rows=st.integers(1, 40),
    bits=st.integers(2, 8),
    batch_size=st.sampled_from([1, 7, 256]),
    activation=st.sampled_from(["none", "relu", "relu6"]),
    search=st.sampled_from(["absmax", "mse"]),
    seed=st.integers(0, 100),
)
def test_never_worse_than_nearest(
    out: int, width: int, rows: int, bits: int, batch_size: int, activation: str, search: str, seed: int
) -> None:
    weight, bias, x, targets, samples = problem(out, width, rows, seed)
    options = {"iterations": 30, "batch_size": batch_size, "activation": activation, "scale_search": search}
    grid = adaround(weight, bias, samples, bits, **options)
    nearest = round_weight(weight, bits, search)
    assert torch.equal(grid.scale, nearest.scale)
    data = grid.scale, bias, x, targets, activation
    assert (output_error(grid.codes, *data) <= output_error(nearest.codes, *data) * (1 + 1e-9)).all()
    floor = (weight / grid.scale[:, None]).floor()
    limit = 2 ** (bits - 1) - 1
    choices = [(floor + up).clamp(-limit, limit) for up in (0, 1)]
    assert ((grid.codes == choices[0]) | (grid.codes == choices[1])).all()


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_of_groups(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.avg_pool2d(torch.randn(16, 8, 10, 10, generator=generator), 3, 1)  # near pixels are alike
    weight = torch.randn(8, 8 // groups, 3, 3, generator=generator)
    samples = LayerSamples(weight.shape, padding=1, groups=groups)
    y = torch.nn.functional.conv2d(x, weight, padding=1, groups=groups)
    samples.add(x, y)
    grid = adaround(weight, None, samples, 3, iterations=1000)

    def error(rounded: Tensor) -> float:
        return float((torch.nn.functional.conv2d(x, rounded, padding=1, groups=groups) - y).square().mean())

    assert error(grid.weight) < 0.6 * error(round_weight(weight, 3).weight)


def test_a_given_scale() -> None:
    weight, bias, _, _, samples = problem(4, 6)
    scale = weight_scale(weight, 4) * 0.7  # some weights saturate
    grid = adaround(weight, bias, samples, 4, iterations=50, scale=scale)
    assert torch.equal(grid.scale, scale) and grid.codes.abs().max() == 7


@pytest.mark.parametrize("dtype", DTYPES)
def test_keeps_the_type(dtype: torch.dtype) -> None:
    weight, bias, _, _, samples = problem(4, 6)
    grid = adaround(weight.to(dtype).requires_grad_(), bias.to(dtype), samples, iterations=3)
    assert grid.weight.dtype == dtype and grid.scale.dtype == torch.float32 and grid.codes.dtype == torch.int8
    assert not grid.weight.requires_grad


@pytest.mark.parametrize("out", [1, 70])
def test_any_number_of_threads_gives_the_same_codes(out: int) -> None:
    weight, bias, _, _, samples = problem(out, 150, rows=600)
    one, two = with_threads(lambda: adaround(weight, bias, samples, 4, iterations=150).codes)
    assert torch.equal(one, two)


def test_the_seed_draws_the_rows() -> None:
    weight, bias, _, _, samples = problem(16, 40, rows=300)
    codes = [adaround(weight, bias, samples, 4, iterations=200, batch_size=4, seed=seed).codes for seed in (0, 0, 1)]
    assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[0], codes[2])


def test_progress_and_its_errors_pass() -> None:
    weight, bias, _, _, samples = problem(4, 6)
    heard: list[tuple[int, int]] = []
    adaround(weight, bias, samples, iterations=250, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(100, 250), (200, 250), (250, 250)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adaround(weight, bias, samples, iterations=250, progress=stop)


def test_refuses() -> None:
    weight, bias, _, _, samples = problem(4, 6)
    for arguments, message in (
        ({"bits": 1}, r"bits must be in \[2, 8\], got 1$"),
        ({"scale_search": "best"}, r"scale_search must be `absmax` or `mse`, got `best`$"),
        ({"iterations": 0}, r"iterations must be >= 1, got 0$"),
        ({"batch_size": 0}, r"batch_size must be >= 1, got 0$"),
        ({"regularization": -1.0}, r"regularization must be >= 0 and finite, got -1$"),
        ({"activation": "gelu"}, r"activation must be `none`, `relu` or `relu6`, got `gelu`$"),
        ({"weight": weight[:3]}, r"the samples are of a weight \[4, 6\], got a weight \[3, 6\]$"),
        ({"weight": weight * math.nan}, r"the weight holds NaN or infinity in channel 0$"),
        ({"bias": bias[:3]}, r"bias must have shape \[4\], got \[3\]$"),
        ({"bias": bias * math.inf}, r"the bias holds NaN or infinity$"),
    ):
        with pytest.raises(ValueError, match="torchslim::adaround: .*" + message):
            adaround(**{"weight": weight, "bias": bias, "samples": samples, **arguments})
