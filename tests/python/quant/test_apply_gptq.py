# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
from collections.abc import Callable

import pytest
import torch
from reference.quant_networks import NETWORKS, Residual, Vgg, example
from torch import Tensor, nn
from trained_tools import assert_state, calibrated_and_data, in_float, prepared_and_data, state

import torchslim as ts
from torchslim.quant import HessianAccumulator, PreparedModel, QuantConv2d, QuantLinear, gptq, round_weight
from torchslim.quant.layer_walk import geometry, put_weight, walk_layers


def layers_of(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}


def nearest_of(prepared: PreparedModel, bits: int) -> PreparedModel:
    """A copy with all weights rounded to nearest."""
    model = copy.deepcopy(prepared)
    with torch.no_grad():
        for layer in layers_of(model).values():
            put_weight(layer, round_weight(layer.weight, bits))
    return model


def error(model: PreparedModel, data: list[Tensor], expected: Tensor) -> float:
    with torch.no_grad():
        return float((model(torch.cat(data)) - expected).square().mean())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("bits", [3, 4])
def test_weights_lie_on_their_grid_and_ship_as_they_are(network: type[nn.Module], bits: int) -> None:
    prepared, data = calibrated_and_data(network)
    scales = {name: ts.quant.weight_scale(layer.weight, bits) for name, layer in layers_of(prepared).items()}
    heard: list[tuple[int, int]] = []
    ts.quant.apply_gptq(prepared, data, bits, progress=lambda *step: heard.append(step))
    layers = layers_of(prepared)
    assert heard == [(i, len(layers)) for i in range(1, len(layers) + 1)]
    for name, layer in layers.items():
        steps = layer.weight / scales[name].view(-1, *[1] * (layer.weight.dim() - 1))
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        codes, _, _ = layer.folded()
        factor = ts.quant.layer_walk.channel_factor(layer)
        used = factor != 0
        expected = (steps * factor.sign().view(-1, *[1] * (steps.dim() - 1))).round().to(torch.int8)
        assert torch.equal(codes[used], expected[used])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_output_is_nearer_to_the_float_one(network: type[nn.Module]) -> None:
    prepared, data = calibrated_and_data(network)
    expected = in_float(prepared, torch.cat(data))
    nearest = error(nearest_of(prepared, 3), data, expected)
    ts.quant.apply_gptq(prepared, data, 3)
    assert error(prepared, data, expected) < 0.8 * nearest


def test_each_layer_sees_what_rounded_layers_give() -> None:
    """The second layer's Hessian is of the output of the first as it was rounded."""
    prepared, data = calibrated_and_data(Vgg)
    before = copy.deepcopy(prepared)
    ts.quant.apply_gptq(prepared, data, 3)
    first = before.conv1
    hessian = HessianAccumulator(first.weight.shape, padding=1)
    second = HessianAccumulator(before.conv2.weight.shape, padding=1)
    pool = nn.functional.max_pool2d
    with torch.no_grad():
        floats = [pool(torch.relu(nn.functional.conv2d(x, first.weight, first.bias, padding=1)), 2) for x in data]
        for batch in data:
            hessian.add(before.input_fake_quantize(batch), batch)
        put_weight(first, gptq(first.weight, hessian.hessian(), 3, drift=hessian.drift()))
        assert torch.equal(first.weight, prepared.conv1.weight)
        for batch, in_float in zip(data, floats, strict=True):
            second.add(pool(first(before.input_fake_quantize(batch)), 2), in_float)
        expected = gptq(before.conv2.weight, second.hessian(), 3, drift=second.drift())
        assert torch.equal(expected.weight, prepared.conv2.weight)


def test_layers_make_up_for_those_before() -> None:
    """Nearer to the float network than layers that aim at their own answer to the inputs they are given."""
    prepared, data = calibrated_and_data(Vgg, batches=6)  # of the networks, the one whose answers vary with the image
    expected = in_float(prepared, torch.cat(data))
    alone = copy.deepcopy(prepared)
    with walk_layers("test", alone, data) as walk:
        for layer in walk.layers:
            hessian = HessianAccumulator(layer.weight.shape, **geometry(layer))
            for rounded, _ in walk.values(layer):
                hessian.add(rounded.input)
            put_weight(layer, gptq(layer.weight, hessian.hessian(), 3))
    ts.quant.apply_gptq(prepared, data, 3)
    assert error(prepared, data, expected) < 0.7 * error(alone, data, expected)


@pytest.mark.parametrize("apply", [ts.quant.apply_gptq, ts.quant.apply_adaround])
def test_each_layer_has_the_bits_it_was_prepared_with(apply: Callable[..., None]) -> None:
    torch.manual_seed(0)
    config = {"weight": {"bits": 5}, "names": {"conv2": {"weight": {"bits": 3, "quantizer": "lsq"}}, "fc2": {}}}
    prepared = ts.quant.prepare(Vgg(), example(), config).eval()
    ts.quant.calibrate(prepared, [example()])
    iterations = {"iterations": 2} if apply is ts.quant.apply_adaround else {}
    apply(prepared, [example()], **iterations)
    found = {name: int(layer.folded()[0].abs().max()) for name, layer in layers_of(prepared).items()}
    assert found == {"conv1": 15, "conv2": 3, "fc1": 15, "fc2": 15}


def test_one_bit_leaves_no_choice() -> None:
    prepared = ts.quant.prepare(Vgg(), example(), {"weight": {"quantizer": "binary"}}).eval()
    ts.quant.calibrate(prepared, [example()])
    with pytest.raises(ValueError, match=r"apply_gptq: layer 'conv1' was prepared for 1 bit, which leaves no choice"):
        ts.quant.apply_gptq(prepared, [example()])


def test_only_weights_change() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = state(prepared)
    ts.quant.apply_gptq(prepared.train(), data, 4)
    assert all(module.training for module in prepared.modules())
    weights = {f"{name}.weight" for name in layers_of(prepared)}
    for name, tensor in before.items():
        assert torch.equal(prepared.state_dict()[name], tensor) == (name not in weights), name
    grids = {f"{name}.weight_fake_quantize.scale" for name in layers_of(prepared)}
    assert prepared.state_dict().keys() - before.keys() == grids


@pytest.mark.parametrize("apply", [ts.quant.apply_gptq, ts.quant.apply_adaround])
def test_after_an_error_the_model_is_as_it_was(apply: Callable[..., None]) -> None:
    prepared, data = calibrated_and_data(Vgg)
    before = state(prepared)

    def fail(done: int, total: int) -> None:
        if 2 * done >= total:
            raise KeyboardInterrupt

    iterations = {"iterations": 2} if apply is ts.quant.apply_adaround else {}
    with pytest.raises(KeyboardInterrupt):
        apply(prepared, data, progress=fail, **iterations)
    assert_state(prepared, before)
    for loader, message in (
        ([*data, data[0] * math.nan], r"batch 3 holds NaN or infinity"),
        ([], r"there is no batch"),
        (iter(data), r"the loader can be read once only, but each layer reads it; pass a DataLoader or list$"),
    ):
        with pytest.raises(ValueError, match=f"torchslim.quant.{apply.__name__}: " + message):
            apply(prepared, loader, **iterations)
        assert_state(prepared, before)
    with pytest.raises(ValueError, match=r"bits must be in \[2, 8\], got 9$"):
        apply(prepared, data, bits=9, **iterations)
    assert_state(prepared, before)
    raw, data = prepared_and_data(Vgg)
    with pytest.raises(ValueError, match=r"layer 'conv1' has seen no data; call torchslim.quant.calibrate first$"):
        apply(raw, data)
    with pytest.raises(ValueError, match=r"got Vgg without; call torchslim.quant.prepare first$"):
        apply(Vgg(), data)


@pytest.mark.parametrize("apply", [ts.quant.apply_gptq, ts.quant.apply_adaround])
@pytest.mark.parametrize("quantizer", ["fake_quantize", "lsq"])
def test_a_grid_of_fewer_bits(apply: Callable[..., None], quantizer: str) -> None:
    """Weights prepared for 4 bits take 4 and fewer; after an error, a learned scale is again a parameter."""
    torch.manual_seed(0)
    prepared = ts.quant.prepare(Vgg(), example(), {"weight": {"bits": 4, "quantizer": quantizer}}).eval()
    data = [example()]
    ts.quant.calibrate(prepared, data)
    before, parameters = state(prepared), [name for name, _ in prepared.named_parameters()]
    iterations = {"iterations": 2} if apply is ts.quant.apply_adaround else {}
    with pytest.raises(ValueError, match=r"layer 'conv1' was prepared for codes up to 7, which 5 bits pass; ask for"):
        apply(prepared, data, 5, **iterations)

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(prepared, data, 4, progress=fail, **iterations)
    assert_state(prepared, before)
    assert [name for name, _ in prepared.named_parameters()] == parameters
    apply(prepared, data, 4, **iterations)
    assert all(layer.weight_fake_quantize.is_frozen for layer in layers_of(prepared).values())
    assert torch.equal(
        prepared.conv1.folded()[0].float(),
        prepared.conv1.weight_fake_quantize.quantize(prepared.conv1.weight)[0].float(),
    )


def test_a_weight_without_codes_is_refused() -> None:
    prepared = ts.quant.prepare(Vgg(), example(), {"weight": {"quantizer": "apot"}}).eval()
    ts.quant.calibrate(prepared, [example()])
    with pytest.raises(ValueError, match=r"apply_gptq: the weight of layer 'conv1' has no grid of integers; give it"):
        ts.quant.apply_gptq(prepared, [example()])


def test_the_codes_ship() -> None:
    """The converted model computes what eval does, within a step."""
    prepared, data = calibrated_and_data(Residual)
    ts.quant.apply_gptq(prepared, data, 4)
    with torch.no_grad():
        expected = prepared(data[0])
        converted = ts.quant.convert(prepared)(data[0])
    assert (converted - expected).abs().max() <= 1.01 * prepared.classifier.output_fake_quantize.scale
