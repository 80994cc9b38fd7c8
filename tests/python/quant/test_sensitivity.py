# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
from pathlib import Path

import pytest
import torch
from reference.quant_networks import Residual, example
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import FakeQuantize


def made() -> nn.Module:
    torch.manual_seed(0)
    return Residual().train()


def prepared() -> ts.quant.PreparedModel:
    model = ts.quant.prepare(made(), example())
    with torch.no_grad():
        model(example())
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_one_layer_at_a_time_and_everything_as_it_was() -> None:
    model = made()
    before = state(model)
    x = example()
    seen: list[list[str]] = []

    def evaluate(model: nn.Module) -> float:
        assert not model.training and not torch.is_grad_enabled()
        seen.append([name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])])
        return model(x).abs().mean().item()

    calls: list[tuple[int, int]] = []
    found = ts.quant.sensitivity(model, evaluate, (2, 8), progress=lambda *done: calls.append(done))
    assert_unchanged(model, before)
    names = [row.layer for row in found.rows]
    assert names == ["stem", "conv1", "conv2", "shortcut.0", "classifier"]
    assert seen == [[], *([f"{name}.weight"] for name in names for _ in range(2))]
    assert calls == [(i + 1, 11) for i in range(11)]
    for row in found.rows:
        weight = before[f"{row.layer}.weight"]
        assert (row.weights, row.channels, row.macs) == (weight.numel(), weight.shape[0], 0)
        rounded = copy.deepcopy(model).eval()
        rounded.get_submodule(row.layer).weight.data = ts.quant.round_weight(weight, 2).weight
        assert row.values[2] == pytest.approx(rounded(x).abs().mean().item(), rel=1e-6)
        assert found.damage(row.layer, 2) == pytest.approx(found.baseline - row.values[2])


def test_a_prepared_model_rounds_the_layers_output_too() -> None:
    model = prepared()
    before = state(model)
    flags = [module._flags for module in model.modules() if isinstance(module, FakeQuantize)]
    x = example()
    distinct = []

    def evaluate(model: nn.Module) -> float:
        outputs = []
        handle = model.conv1.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        y = model(x)
        handle.remove()
        distinct.append(len(outputs[0].unique()))
        return y.abs().mean().item()

    found = ts.quant.sensitivity(model, evaluate, [4, 8])
    assert_unchanged(model, before)
    assert flags == [module._flags for module in model.modules() if isinstance(module, FakeQuantize)]
    rounded = {1 + 2 * 1, 1 + 2 * 1 + 1}  # the evaluations of `conv1`, the second layer
    for i, count in enumerate(distinct):
        assert (count <= 256) == (i in rounded), i
    assert all(row.macs > 0 for row in found.rows)
    assert {row.layer: row.macs for row in found.rows}["stem"] == 8 * 27 * 16 * 16


def test_a_learned_grid_rounds_the_layers_output_too_and_the_widths_replace_the_weights_quantiser() -> None:
    config = {"bits": 4, "weight": {"quantizer": "lsq"}, "activation": {"quantizer": "lsq"}}
    model = ts.quant.prepare(made(), example(), config)
    with torch.no_grad():
        model(example())
    before, x, floats = state(model), example(), made().eval()
    layer, outputs = model.conv1, []

    def evaluate(model: nn.Module) -> float:
        handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        y = model(x)
        handle.remove()
        return y.abs().mean().item()

    ts.quant.sensitivity(model, evaluate, [2, 8])
    assert_unchanged(model, before)
    floats.load_state_dict({name: before[name] for name in floats.state_dict()})
    with torch.no_grad():
        inputs = torch.relu(floats.stem_bn(floats.stem(x)))
        for bits, output in zip((2, 8), outputs[3:5], strict=True):  # after float and the first layer's two
            weight = ts.quant.round_weight(layer.weight, bits).weight
            expected = floats.bn1(nn.functional.conv2d(inputs, weight, padding=1))
            torch.testing.assert_close(output, layer.output_fake_quantize.eval()(expected))
    steps = outputs[3] / layer.output_fake_quantize.scale
    assert torch.allclose(steps, steps.round(), atol=1e-4) and steps.min() >= -8 and steps.max() <= 7


def test_multiplications_of_a_float_model_need_an_example() -> None:
    found = ts.quant.sensitivity(made(), lambda model: 1.0, [8], example_inputs=example())
    assert {row.layer: row.macs for row in found.rows}["stem"] == 8 * 27 * 16 * 16


@pytest.mark.parametrize("make", [made, prepared])
def test_nan_is_refused_by_the_layer_and_everything_is_as_it_was(make: object) -> None:
    model = make()
    before = state(model)

    def evaluate(model: nn.Module) -> float:
        return 1.0 if torch.equal(model.conv2.weight, before["conv2.weight"]) else math.nan

    with pytest.raises(ValueError, match="evaluate returned nan with layer 'conv2' of 4 bits"):
        ts.quant.sensitivity(model, evaluate, [4])
    assert_unchanged(model, before)
    with pytest.raises(ValueError, match="evaluate returned inf with all layers in float"):
        ts.quant.sensitivity(model, lambda model: math.inf, [4])
    with pytest.raises(ZeroDivisionError):
        ts.quant.sensitivity(model, lambda model: 1 / int(torch.equal(model.conv2.weight, before["conv2.weight"])), [4])
    assert_unchanged(model, before)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"bits must name one width or more, none twice, got \(4, 4\)"):
        ts.quant.sensitivity(made(), lambda model: 1.0, (4, 4))
    with pytest.raises(ValueError, match="bits must be"):
        ts.quant.sensitivity(made(), lambda model: 1.0, (9,))
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        ts.quant.sensitivity(nn.ReLU(), lambda model: 1.0)
    with pytest.raises(ValueError, match=r"'stem\.output_fake_quantize' has seen no data"):
        ts.quant.sensitivity(ts.quant.prepare(made(), example()), lambda model: 1.0)
    found = ts.quant.sensitivity(made(), lambda model: 1.0, (8,))
    with pytest.raises(ValueError, match="no value for layer 'other' of 8 bits"):
        found.damage("other", 8)


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    model = made()
    x = example()
    found = ts.quant.sensitivity(model, lambda model: model(x).square().mean().item(), higher_is_better=False)
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "weights", "2", "bits", "4", "bits", "8", "bits"]
    assert len(lines) == 2 + len(found.rows)
    worst = max(found.rows, key=lambda row: found.damage(row.layer, 2))
    assert lines[2].split()[0] == worst.layer
    pytest.importorskip("matplotlib", reason="an extra of the examples")
    found.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
