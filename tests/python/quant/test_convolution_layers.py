# SPDX-License-Identifier: BSD-3-Clause
"""Layers with a weight other than convolutions of images: each trains, and its integers are what eval computes."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference.quant_networks import shake
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import QuantConvTranspose2d
from torchslim.quant.layers import QuantLayer


class Mean(nn.Module):
    """The mean over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


class Pools(nn.Module):
    """Pools over (N, C, L) as functions."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(F.avg_pool1d(F.max_pool1d(x, 2), 2, 1), 1).flatten(1)


#: The layers, and the shape of one input.
CASES: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "linear": ([nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4)], (6,)),
    "linear, relu6": ([nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU6(), nn.Linear(8, 4)], (6,)),
    "conv1d": ([nn.Conv1d(3, 8, 3, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 1)], (3, 16)),
    "conv1d, groups": ([nn.Conv1d(4, 8, 5, 2, 2, groups=2), nn.ReLU6(), nn.Conv1d(8, 8, 3, groups=8)], (4, 16)),
    "conv1d, same": ([nn.Conv1d(3, 8, 3, padding="same", dilation=2), nn.BatchNorm1d(8)], (3, 16)),
    "conv1d, pools": (
        [nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2, 1, 1), nn.Conv1d(8, 4, 1)],
        (3, 16),
    ),
    "conv1d, global pool": (
        [nn.Conv1d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4)],
        (3, 16),
    ),
    "conv1d, mean": ([nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Dropout1d(0.1), Mean(), nn.Linear(8, 4)], (3, 16)),
    "conv1d, pool functions": ([nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), Pools(), nn.Linear(8, 4)], (3, 16)),
    "transposed": (
        [nn.ConvTranspose2d(3, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 2, 3)],
        (3, 5, 6),
    ),
    "transposed, groups": (
        [nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 9, 3, 2, 1, 1, groups=3), nn.BatchNorm2d(9), nn.ReLU6()],
        (3, 5, 6),
    ),
    "transposed, all": ([nn.ConvTranspose2d(4, 4, (3, 2), (3, 2), (2, 0), (1, 0), 4, False, (2, 1))], (4, 5, 6)),
    "transposed 1d": (
        [nn.ConvTranspose1d(4, 6, 4, 2, 1, 0, 2), nn.BatchNorm1d(6), nn.ReLU(), nn.ConvTranspose1d(6, 2, 3, 2, 1, 1)],
        (4, 9),
    ),
}  # fmt: skip


def trained(name: str, config: object = None) -> tuple[nn.Module, Tensor]:
    """A prepared network after some steps of training, in eval, and a batch for it."""
    layers, shape = CASES[name]
    torch.manual_seed(0)
    model = copy.deepcopy(nn.Sequential(*layers))
    shake(model)
    x = torch.randn(16, *shape)
    prepared = ts.quant.prepare(model.train(), x[:2], config)
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        prepared(x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in prepared.parameters())
    return prepared.eval(), torch.randn(5, *shape)


@pytest.mark.parametrize("config", [None, {"bits": 4}, {"weight": {"quantizer": "lsq"}}], ids=["int8", "4 bits", "lsq"])
@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_its_integers_are_those_of_eval(name: str, config: object) -> None:
    prepared, x = trained(name, config)
    assert ts.quant.float_layers(prepared) == []
    converted = ts.quant.convert(prepared)
    assert torch.equal(converted(x), prepared(x))
    assert not any(node.gives_floats for node in converted.integer_graph.nodes)


@pytest.mark.parametrize("name", CASES)
def test_without_rounding_it_computes_what_it_did(name: str) -> None:
    layers, shape = CASES[name]
    torch.manual_seed(1)
    model = copy.deepcopy(nn.Sequential(*layers))
    shake(model)
    x = torch.randn(4, *shape)
    prepared = ts.quant.prepare(model.eval(), x)
    ts.quant.disable_fake_quant(prepared)
    torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-5)
    graph = ts.graph.capture(model, x)
    torch.testing.assert_close(ts.graph.run_float(graph, x), model(x), rtol=1e-4, atol=1e-5)
    folded = ts.graph.fold_batch_norms(graph)
    torch.testing.assert_close(ts.graph.run_float(folded, x), model(x), rtol=1e-4, atol=1e-5)
    assert "batch_norm2d" not in [node.kind for node in folded.nodes]


#: A layer with its batch norm, and the shape of one input.
NORMED: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 8), nn.BatchNorm1d(8), (6,)),
    "conv1d": (nn.Conv1d(4, 8, 3, groups=2), nn.BatchNorm1d(8), (4, 9)),
    "transposed 1d": (nn.ConvTranspose1d(4, 8, 3, 2, groups=2), nn.BatchNorm1d(8), (4, 9)),
    "transposed 2d": (nn.ConvTranspose2d(4, 8, 3, 2, groups=2), nn.BatchNorm2d(8), (4, 5, 5)),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NORMED)
def test_eval_is_the_unfolded_layer_in_float64_rounded(name: str, frozen: bool) -> None:
    torch.manual_seed(2)
    layer, norm, shape = NORMED[name]
    model = copy.deepcopy(nn.Sequential(layer, norm))
    shake(model)
    with torch.no_grad():
        model[1].weight[1], model[1].weight[2] = -0.7, 1.5
        model[1].running_var[2] = 1e-12
        model[1].running_mean[2] = 0.0
    prepared = ts.quant.prepare(model.train(), torch.randn(2, *shape))
    ts.quant.freeze_batch_norm(prepared, frozen)
    before = copy.deepcopy(norm_of(prepared))
    for _ in range(20):
        prepared(torch.randn(16, *shape))
    unchanged = all(torch.equal(before[key], value) for key, value in norm_of(prepared).items())
    assert unchanged == frozen
    with torch.no_grad():
        norm_of(prepared)["running_var"][2] = 1e-12
    quant_layer = prepared.get_submodule("0")
    source, output = quant_layer.input_fake_quantize, quant_layer.output_fake_quantize
    x = source(torch.randn(32, *shape)).detach()
    y = prepared.eval()(x)

    unfolded = copy.deepcopy(model).double().eval()
    unfolded[1].load_state_dict({k: v.double() for k, v in norm_of(prepared).items()})
    weight, scale = weight_by_hand(quant_layer.weight.detach(), layer)
    unfolded[0].weight = nn.Parameter(weight.double())
    unfolded[0].bias = nn.Parameter(quant_layer.bias.detach().double())
    expected = unfolded(x.double())
    low = (output.quant_min - output.zero_point) * output.scale
    high = (output.quant_max - output.zero_point) * output.scale
    factor = (unfolded[1].weight / (unfolded[1].running_var + 1e-5).sqrt()).abs()
    # Half a step of the output, and half a step of the sums, to which the bias is rounded.
    room = 0.501 * output.scale + 0.51 * (factor * scale * source.scale).view(1, -1, *[1] * (x.dim() - 2)) + 1e-5
    assert ((y.double() - expected.clamp(low, high)).abs() <= room).all()


def norm_of(prepared: nn.Module) -> dict[str, Tensor]:
    return {k.removeprefix("1."): v for k, v in prepared.state_dict().items() if k.startswith("1.")}


def weight_by_hand(weight: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight on a grid for each output channel, and the scales, one channel after the other."""
    rounded, scales = weight.clone(), []
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    groups = layer.groups if transposed else 1
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    for o in range(outputs):
        where: tuple[slice | int, ...] = (o,)
        if transposed:
            group, own = divmod(o, weight.shape[1])
            inputs = weight.shape[0] // groups
            where = (slice(group * inputs, (group + 1) * inputs), own)
        scale = weight[where].abs().max() / 127
        rounded[where] = torch.round(weight[where] / scale).clamp(-127, 127) * scale
        scales.append(scale)
    return rounded, torch.stack(scales)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_trains_on_a_grid_for_each_output_channel(groups: int) -> None:
    torch.manual_seed(3)
    conv = nn.ConvTranspose2d(4, 6, 3, 2, groups=groups, bias=False)
    source = ts.quant.FakeQuantize()
    x = source(torch.randn(2, 4, 5, 5)).detach().requires_grad_()
    layer = QuantConvTranspose2d(copy.deepcopy(conv), source)
    seen: list[Tensor] = []
    layer.output_fake_quantize.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    gradient = torch.randn_like(layer(x))
    weight, _ = weight_by_hand(conv.weight.detach(), conv)
    weight = weight.requires_grad_()
    expected = F.conv_transpose2d(x, weight, None, 2, groups=groups)
    torch.testing.assert_close(seen[0], expected)
    ours = torch.autograd.grad(seen[0], [layer.weight, x], gradient)
    for got, wanted in zip(ours, torch.autograd.grad(expected, [weight, x], gradient), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_eval_of_a_transposed_convolution_has_the_gradient_of_the_unfolded_layers(groups: int) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=groups), nn.BatchNorm2d(6))
    shake(model)
    prepared = ts.quant.prepare(model, torch.zeros(1, 4, 5, 5)).train()
    for _ in range(5):
        prepared(torch.randn(8, 4, 5, 5))
    x = torch.randn(8, 4, 5, 5)
    layer = prepared.eval().get_submodule("0")
    y = prepared(x)
    inside = (y > y.min()) & (y < y.max())
    gradient = torch.randn_like(y) * inside
    y.backward(gradient)
    weight, _ = weight_by_hand(layer.weight.detach(), model[0])
    weight = weight.requires_grad_()
    norm = layer.batch_norm
    grid = layer.input_fake_quantize(x).detach()
    unfolded = norm(F.conv_transpose2d(grid, weight, layer.bias, 2, groups=groups))
    expected = torch.autograd.grad(unfolded, [weight, layer.bias, norm.weight, norm.bias], gradient)
    ours = [layer.weight.grad, layer.bias.grad, norm.weight.grad, norm.bias.grad]
    for got, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-2)


def test_a_training_forward_of_a_transposed_convolution_compiles_whole() -> None:
    prepared, x = trained("transposed, groups")
    prepared.train()
    expected = copy.deepcopy(prepared)(x)
    torch.testing.assert_close(torch.compile(prepared, fullgraph=True, backend="aot_eager")(x), expected)


def test_a_frozen_grid_of_a_transposed_convolution_ships_and_loads() -> None:
    prepared, x = trained("transposed, groups")
    layer = prepared.get_submodule("1")
    scale = layer.weight_by_outputs().detach().abs().flatten(1).amax(1) / 7
    layer.freeze_weight_grid(scale)
    converted = ts.quant.convert(prepared)
    assert torch.equal(converted(x), prepared(x))
    assert converted.get_submodule("1").codes.abs().max() == 7
    again, _ = trained("transposed, groups")
    again.load_state_dict(prepared.state_dict())
    assert torch.equal(again.eval()(x), prepared(x))
    with pytest.raises(ValueError, match="one scale for each of the 9 output channels"):
        layer.freeze_weight_grid(torch.ones(6))


def test_gptq_and_adaround_round_conv1d_and_refuse_transposed_convolutions_by_name() -> None:
    prepared, x = trained("conv1d, groups")
    ts.quant.apply_gptq(prepared, [x], bits=4)
    converted = ts.quant.convert(prepared)
    assert torch.equal(converted(x), prepared(x))
    assert converted.get_submodule("0").codes.abs().max() <= 7
    prepared, x = trained("conv1d")
    ts.quant.apply_adaround(prepared, [x], bits=4, iterations=100)
    assert torch.equal(ts.quant.convert(prepared)(x), prepared(x))
    prepared, x = trained("transposed")
    with pytest.raises(ValueError, match="layer '0' is a transposed convolution"):
        ts.quant.apply_gptq(prepared, [x], bits=4)
    with pytest.raises(ValueError, match="layer '0' is a transposed convolution"):
        ts.quant.apply_adaround(prepared, [x], bits=4)


@pytest.mark.parametrize("name", ["conv1d", "transposed, groups", "transposed 1d", "linear"])
def test_summary_sensitivity_and_bias_correction_know_the_layers(name: str) -> None:
    prepared, x = trained(name)
    rows = ts.quant.summary(prepared, x)
    assert all(row.saturated == 0 and row.sqnr > 20 for row in rows if row.tensor == "weight")
    found = ts.quant.sensitivity(prepared, lambda model: float(model(x).square().mean()), bits=(4,))
    layers = [module for module in prepared.modules() if isinstance(module, QuantLayer)]
    assert [row.channels for row in found.rows] == [layer.weight_by_outputs().shape[0] for layer in layers]
    ts.quant.correct_bias(prepared, [x])
    assert torch.equal(ts.quant.convert(prepared)(x), prepared(x))


def test_an_output_size_and_a_norm_of_other_channels_stay_in_float() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 2, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x, output_size=(8, 8))

    prepared = ts.quant.prepare(Sized(), torch.zeros(1, 2, 4, 4))
    assert ts.quant.float_layers(prepared) == ["up"]
    tokens = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(5))  # the norm is over tokens, not features
    prepared = ts.quant.prepare(tokens, torch.zeros(2, 5, 6))
    assert ts.quant.float_layers(prepared) == ["1"]


def test_files_hold_them(tmp_path: Path) -> None:
    for name in ("conv1d", "transposed, groups", "transposed 1d", "linear"):
        layers, shape = CASES[name]
        model = copy.deepcopy(nn.Sequential(*layers)).eval()
        shake(model)
        x = torch.randn(2, *shape)
        path = f"{tmp_path}/net.ptl"
        ts.deploy.save(model, x, path)
        torch.testing.assert_close(ts.deploy.load(path)(x), model(x), rtol=1e-4, atol=1e-4)
        prepared, x = trained(name)
        ts.deploy.save(prepared, x, path)
        assert torch.equal(ts.deploy.load(path)(x), ts.quant.convert(prepared)(x))


def test_multiplications_of_a_transposed_convolution_are_counted_by_its_inputs() -> None:
    graph = ts.graph.capture(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), torch.zeros(1, 4, 5, 5))
    assert graph.nodes[1].kind == "conv_transpose2d" and graph.nodes[1].shape == [1, 6, 11, 11]
    assert ts.graph.count_macs(graph) == 4 * 5 * 5 * math.prod((3, 3, 3))
