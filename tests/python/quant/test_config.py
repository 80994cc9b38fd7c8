# SPDX-License-Identifier: BSD-3-Clause
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.quant_networks import NETWORKS, Depthwise, Residual, Vgg, example, shake
from torch import nn

import torchslim as ts
from torchslim.quant import (
    FakeQuantize,
    LearnedActivation,
    LearnedFakeQuantize,
    LevelFakeQuantize,
    MinMaxObserver,
    PreparedModel,
    QuantConfig,
    QuantConv2d,
    QuantLinear,
    WeightQuantizer,
)


def prepare(network: type[nn.Module], config: Mapping[str, Any]) -> PreparedModel:
    torch.manual_seed(0)
    model = network()
    shake(model)
    return ts.quant.prepare(model, example(), config)


def watch(model: nn.Module, batches: int = 20) -> None:
    with torch.no_grad():
        for _ in range(batches):
            model(example())


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(example()).square().mean().backward()
    optimizer.step()


# --- precedence -------------------------------------------------------------------------------------------------------


def test_a_name_goes_before_a_type_before_a_kind_before_the_rest() -> None:
    config = QuantConfig(
        {
            "bits": 8,
            "kinds": {"conv": {"bits": 6, "activation": {"bits": 7}}},
            "types": {nn.Conv2d: {"bits": 4}, "Linear": {"weight": {"bits": 3}}},
            "names": {"stem": {"weight": {"bits": 2}}},
        }
    )
    conv, linear = nn.Conv2d(1, 1, 1), nn.Linear(1, 1)
    stem = config.layer("stem", "conv", conv)
    assert (stem.weight.bits, stem.activation.bits) == (2, 4)
    other = config.layer("other", "conv", conv)
    assert (other.weight.bits, other.activation.bits) == (4, 4)
    classifier = config.layer("classifier", "linear", linear)
    assert (classifier.weight.bits, classifier.activation.bits) == (3, 8)
    assert config.layer("add_fake_quantize", "add").activation.bits == 8


def test_a_layer_in_float_and_one_that_is_not_after_all() -> None:
    config = QuantConfig({"types": {nn.Linear: None}, "names": {"last": {"bits": 8}, "first": "float"}})
    assert config.layer("hidden", "linear", nn.Linear(1, 1)).float
    assert not config.layer("last", "linear", nn.Linear(1, 1)).float
    assert config.layer("first", "conv", nn.Conv2d(1, 1, 1)).float


def test_a_subclass_goes_before_its_base() -> None:
    class Special(nn.Linear):
        pass

    config = QuantConfig({"types": {Special: {"bits": 2}, nn.Linear: {"bits": 4}}})
    assert config.layer("a", "linear", Special(1, 1)).activation.bits == 2
    assert config.layer("b", "linear", nn.Linear(1, 1)).activation.bits == 4


def test_bits_of_a_wider_level_count_where_the_quantiser_has_them() -> None:
    config = QuantConfig({"bits": 4, "names": {"a": {"weight": {"quantizer": "binary"}}, "b": {"bits": 1}}})
    binary = config.layer("a", "conv", nn.Conv2d(1, 1, 1))
    assert (binary.weight.quantizer, binary.weight.bits, binary.activation.bits) == ("binary", None, 4)
    assert config.layer("b", "conv", nn.Conv2d(1, 1, 1)).weight.quantizer == "binary"
    assert config.layer("c", "conv", nn.Conv2d(1, 1, 1)).weight.bits == 4


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bit": 4}, "config: unknown config key 'bit'; did you mean 'bits'"),
        ({"weight": {"symmetric": False}}, "'weight'.*unknown config key 'symmetric'"),
        ({"names": {"conv1": {"types": {}}}}, r"\['names'\]\['conv1'\]: unknown config key 'types'"),
        ({"bits": 9}, "activations have 1 to 8 bits, got 9"),
        ({"weight": {"bits": 9}}, "`fake_quantize` takes 2 to 8 bits, got 9"),
        ({"weight": {"bits": 4, "quantizer": "binary"}}, "`binary` has 1 bit, got 4"),
        ({"weight": {"bits": 1, "quantizer": "lsq"}}, "`lsq` takes 2 to 8 bits, got 1; 1 bit is `binary`"),
        ({"weight": {"quantizer": "binary"}, "names": {"conv1": {"bits": 8}}}, "conv1.*`binary` has 1 bit, got 8"),
        ({"weight": {"quantizer": "apot", "scale_search": "mse"}}, "scale_search `mse` goes with"),
        ({"weight": {"quantizer": "int8"}}, "quantizer must be one of fake_quantize, lsq"),
        ({"weight": None}, "set the whole layer to None"),
        ({"activation": {"quantizer": "lsqq"}}, "quantizer must be one of fake_quantize, lsq"),
        ({"activation": {"quantizer": "lsq", "symmetric": False}}, "'lsq' is symmetric; leave `symmetric` out"),
        ({"activation": {"quantizer": "lsq", "observer": "min_max"}}, "'lsq' has no observer"),
        ({"activation": {"quantizer": "lsq", "bits": 1}}, "quant_max must be > 0"),
        ({"activation": {"symmetric": True, "bits": 1}}, "symmetric"),
        ({"observer": "median"}, "observer must be one of moving_average"),
        ({"names": {"conv3": None}}, r"\['names'\]\['conv3'\] matches no layer; did you mean 'conv"),
        ({"names": {"relu": {"bits": 4}}}, r"\['names'\]\['relu'\] matches no layer"),
        ({"types": {nn.Conv3d: None}}, "Conv3d.*matches no layer; did you mean 'Conv2d'"),
        ({"types": {"Embedding": {"bits": 4}}}, "'Embedding'.*matches no layer; there are"),
        ({"kinds": {"convolution": {"bits": 4}}}, "'convolution'.*matches no layer"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    model = Residual()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        ts.quant.prepare(model, example(), config)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([4], "expected config to be None or a mapping, got list"),
        ({"bits": 4.0}, "expected bits to be a whole number"),
        ({"bits": True}, "expected bits to be a whole number"),
        ({"activation": {"symmetric": 1}}, "expected symmetric to be True or False"),
        ({"names": {"conv1": 4}}, "conv1.*to be a mapping, or None for float, got 4"),
        ({"types": {4: None}}, "module classes or their names, got 4"),
        ({"types": [nn.Linear]}, "to be a mapping, got list"),
        ({"weight": {"quantizer": 4}}, "a name or a factory, got 4"),
        ({"activation": {"quantizer": lambda activation: nn.ReLU()}}, "must return a FakeQuantize.*got ReLU"),
    ],
)
def test_what_has_another_type_is_refused(config: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ts.quant.prepare(Residual(), example(), config)


# --- what it makes ----------------------------------------------------------------------------------------------------


def test_quantisers_are_those_that_were_asked_for() -> None:
    prepared = prepare(
        Residual,
        {
            "observer": MinMaxObserver(),
            "symmetric": True,
            "kinds": {"add": {"bits": 6}, "input": {"bits": 5}},
            "types": {nn.Linear: {"activation": {"quantizer": "range", "bits": 3}}},
            "names": {"conv1": {"weight": {"bits": 4}}, "add_fake_quantize_1": {"bits": 7}},
        },
    )
    assert prepared.input_fake_quantize.bits == 5 and prepared.input_fake_quantize.symmetric
    assert (prepared.add_fake_quantize.bits, prepared.add_fake_quantize_1.bits) == (6, 7)
    assert isinstance(prepared.classifier.output_fake_quantize, LearnedActivation)
    assert (prepared.classifier.output_fake_quantize.quant_min, prepared.classifier.output_fake_quantize.quant_max) == (
        -4,
        3,
    )
    assert prepared.conv1.weight_fake_quantize.bits == 4 and prepared.conv2.weight_fake_quantize is None
    assert isinstance(prepared.conv2.output_fake_quantize.observer, MinMaxObserver)


def test_int8_in_so_many_words_is_the_default() -> None:
    given = {"bits": 8, "symmetric": False, "activation": {"quantizer": "fake_quantize"}, "weight": {"bits": 8}}
    assert prepare(Residual, given).state_dict().keys() == prepare(Residual, {}).state_dict().keys()


def test_factories_make_the_users_own_quantisers() -> None:
    prepared = prepare(
        Residual,
        {
            "activation": {"quantizer": lambda activation: LearnedFakeQuantize(-8, 7, symmetric=False)},
            "weight": {"quantizer": lambda layer: WeightQuantizer(layer.weight, "lsq", 3)},
            "names": {
                "classifier": {
                    "weight": {
                        "quantizer": lambda layer: LevelFakeQuantize(ts.quant.apot_levels(4)).fit_scale(layer.weight)
                    }
                }
            },
        },
    )
    watch(prepared)
    assert isinstance(prepared.conv1.output_fake_quantize.learned, LearnedFakeQuantize)
    assert prepared.conv1.weight_fake_quantize.bits == 3
    assert not prepared.classifier.has_codes


# --- layers in float --------------------------------------------------------------------------------------------------


def test_a_last_layer_in_float_reads_the_grid_before_it() -> None:
    prepared = prepare(Residual, {"names": {"classifier": None}})
    assert type(prepared.classifier) is nn.Linear and ts.quant.float_layers(prepared) == ["classifier"]
    assert not any("classifier" in name for name in prepared.state_dict() if "fake_quantize" in name)


def test_first_layers_in_float_leave_the_input_alone() -> None:
    prepared = prepare(Residual, {"names": {"stem": None}})
    assert not hasattr(prepared, "input_fake_quantize") and type(prepared.stem) is nn.Conv2d
    x = example()
    expected = torch.relu(prepared.stem_bn.eval()(prepared.stem(x)))
    seen = []
    prepared.border_fake_quantize.register_forward_hook(lambda module, args, y: seen.append(args[0]))
    prepared(x)
    assert len(seen) == 1 and torch.equal(seen[0], expected)


def test_everything_in_float_is_the_float_model() -> None:
    torch.manual_seed(0)
    for network in NETWORKS:
        model = network().eval()
        kinds = {"conv": None, "linear": None, **({"add": None} if network is Residual else {})}
        prepared = ts.quant.prepare(model, example(), {"kinds": kinds})
        x = example()
        assert torch.equal(prepared(x), model(x))
        assert not list(ts.quant.prepared_model.fake_quantizers(prepared))


def test_a_layer_in_float_between_others_is_rounded_for_its_readers() -> None:
    prepared = prepare(Depthwise, {"names": {"3": None}})
    watch(prepared)
    assert [name for name, _ in ts.quant.prepared_model.fake_quantizers(prepared)] == [
        "0.output_fake_quantize",
        "7.output_fake_quantize",
        "13.output_fake_quantize",
        "input_fake_quantize",
        "border_fake_quantize",
    ]
    prepared.eval()(example()).sum().backward()
    assert all(p.grad is not None for p in prepared.parameters())


MIXED: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (Residual, {"names": {"classifier": None}}),
    (Residual, {"names": {"stem": None, "conv2": None}}),
    (Depthwise, {"names": {"3": None}}),
    (Vgg, {"names": {"fc1": {"weight": {"quantizer": "float8_e4m3"}}}}),
    (Depthwise, {"weight": {"quantizer": "apot"}}),
    (Residual, {"names": {"conv1": {"weight": {"quantizer": lambda layer: nn.Hardtanh(-0.1, 0.1)}}}}),
]


@pytest.mark.parametrize(("network", "config"), MIXED)
def test_layers_in_float_and_without_codes_convert_to_floats_between_integers(
    network: type[nn.Module], config: dict[str, Any]
) -> None:
    prepared = prepare(network, config)
    watch(prepared)
    converted = ts.quant.convert(prepared)
    last = converted.integer_graph.nodes[-1]
    x = example()
    with torch.no_grad():
        difference = (converted(x) - prepared.eval()(x)).abs()
    step = float(prepared.border_fake_quantize.scale) if hasattr(prepared, "border_fake_quantize") else 0.05
    assert difference.max() <= (step if last.gives_floats else 1.5 * last.scale)
    assert any(node.gives_floats for node in converted.integer_graph.nodes)


# --- training, converting, saving -------------------------------------------------------------------------------------

GRIDS: dict[str, dict[str, Any]] = {
    "W4A8": {"weight": {"bits": 4}},
    "W4A4": {"bits": 4},
    "W2A8": {"weight": {"bits": 2}},
    "W4A4 LSQ": {"bits": 4, "activation": {"quantizer": "lsq"}, "weight": {"quantizer": "lsq"}},
    "W8A8 LSQ+": {"activation": {"quantizer": "lsq+"}, "weight": {"quantizer": "lsq"}},
    "W3 by error, PACT": {"weight": {"bits": 3, "scale_search": "mse"}, "activation": {"quantizer": "pact"}},
    "binary, TQT": {"weight": {"quantizer": "binary"}, "activation": {"quantizer": "tqt"}},
    "ternary, range": {"weight": {"quantizer": "ternary"}, "activation": {"quantizer": "range", "bits": 6}},
    "symmetric": {"bits": 5, "symmetric": True},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("grid", GRIDS)
def test_what_trained_is_what_converts(grid: str, network: type[nn.Module]) -> None:
    """Eval and integers differ by a step at most, where the last bit of a float sum meets a tie."""
    prepared = prepare(network, GRIDS[grid])
    watch(prepared)
    for kind in (torch.optim.SGD, torch.optim.Adam):
        step(prepared, kind(prepared.parameters(), lr=1e-2))
    watch(prepared)
    converted = ts.quant.convert(prepared)
    prepared.eval()
    x = example()
    with torch.no_grad():
        steps = (converted(x) - prepared(x)).abs() / converted.integer_graph.nodes[-1].scale
    assert steps.max() <= 1.5
    assert (steps > 0.5).float().mean() < 0.02
    for name, layer in prepared.named_modules():
        if isinstance(layer, QuantConv2d | QuantLinear):
            codes = converted.get_submodule(name).codes
            largest = 127 if layer.weight_fake_quantize is None else layer.weight_fake_quantize.largest_code
            assert codes.abs().max() <= largest


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("grid", ["W4A4", "W4A4 LSQ", "ternary, range", "symmetric"])
def test_a_file_of_fewer_bits_computes_what_the_reference_does(
    grid: str, network: type[nn.Module], tmp_path: Path
) -> None:
    """`save` holds the file to the integer reference, and writes none that differs."""
    prepared = prepare(network, GRIDS[grid])
    watch(prepared)
    converted = ts.quant.convert(prepared)
    ts.deploy.save(converted, example(), tmp_path / "model.ptl")
    x = example()
    assert torch.equal(ts.deploy.load(tmp_path / "model.ptl")(x), converted(x))


def test_a_model_that_is_not_int8_throughout_says_what_it_is_as_in_cpp() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    lsq = {"activation": {"quantizer": "lsq", "bits": 4}, "weight": {"quantizer": "lsq", "bits": 4}}
    prepared = ts.quant.prepare(model, example(), {"names": {"0": lsq, "3": None}})
    assert bytes(prepared.quantization_config.tolist()).decode() == (
        '{"0": "weight lsq 4, activation lsq [0, 15]", "3": "float", '
        '"input_fake_quantize": "fake_quantize [-128, 127]"}'
    )
    assert "quantization_config" not in prepare(Residual, {}).state_dict()


@pytest.mark.parametrize("grid", ["W4A4", "W4A4 LSQ", "binary, TQT"])
def test_a_state_of_the_same_config_loads(grid: str) -> None:
    prepared = prepare(Residual, GRIDS[grid])
    watch(prepared)
    fresh = ts.quant.prepare(Residual(), example(), GRIDS[grid])
    fresh.load_state_dict(prepared.state_dict())
    x = example()
    assert torch.equal(fresh.eval()(x), prepared.eval()(x))


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        ({}, {"bits": 4}, r"'stem' was trained.*weight fake_quantize 8, activation.*weight fake_quantize 4"),
        ({"bits": 4}, {}, r"'stem' was trained.*weight fake_quantize 4.*\[-8, 7\].*the model 'weight fake_quantize 8"),
        ({"names": {"conv2": {"bits": 4}}}, {"names": {"conv2": {"bits": 2}}}, "'conv2'.*fake_quantize 4.*quantize 2"),
        ({"names": {"classifier": None}}, {}, "'classifier'.*the state has 'float'"),
        ({"weight": {"quantizer": "lsq"}}, {"weight": {"bits": 4}}, "'stem'.*weight lsq 8"),
        ({"kinds": {"add": {"symmetric": True}}}, {}, r"'add_fake_quantize'.*symmetric \[-127, 127\]"),
    ],
)
def test_a_state_of_another_config_is_refused(saved: dict[str, Any], loaded: dict[str, Any], message: str) -> None:
    state = prepare(Residual, saved).state_dict()
    model = prepare(Residual, loaded)
    before = copy.deepcopy(model.state_dict())
    for strict in (True, False):
        with pytest.raises(ValueError, match=message):
            model.load_state_dict(state, strict=strict)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_state_of_a_float_model_loads_whatever_the_config() -> None:
    model = Vgg()
    prepared = prepare(Vgg, {"bits": 4, "weight": {"quantizer": "lsq"}})
    prepared.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(prepared.fc1.weight, model.fc1.weight)


def test_quantisers_of_all_kinds_answer_to_the_same_calls() -> None:
    prepared = prepare(Residual, {"activation": {"quantizer": "lsq"}, "kinds": {"add": {"activation": {"bits": 4}}}})
    watch(prepared)
    x = example()
    ts.quant.disable_fake_quant(prepared)
    float_output = prepared.eval()(x)
    ts.quant.enable_fake_quant(prepared)
    assert not torch.equal(prepared(x), float_output)
    ts.quant.disable_observer(prepared.train())
    prepared(x).sum().backward()
    assert prepared.conv1.output_fake_quantize.learned.scale.grad is None
    ts.quant.enable_observer(prepared)
    prepared(x).sum().backward()
    assert prepared.conv1.output_fake_quantize.learned.scale.grad is not None
    assert isinstance(prepared.add_fake_quantize, LearnedActivation)
    assert not any(isinstance(module, FakeQuantize) for module in prepared.modules())
