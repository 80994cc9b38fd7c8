# SPDX-License-Identifier: BSD-3-Clause
import copy

import pytest
import torch
import torch.nn.functional as F
from reference.equalize import equalized_chain
from reference.quant_networks import Depthwise, Residual, Vgg, example, shake
from torch import nn

import torchslim as ts
from torchslim.quant import equalize


def test_a_chain_of_linear_layers_is_as_in_the_reference() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Linear(6, 3))
    expected = equalized_chain([net[i].weight.detach().double().numpy() for i in (0, 2, 3)])
    x = torch.randn(10, 5)
    before = net(x)
    pairs = equalize(net, x)
    assert [(p.first, p.second) for p in pairs] == [("0", "2"), ("2", "3"), ("3", "")]
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)
    for i, wanted in zip((0, 2, 3), expected, strict=True):
        torch.testing.assert_close(net[i].weight.detach().double(), torch.from_numpy(wanted), rtol=1e-3, atol=1e-6)


def test_convolution_depthwise_convolution_get_one_range() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    equalize(net, example())
    first = net[0].weight.detach().abs().amax((1, 2, 3))
    depthwise = net[2].weight.detach().abs().amax((1, 2, 3))
    last = net[4].weight.detach().abs().amax((0, 2, 3))
    torch.testing.assert_close(first, depthwise, rtol=1e-3, atol=0)
    torch.testing.assert_close(last, depthwise, rtol=1e-3, atol=0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_pools_and_flatten(groups: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=groups, padding=1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 16, 5),
    ).eval()
    shake(net)
    x = example()
    before = net(x)
    pairs = equalize(net, x)
    assert [p.second for p in pairs] == ["4", "7", ""]
    assert all(p.scale is None or (p.scale != 1).any() for p in pairs)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)
    factor = net[1].weight / torch.sqrt(net[1].running_var + net[1].eps)
    first = (net[0].weight.abs().amax((1, 2, 3)) * factor.abs()).detach()
    second = net[4].weight.detach().abs().amax((2, 3)).view(groups, 12 // groups, -1).amax(1).flatten()
    torch.testing.assert_close(first[1:], second[1:], rtol=1e-3, atol=0)
    assert pairs[0].scale is not None and pairs[0].scale[0] == 1  # where gamma is 0, nothing can move


@pytest.mark.parametrize("network", [Vgg, Residual, Depthwise])
def test_whole_networks_compute_the_same(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().eval()
    shake(model)
    before = copy.deepcopy(model)
    x = example()
    equalize(model, x)
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-4)


def test_each_refusal_has_its_reason() -> None:
    model = Residual()
    reasons = {p.first: p.reason for p in equalize(model, example())}
    assert reasons == {
        "stem": "more than one layer reads its result",
        "conv1": "a residual addition reads its result",
        "conv2": "a residual addition reads its result",
        "shortcut.0": "a residual addition reads its result",
        "classifier": "it is the network's result",
    }
    reasons = {p.first: p.reason for p in equalize(Depthwise(), example())}
    assert reasons["0"] == "a ReLU6 follows, which factors would move; replace_relu6 makes it a ReLU"
    assert reasons["7"] == "batch norm `8` has no gamma to scale"
    layer = nn.Linear(4, 4)
    assert equalize(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4))[0].reason == (
        "a weight is used by several layers"
    )


def test_replaces_relu6_where_asked() -> None:
    torch.manual_seed(0)
    model = Depthwise().eval()
    shake(model)
    free = copy.deepcopy(model)
    free[2] = free[5] = nn.ReLU()
    x = example()
    pairs = equalize(model, x, replace_relu6=True)
    assert [type(model[i]) for i in (2, 5)] == [nn.ReLU, nn.ReLU]
    assert [(p.first, p.second) for p in pairs][:2] == [("0", "3"), ("3", "7")]
    torch.testing.assert_close(model(x), free(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.1), nn.PReLU(7)])
def test_other_activations_that_commute_with_factors(activation: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 7, 3), activation, nn.Conv2d(7, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 2, 1)).eval()
    x = example()
    before = net(x)
    assert [p.reason for p in equalize(net, x)] == ["", "sigmoid reads its result", "it is the network's result"]
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)


def test_fewer_steps_are_lost_to_a_grid_for_the_whole_tensor() -> None:
    """What it is for: activations share one grid, and channels that were small used few of its steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    with torch.no_grad():
        spread = torch.logspace(-2, 1, 16)
        model[0].weight.mul_(spread.view(-1, 1, 1, 1))
        model[0].bias.mul_(spread)
        model[2].weight.div_(spread.view(1, -1, 1, 1))
    x = example()
    expected = model(x).detach()

    def error(net: nn.Module) -> float:
        prepared = ts.quant.prepare(net, x).eval()
        ts.quant.calibrate(prepared, [x])
        with torch.no_grad():
            return float(F.mse_loss(prepared(x), expected))

    before = error(model)
    equalize(model, x)
    assert error(model) < 0.1 * before


def test_refuses_a_prepared_model_and_leaves_it() -> None:
    prepared = ts.quant.prepare(Vgg(), example())
    before = prepared.conv1.weight.clone()
    for replace in (False, True):
        with pytest.raises(ValueError, match=r"is quantised; equalise the float network, then prepare it$"):
            equalize(prepared, example(), replace_relu6=replace)
    assert torch.equal(prepared.conv1.weight, before)
