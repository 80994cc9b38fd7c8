# SPDX-License-Identifier: BSD-3-Clause
import pytest
import torch
from quant_tools import assert_compiles_whole
from reference.quant_networks import Residual, example
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import WeightQuantizer, round_weight

WITH_CODES = [("fake_quantize", bits) for bits in range(2, 9)] + [
    ("lsq", 2),
    ("lsq", 4),
    ("lsq", 8),
    ("binary", 1),
    ("ternary", 2),
]
WITHOUT_CODES = ["apot", "power_of_two", "float8_e4m3", "float8_e5m2", "float16", "bfloat16"]


def weights() -> Tensor:
    torch.manual_seed(0)
    weight = torch.randn(6, 3, 3, 3) * torch.tensor([1.0, 2, 3, 0.1, 1e-3, 0]).view(-1, 1, 1, 1)
    return weight.requires_grad_()


@pytest.mark.parametrize(("quantizer", "bits"), WITH_CODES)
def test_codes_times_scale_is_the_rounded_weight(quantizer: str, bits: int) -> None:
    weight = weights()
    module = WeightQuantizer(weight, quantizer, bits)
    rounded, scale = module(weight)
    codes, steps = module.quantize(weight)
    assert codes.dtype == torch.int8 and codes.abs().max() <= module.largest_code
    assert torch.equal(scale, steps) and scale.shape == (6,) and not scale.requires_grad
    assert torch.equal(codes.float() * scale.view(-1, 1, 1, 1), rounded)
    assert torch.equal(codes[5], torch.zeros(3, 3, 3, dtype=torch.int8))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("search", ["absmax", "mse"])
def test_the_grid_is_that_of_round_weight(bits: int, search: str) -> None:
    weight = weights()
    rounded, scale = WeightQuantizer(weight, bits=bits, scale_search=search)(weight)
    expected = round_weight(weight.detach(), bits, search)
    assert torch.equal(rounded, expected.weight) and torch.equal(scale, expected.scale)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_no_weight_lies_outside_a_grid_made_for_it_so_the_gradient_passes(bits: int) -> None:
    weight = weights()
    dy = torch.randn_like(weight)
    WeightQuantizer(weight, bits=bits)(weight)[0].backward(dy)
    assert torch.equal(weight.grad, dy)


def test_a_scale_that_cuts_off_gives_no_gradient_beyond_it() -> None:
    weight = weights()
    rounded, scale = WeightQuantizer(weight, bits=2, scale_search="mse")(weight)
    rounded.sum().backward()
    inside = (weight.detach() / scale.view(-1, 1, 1, 1)).round().abs() <= 1
    assert torch.equal(weight.grad, inside.float()) and not inside.all()


def test_lsq_begins_with_the_weights_scale_and_trains_it() -> None:
    weight = weights()
    module = WeightQuantizer(weight, "lsq", 4)
    assert torch.equal(module.scale, round_weight(weight.detach(), 4).scale)
    module(weight)[0].square().sum().backward()
    assert module.scale.grad.shape == (6,) and module.scale.grad[:3].abs().min() > 0
    with torch.no_grad():
        module.scale.neg_()
    assert (module.quantize(weight)[1] > 0).all()


@pytest.mark.parametrize("quantizer", WITHOUT_CODES)
def test_levels_and_floats_give_the_weight_alone(quantizer: str) -> None:
    weight = weights()
    module = WeightQuantizer(weight, quantizer)
    rounded, scale = module(weight)
    assert scale is None and not module.has_codes
    assert torch.equal(module.traced(weight), rounded)
    torch.testing.assert_close(rounded.abs().amax((1, 2, 3)), weight.abs().amax((1, 2, 3)), rtol=1e-2, atol=0)
    rounded.sum().backward()
    assert weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=f"'{quantizer}' gives no integer codes"):
        module.quantize(weight)
    with pytest.raises(ValueError, match="has no grid to freeze"):
        module.freeze(torch.ones(6))


@pytest.mark.parametrize(("quantizer", "bits"), [("fake_quantize", 8), ("lsq", 4), ("ternary", 2)])
def test_a_frozen_grid_does_not_follow_the_weight(quantizer: str, bits: int) -> None:
    weight = weights()
    module = WeightQuantizer(weight, quantizer, bits)
    scale = torch.full((6,), 0.25)
    module.freeze(scale)
    assert list(module.state_dict()) == ["scale"] and not list(module.parameters())
    expected = torch.clamp(torch.round(weight / 0.25), -module.largest_code, module.largest_code) * 0.25
    assert torch.equal(module(weight)[0], expected)
    assert torch.equal(module(2 * weight)[1], scale)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.ones(2, 1), r"expected scale float32 \(O\)"),
        (torch.ones(2, dtype=torch.float64), "float64"),
        (torch.tensor([1.0, 0.0]), "must be > 0"),
        (torch.tensor([1.0, float("nan")]), "finite"),
    ],
)
def test_a_grid_that_is_none_is_not_frozen(scale: Tensor, message: str) -> None:
    module = WeightQuantizer(torch.ones(2, 2))
    with pytest.raises(ValueError, match=message):
        module.freeze(scale)
    assert not module.is_frozen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int8",), "must be one of fake_quantize, lsq, binary"),
        (("lsq", 1), "takes 2 to 8 bits, got 1"),
        (("float16", 8), "has 16 bits, got 8"),
        (("fake_quantize", 8, "percentile"), "must be `absmax` or `mse`"),
    ],
)
def test_wrong_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightQuantizer(torch.ones(2, 2), *arguments)  # type: ignore[arg-type]


def test_nan_is_refused_where_integers_are_made() -> None:
    for quantizer in ("fake_quantize", "lsq", "binary"):
        module = WeightQuantizer(torch.ones(2, 2), quantizer)
        with pytest.raises(ValueError, match="NaN or infinity"):
            module.quantize(torch.tensor([[1.0, float("nan")], [1.0, 1.0]]))


@pytest.mark.parametrize(("quantizer", "search"), [("fake_quantize", "mse"), ("lsq", "absmax"), ("ternary", "absmax")])
def test_it_compiles_whole(quantizer: str, search: str) -> None:
    module = WeightQuantizer(weights(), quantizer, 2, search)
    assert_compiles_whole(lambda weight: module(weight)[0].square().sum(), weights())


# --- in a layer -------------------------------------------------------------------------------------------------------


def watched(config: dict[str, object]) -> ts.quant.PreparedModel:
    torch.manual_seed(0)
    prepared = ts.quant.prepare(Residual(), example(), config)
    with torch.no_grad():
        for _ in range(10):
            prepared(example())
    return prepared


def test_weights_that_gptq_rounded_ship_as_they_are() -> None:
    prepared = watched({})
    layer = prepared.conv1
    rounded = round_weight(layer.weight.detach(), 4, "mse")
    with torch.no_grad():
        layer.weight.copy_(rounded.weight)
    layer.freeze_weight_grid(rounded.scale)
    codes, _, _ = layer.folded()
    signs = torch.sign(prepared.bn1.weight).view(-1, 1, 1, 1).to(torch.int8)
    assert torch.equal(codes * signs, rounded.codes)
    converted = ts.quant.convert(prepared)
    assert torch.equal(converted.conv1.codes, codes)
    x = example()
    with torch.no_grad():
        steps = (converted(x) - prepared.eval()(x)).abs() / converted.integer_graph.nodes[-1].scale
    assert steps.max() <= 1.5


def test_a_frozen_grid_is_saved_and_loaded() -> None:
    prepared = watched({})
    prepared.conv1.freeze_weight_grid(torch.full((8,), 0.125))
    fresh = ts.quant.prepare(Residual(), example())
    fresh.load_state_dict(prepared.state_dict())
    assert fresh.conv1.weight_fake_quantize.is_frozen
    x = example()
    assert torch.equal(fresh.eval()(x), prepared.eval()(x))


def test_a_grid_for_another_layer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="layer 'conv1': freeze_weight_grid: expected one scale for each of the 8"):
        watched({}).conv1.freeze_weight_grid(torch.ones(3))


@pytest.mark.parametrize("quantizer", WITHOUT_CODES)
def test_a_layer_without_codes_runs_in_float_with_its_weight_rounded(quantizer: str) -> None:
    prepared = watched({"names": {"classifier": {"weight": {"quantizer": quantizer}}}}).eval()
    layer = prepared.classifier
    assert not layer.has_codes and prepared.conv1.has_codes
    x = torch.randn(4, 16)
    rounded = layer.weight_fake_quantize(layer.weight)[0]
    assert torch.equal(layer(x), layer.output_fake_quantize(nn.functional.linear(x, rounded, layer.bias)))
    with pytest.raises(ValueError, match=r"layer 'classifier'.*gives no integer codes"):
        layer.folded()


def test_keys_of_int8_layers_have_no_weight_quantiser() -> None:
    keys = watched({"names": {"conv1": {"weight": {"quantizer": "lsq", "bits": 4}}}}).state_dict()
    assert [key for key in keys if "weight_fake_quantize" in key] == ["conv1.weight_fake_quantize.scale"]
    assert not any("weight_fake_quantize" in key for key in watched({}).state_dict())
