# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from reference.correct_bias_analytic import clipped_moments
from reference.quant_networks import Depthwise, Residual, Vgg, example, shake
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import clipped_normal, correct_bias_analytic


@pytest.mark.parametrize("low, high", [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)])
def test_clipped_normal_is_that_of_the_reference(low: float, high: float) -> None:
    for mean, deviation in ((0.0, 1.0), (-2.0, 0.5), (4.0, 3.0), (1.0, 1e-6), (7.0, 2.0)):
        expected = clipped_moments(mean, deviation, low, high)
        ours = clipped_normal(torch.tensor(mean), torch.tensor(deviation, dtype=torch.float64), low, high)
        assert [float(x) for x in ours] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_clipped_normal_refuses() -> None:
    one = torch.ones(())
    for low, high in ((1.0, 1.0), (2.0, 1.0), (-math.inf, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"clipped_normal: low must be finite and < high, got"):
            clipped_normal(one, one, low, high)


def error_of(layer: nn.Module) -> Tensor:
    """Σ (w̃ − w) over the kernel, (O, I / groups)."""
    weight = layer.weight.detach()
    rounded, _ = torch.ops.torchslim.fake_quantize_weight(weight)
    return (rounded - weight).double().flatten(2).sum(2) if weight.dim() > 2 else (rounded - weight).double()


def relu_mean(norm: nn.BatchNorm2d, high: float = math.inf) -> Tensor:
    moments = [
        clipped_moments(b, abs(g), 0.0, high) for b, g in zip(norm.bias.tolist(), norm.weight.tolist(), strict=True)
    ]
    return torch.tensor([m for m, _ in moments], dtype=torch.float64)


def test_through_relu6_depthwise_and_a_batch_norm() -> None:
    torch.manual_seed(0)
    model = Depthwise()
    shake(model)
    prepared = ts.quant.prepare(model, example())
    first, conv, norm = (prepared.get_submodule(name) for name in ("1", "3", "4"))
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    expected = (norm.bias - error_of(conv)[:, 0] * relu_mean(first, 6.0) * factor).detach()
    assert correct_bias_analytic(prepared) == ["0", "7", "13"]  # no data; nothing to add to, twice
    torch.testing.assert_close(norm.bias.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_through_a_residual_addition_and_a_mean() -> None:
    """The inputs of both branches are normal variables whose sum is one."""
    torch.manual_seed(0)
    model = Residual()
    shake(model)
    prepared = ts.quant.prepare(model, example())
    last, shortcut = prepared.bn2, prepared.shortcut[1]
    before = prepared.classifier.bias.detach().clone()
    moments = [
        clipped_moments(mean, math.sqrt(var), 0.0, math.inf)[0]
        for mean, var in zip(
            (last.bias + shortcut.bias).tolist(), (last.weight**2 + shortcut.weight**2).tolist(), strict=True
        )
    ]
    expected = before - error_of(prepared.classifier) @ torch.tensor(moments, dtype=torch.float64)
    assert correct_bias_analytic(prepared) == ["stem"]
    torch.testing.assert_close(prepared.classifier.bias.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_brings_means_back() -> None:
    """Inputs that are what the batch norm says they are: a layer's mean comes back to the float one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=0)).eval()
    shake(model)
    with torch.no_grad():
        model[3].weight.copy_(model[3].weight.sign() * 0.3 + 0.02)  # all rounded the same way
        model[3].weight[:, 0, 0, 0] = 1.0
    x = torch.randn(64, 8, 16, 16)
    ts.quant.reestimate_batch_norm(model, [x])
    expected = model(x).mean((0, 2, 3)).detach()
    prepared = ts.quant.prepare(model, x)
    ts.quant.calibrate(prepared, [x])
    with torch.no_grad():
        before = (prepared(x).mean((0, 2, 3)) - expected).abs().sum()
        correct_bias_analytic(prepared)
        assert (prepared(x).mean((0, 2, 3)) - expected).abs().sum() < 0.5 * before


def test_what_is_not_known_is_left() -> None:
    prepared = ts.quant.prepare(Vgg(), example())
    before = {name: p.detach().clone() for name, p in prepared.named_parameters()}
    assert correct_bias_analytic(prepared) == ["conv1", "conv2", "fc1", "fc2"]
    assert all(torch.equal(before[name], p) for name, p in prepared.named_parameters())


def test_refuses_a_float_model() -> None:
    with pytest.raises(TypeError, match=r"expected a prepared model, got Vgg; call torchslim.quant.prepare first$"):
        correct_bias_analytic(Vgg())  # type: ignore[arg-type]
