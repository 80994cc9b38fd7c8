# SPDX-License-Identifier: BSD-3-Clause
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from reference.integer_layer import integer_layer
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import FakeQuantize, QuantAveragePool, QuantConv2d, QuantLinear, SharedFakeQuantize


def quantized_images(quantizer: FakeQuantize, *shape: int) -> Tensor:
    return quantizer(torch.randn(*shape))


def weight_by_hand(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight on its grid, with ATen's own op and its gradient."""
    scale = weight.detach().abs().flatten(1).amax(1) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    zero_point = torch.zeros(len(scale), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127), scale


def activation_by_hand(y: Tensor, activation: str) -> Tensor:
    """Activation, range of the first batch, grid, ATen's own op."""
    y = {"none": lambda t: t, "relu": F.relu, "relu6": F.relu6}[activation](y)
    low, high = y.detach().min().clamp(max=0), y.detach().max().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=2**-12)
    zero_point = (-128 - torch.round(low / scale)).clamp(-128, 127).int()
    return torch.fake_quantize_per_tensor_affine(y, scale, zero_point, -128, 127)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("groups", [1, 4])
def test_training_is_conv_batch_norm_activation_on_grids_by_hand(activation: str, groups: int) -> None:
    torch.manual_seed(0)
    source = FakeQuantize()
    conv = nn.Conv2d(4, 8, 3, padding=1, groups=groups, bias=False)
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    by_hand = copy.deepcopy((conv, norm))
    x = quantized_images(source, 2, 4, 6, 6).detach().requires_grad_()

    layer = QuantConv2d(conv, source, norm, activation)
    y = layer(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    gradients = [x.grad, layer.weight.grad, norm.weight.grad, norm.bias.grad]

    conv, norm = by_hand
    x = x.detach().requires_grad_()
    weight, _ = weight_by_hand(conv.weight)
    expected = activation_by_hand(norm(F.conv2d(x, weight, None, padding=1, groups=groups)), activation)
    expected.backward(gradient)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    for ours, theirs in zip(gradients, [x.grad, conv.weight.grad, norm.weight.grad, norm.bias.grad], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.batch_norm.running_mean, norm.running_mean)


def test_training_rounds_the_bias_of_a_linear_layer_to_the_accumulators_grid() -> None:
    torch.manual_seed(1)
    source = FakeQuantize()
    linear = nn.Linear(6, 4)
    x = quantized_images(source, 3, 6)
    weight, scale = weight_by_hand(linear.weight)
    step = source.scale * scale
    bias = torch.round(linear.bias / step) * step
    expected = activation_by_hand(F.linear(x, weight, bias), "none")

    layer = QuantLinear(linear, source)
    y = layer(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    y.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 3.0))


def trained_conv(activation: str = "relu", bias: bool = False) -> tuple[nn.ModuleList, Tensor]:
    """A layer that has seen batches, in eval, with its quantiser and batch norm; and an input on its grid."""
    torch.manual_seed(2)
    source = FakeQuantize()
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    with torch.no_grad():
        norm.weight[2] = 0.0
    assert (norm.weight < 0).any()
    conv = nn.Conv2d(4, 8, 3, padding=1, bias=bias)
    layer = QuantConv2d(conv, source, norm, activation, name="stem.conv")
    with torch.no_grad():
        layer.weight[5] = 0.0
        for _ in range(20):
            layer(quantized_images(source, 4, 4, 6, 6))
    model = nn.ModuleList([source, norm, layer]).eval()
    return model, quantized_images(source, 16, 4, 6, 6)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("bias", [False, True])
def test_eval_gives_what_integers_give(activation: str, bias: bool) -> None:
    (_, _, layer), x = trained_conv(activation, bias)
    y = layer(x)
    steps = (y - integer_layer(layer, x)).abs() / layer.output_fake_quantize.scale
    assert steps.max() <= 1.001
    assert (steps > 0.5).float().mean() < 1e-3


def test_eval_is_close_to_the_unfolded_layers() -> None:
    (_, norm, layer), x = trained_conv("none")
    weight, _ = weight_by_hand(layer.weight)
    unfolded = norm(F.conv2d(x, weight, None, padding=1))
    quantizer = layer.output_fake_quantize
    low = (quantizer.quant_min - quantizer.zero_point) * quantizer.scale
    high = (quantizer.quant_max - quantizer.zero_point) * quantizer.scale
    assert ((layer(x) - unfolded.clamp(low, high)).abs() <= 0.6 * quantizer.scale + 1e-5).all()


def test_an_all_zero_channel_keeps_its_beta() -> None:
    (_, norm, layer), x = trained_conv("none")
    with torch.no_grad():
        norm.running_mean[5], norm.running_var[5] = 0.0, 0.0
        norm.bias[5] = 0.7
    quantizer = layer.output_fake_quantize
    assert (layer(x)[:, 5] - 0.7).abs().max() <= 0.51 * quantizer.scale


def test_eval_freezes_the_observer() -> None:
    (source, _, layer), x = trained_conv()
    before = copy.deepcopy(layer.state_dict())
    layer(source(10 * x))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_eval_has_the_gradients_of_the_unfolded_layers() -> None:
    (_, norm, layer), x = trained_conv("none", bias=True)
    y = layer(x)
    inside = (y > y.min()) & (y < y.max())
    gradient = torch.randn_like(y) * inside
    y.backward(gradient)
    ours = [layer.weight.grad, layer.bias.grad, norm.weight.grad, norm.bias.grad]
    parameters = [layer.weight, layer.bias, norm.weight, norm.bias]
    weight, _ = weight_by_hand(layer.weight)
    unfolded = norm(F.conv2d(x, weight, layer.bias, padding=1))
    for got, expected in zip(ours, torch.autograd.grad(unfolded, parameters, gradient), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_eval_computes_in_float32_under_autocast() -> None:
    (_, _, layer), x = trained_conv()
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32 and torch.equal(y, expected)


def test_training_runs_under_autocast() -> None:
    (_, _, layer), x = trained_conv()
    layer.train()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.abs().sum() > 0


def test_a_trace_gives_the_eval_output_and_leaves_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    model, x = trained_conv()
    layer = model[2]

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[2](self.layers[0](x))

    traced = torch.jit.trace(Chain().eval(), x, check_trace=False)
    assert not [w for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]
    assert "torchslim::fake_quantize_weight" not in str(traced.inlined_graph)
    assert str(traced.inlined_graph).count("torchslim::fake_quantize(") == 3  # input, weight, output
    steps = (traced(x) - layer(x)).abs() / layer.output_fake_quantize.scale
    assert steps.max() <= 1.001 and (steps > 0.5).float().mean() < 1e-3


def test_disabled_fake_quant_is_the_float_layer_in_training_and_eval() -> None:
    (_, norm, layer), x = trained_conv()
    layer.output_fake_quantize.disable_fake_quant()
    expected = F.relu(norm(F.conv2d(x, layer.weight, None, padding=1)))
    torch.testing.assert_close(layer(x), expected)
    layer.train()
    torch.testing.assert_close(layer(x), expected)


def test_deepcopy_keeps_the_ties_and_state_dict_lists_nothing_twice() -> None:
    model, x = trained_conv()
    copied = copy.deepcopy(model)
    source, norm, layer = copied
    assert layer.batch_norm is norm and layer.input_fake_quantize is source
    assert layer.batch_norm is not model[1]
    assert torch.equal(layer(x), model[2](x))
    names = list(model[2].state_dict())
    assert names[:1] == ["weight"] and all(name.startswith("output_fake_quantize.") for name in names[1:])


def test_same_padding_becomes_numbers() -> None:
    conv = nn.Conv2d(2, 2, (3, 5), padding="same", dilation=(2, 1))
    layer = QuantConv2d(conv, FakeQuantize())
    assert layer.padding == (2, 2)
    x = torch.randn(1, 2, 8, 8)
    layer.output_fake_quantize.disable_fake_quant()
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "expected padding_mode 'zeros', got 'reflect'"),
        (nn.Conv2d(2, 2, 2, padding="same"), "pads unevenly"),
    ],
)
def test_paddings_that_integers_lack_are_refused(conv: nn.Conv2d, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantConv2d(conv, FakeQuantize(), name="stem")


def test_nan_in_a_weight_is_refused_in_eval_by_the_layers_name() -> None:
    (_, _, layer), x = trained_conv()
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layer 'stem.conv': .*weight holds NaN or infinity"):
        layer(x)


@pytest.mark.parametrize("pool", [None, nn.AvgPool2d(2), nn.AvgPool2d((2, 3), stride=2, padding=1)])
def test_averages_round_as_integers_do(pool: nn.AvgPool2d | None) -> None:
    torch.manual_seed(3)
    owner = FakeQuantize()
    x = owner(torch.randn(8, 3, 8, 8)).requires_grad_()
    y = QuantAveragePool(owner, pool)(x)
    codes = torch.round(x.detach().double() / owner.scale)
    size = 64 if pool is None else math.prod(pool.kernel_size) if isinstance(pool.kernel_size, tuple) else 4
    average = F.adaptive_avg_pool2d(codes, 1) if pool is None else pool(codes)
    sums = torch.round(average * size).float()
    expected = torch.round(sums * (owner.scale / (owner.scale * size))) * owner.scale
    assert torch.equal(y, expected)
    assert pool is None or (sums / size - torch.floor(sums / size) == 0.5).any()  # ties are met
    y.sum().backward()
    smooth = F.adaptive_avg_pool2d(x, 1) if pool is None else pool(x)
    torch.testing.assert_close(x.grad, torch.autograd.grad(smooth.sum(), x)[0])
    owner.disable_fake_quant()
    assert torch.equal(QuantAveragePool(owner, pool)(x), smooth)


def test_shared_fake_quantize_uses_the_owners_grid() -> None:
    owner = FakeQuantize()
    x = F.relu6(owner(5 * torch.randn(4, 3, 8, 8)))
    shared = SharedFakeQuantize(owner)
    expected = ts.quant.fake_quantize(x, owner.scale, owner.zero_point, -128, 127)
    assert torch.equal(shared(x), expected)
    assert not shared.state_dict()
    owner.disable_fake_quant()
    assert torch.equal(shared(x), x)
