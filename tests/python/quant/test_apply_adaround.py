# SPDX-License-Identifier: BSD-3-Clause
import copy

import pytest
import torch
from reference.quant_networks import NETWORKS, Residual, Vgg
from test_apply_gptq import error, layers_of, nearest_of
from torch import nn
from trained_tools import calibrated_and_data, in_float, state

import torchslim as ts
from torchslim.quant import LayerSamples, adaround


@pytest.mark.parametrize("network", NETWORKS)
def test_the_output_is_nearer_to_the_float_one(network: type[nn.Module]) -> None:
    prepared, data = calibrated_and_data(network, batches=6)
    expected = in_float(prepared, torch.cat(data))
    nearest = error(nearest_of(prepared, 3), data, expected)
    ts.quant.apply_adaround(prepared, data, 3, iterations=1000)
    assert error(prepared, data, expected) < 0.5 * nearest


def test_each_number_goes_up_or_down() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = {name: layer.weight.detach().clone() for name, layer in layers_of(prepared).items()}
    ts.quant.apply_adaround(prepared, data, 4, iterations=50)
    for name, layer in layers_of(prepared).items():
        scale = ts.quant.weight_scale(before[name], 4).view(-1, *[1] * (layer.weight.dim() - 1))
        steps = layer.weight / scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert ((steps.round() - before[name] / scale).abs() < 1 + 1e-4).all()


def test_the_targets_are_those_of_the_float_model() -> None:
    """The second layer learns from what the first gives in int8, and answers what it answers behind the float first."""
    prepared, data = calibrated_and_data(Vgg)
    before = copy.deepcopy(prepared)
    ts.quant.apply_adaround(prepared, data, 3, iterations=20)
    samples = LayerSamples(before.conv2.weight.shape, padding=1)
    pool = nn.functional.max_pool2d
    with torch.no_grad():
        for batch in data:
            x = pool(prepared.conv1(before.input_fake_quantize(batch)), 2)
            floats = pool(torch.relu(nn.functional.conv2d(batch, before.conv1.weight, before.conv1.bias, padding=1)), 2)
            samples.add(x, nn.functional.conv2d(floats, before.conv2.weight, before.conv2.bias, padding=1))
    expected = adaround(before.conv2.weight, before.conv2.bias, samples, 3, iterations=20, activation="relu")
    assert torch.equal(expected.weight, prepared.conv2.weight)


def test_progress_and_only_weights_change() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = state(prepared)
    heard: list[tuple[int, int]] = []
    ts.quant.apply_adaround(prepared, data, 4, iterations=150, progress=lambda *step: heard.append(step))
    assert heard == [(150 * i + j, 750) for i in range(5) for j in (100, 150)]
    weights = {f"{name}.weight" for name in layers_of(prepared)}
    for name, tensor in before.items():
        assert torch.equal(prepared.state_dict()[name], tensor) == (name not in weights), name


def test_memory_is_bounded_and_the_seed_chooses() -> None:
    prepared, data = calibrated_and_data(Vgg)
    results = []
    for seed in (0, 0, 1):
        model = copy.deepcopy(prepared)
        ts.quant.apply_adaround(model, data, 3, iterations=60, max_bytes=200_000, seed=seed)
        results.append(model.conv2.weight)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
