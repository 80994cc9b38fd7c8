# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch
from torch import Tensor

from torchslim import _C

fold_batch_norm = _C.quant.fold_batch_norm
fold_layer = _C.quant.fold_layer
quantize_weight = _C.quant.quantize_weight


def random_batch_norm(channels: int) -> dict[str, Tensor]:
    return {
        "gamma": torch.randn(channels),
        "beta": torch.randn(channels),
        "mean": torch.randn(channels),
        "var": torch.rand(channels) + 0.1,
    }


def test_codes_times_scale_is_the_weight_on_its_grid() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 3, 3, 3)
    weight[1] = 0
    codes, scale = quantize_weight(weight)
    rounded, op_scale = torch.ops.torchslim.fake_quantize_weight(weight)
    assert torch.equal(scale, op_scale) and scale[1] == 1
    assert torch.equal(codes.float() * scale.view(-1, 1, 1, 1), rounded)
    zero_point = torch.zeros(6, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127)
    assert torch.equal(rounded, expected)


def test_a_folded_layer_is_the_unfolded_one_in_float64() -> None:
    torch.manual_seed(1)
    weight, bias, norm = torch.randn(8, 5), torch.randn(8), random_batch_norm(8)
    assert (norm["gamma"] < 0).any()
    norm["gamma"][3] = 0
    codes, scale = quantize_weight(weight)
    folded_codes, folded_scale, folded_bias = fold_batch_norm(codes, scale, bias, *norm.values(), 1e-5)
    x = torch.randn(10, 5, dtype=torch.float64)
    n = {name: value.double() for name, value in norm.items()}
    y = x @ (codes.double() * scale.double()[:, None]).T + bias.double()
    expected = (y - n["mean"]) / torch.sqrt(n["var"] + 1e-5) * n["gamma"] + n["beta"]
    ours = x @ (folded_codes.double() * folded_scale.double()[:, None]).T + folded_bias.double()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert torch.equal(folded_codes[3], torch.zeros(5, dtype=torch.int8)) and folded_scale[3] == 1


def test_fold_layer_puts_the_bias_on_the_accumulators_grid() -> None:
    torch.manual_seed(2)
    weight, norm, input_scale = torch.randn(8, 5), random_batch_norm(8), torch.tensor(0.03)
    _, scale, bias = fold_layer(weight, None, input_scale, *norm.values(), 1e-5)
    steps = bias.double() / (scale * input_scale).double()
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    _, _, exact = fold_batch_norm(*quantize_weight(weight), None, *norm.values(), 1e-5)
    assert ((bias - exact).abs() <= 0.5001 * scale * input_scale).all()


@pytest.mark.parametrize("input_scale", [2.0**-12, 0.05, 3.0])
def test_a_pruned_channel_keeps_its_bias(input_scale: float) -> None:
    """Its scale is 1 before folding and 1/sqrt(eps) after: a grid far too coarse for the bias."""
    norm = {name: torch.zeros(1) for name in ("mean", "var")}
    gamma, beta = torch.ones(1), torch.full((1,), 0.3)
    codes, scale, bias = fold_layer(
        torch.zeros(1, 4), None, torch.tensor(input_scale), gamma, beta, norm["mean"], norm["var"], 1e-5
    )
    torch.testing.assert_close(bias, beta, rtol=1e-6, atol=0)
    assert codes.abs().max() == 0 and (bias / (scale * input_scale)).abs() < 2**31


def test_round_bias_rounds_to_even_and_passes_the_gradient() -> None:
    bias = torch.tensor([0.5, 1.5, -2.5, 0.3], requires_grad=True)
    rounded = torch.ops.torchslim.round_bias(bias, torch.tensor(4.0), torch.full((4,), 0.25))
    assert torch.equal(rounded, torch.tensor([0.0, 2.0, -2.0, 0.0]))
    (gradient,) = torch.autograd.grad(rounded, bias, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(gradient, torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_errors_are_value_errors_that_show_the_value() -> None:
    with pytest.raises(ValueError, match="weight holds NaN or infinity"):
        quantize_weight(torch.tensor([[float("nan")]]))
    with pytest.raises(TypeError, match="weight must be float32, got Double"):
        quantize_weight(torch.zeros(1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="input_scale must be > 0 and finite, got -1"):
        fold_layer(torch.ones(1, 1), None, torch.tensor(-1.0))
    with pytest.raises(ValueError, match=r"bias must have the shape of weight_scale, \[2\], got \[3\]"):
        torch.ops.torchslim.round_bias(torch.ones(3), torch.tensor(1.0), torch.ones(2))
