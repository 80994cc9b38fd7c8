# SPDX-License-Identifier: BSD-3-Clause
import copy
import math

import pytest
import torch
from reference.quant_networks import Residual, example

import torchslim as ts
from torchslim import _C
from torchslim.quant import PreparedModel

CONFIG = {
    "activation": {"quantizer": "lsq", "bits": 4},
    "names": {"conv1": {"weight": {"bits": 4}}, "conv2": {"weight": {"quantizer": "apot"}}, "classifier": None},
}


def watched() -> PreparedModel:
    torch.manual_seed(0)
    prepared = ts.quant.prepare(Residual(), example(), CONFIG)
    with torch.no_grad():
        prepared(example())
    return prepared


def test_rows_tell_quantiser_bits_scale_and_error() -> None:
    prepared = watched()
    x = example()
    before = copy.deepcopy(prepared.state_dict())
    rows = {(row.layer, row.tensor): row for row in ts.quant.summary(prepared, x)}
    assert all(torch.equal(before[name], value) for name, value in prepared.state_dict().items())
    assert prepared.training and prepared.bn1.training
    weight = prepared.conv1.weight.detach()
    rounded = ts.quant.round_weight(weight, 4)
    row = rows["conv1", "weight"]
    assert (row.grid, row.bits, row.saturated) == ("fake_quantize", 4, 0.0)
    assert (row.smallest_scale, row.largest_scale) == (float(rounded.scale.min()), float(rounded.scale.max()))
    noise = (weight.double() - rounded.weight.double()).square().sum()
    assert row.sqnr == pytest.approx(10 * math.log10(weight.double().square().sum() / noise), rel=1e-12)
    row = rows["conv2", "weight"]
    assert (row.grid, row.bits, row.smallest_scale, row.saturated) == ("apot", 4, None, None) and row.sqnr > 5
    row = rows["input_fake_quantize", "activation"]
    y = prepared.eval().input_fake_quantize(x)
    limit = 7 * float(prepared.input_fake_quantize.scale)
    assert (row.grid, row.bits) == ("lsq", 4) and row.smallest_scale == float(prepared.input_fake_quantize.scale)
    assert row.saturated == pytest.approx(float(((x - y).abs() > limit / 14 * 1.00001).float().mean()))
    assert 5 < row.sqnr < 40
    ts.quant.disable_fake_quant(prepared)
    with torch.no_grad():
        stem = torch.relu(prepared.stem_bn(torch.nn.functional.conv2d(x, prepared.stem.weight, padding=1)))
        ts.quant.enable_fake_quant(prepared)
        y = prepared.stem.output_fake_quantize(stem)
    noise = (stem.double() - y.double()).square().sum()
    assert rows["stem", "activation"].sqnr == pytest.approx(
        10 * math.log10(stem.double().square().sum() / noise), rel=1e-3
    )
    assert ("classifier", "weight") not in rows and ts.quant.float_layers(prepared) == ["classifier"]


def test_without_inputs_activations_are_not_compared() -> None:
    rows = [row for row in ts.quant.summary(watched()) if row.tensor == "activation"]
    assert rows and all(row.sqnr is None and row.saturated is None and row.smallest_scale for row in rows)
    fresh = ts.quant.prepare(Residual(), example())
    assert all(row.smallest_scale is None for row in ts.quant.summary(fresh) if row.tensor == "activation")


def test_the_table_has_a_line_for_each_row() -> None:
    found = ts.quant.summary(watched(), example())
    lines = str(found).splitlines()
    assert len(lines) == len(found) + 1 and lines[0].split()[:4] == ["layer", "tensor", "grid", "bits"]
    (line,) = [line for line in lines if line.startswith("conv1 ") and "weight" in line]
    assert line.split()[:4] == ["conv1", "weight", "fake_quantize", "4"] and "0.00 %" in line


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no quantiser"):
        ts.quant.summary(Residual())
    with pytest.raises(ValueError, match=r"'.*fake_quantize' has seen no data"):
        ts.quant.summary(ts.quant.prepare(Residual(), example()), example())
    prepared = watched()
    ts.quant.disable_fake_quant(prepared)
    with pytest.raises(ValueError, match="is disabled"):
        ts.quant.summary(prepared, example())
    with pytest.raises(TypeError, match="expected a prepared model, got Residual"):
        ts.quant.float_layers(Residual())


def test_the_error_of_a_grid() -> None:
    x = torch.tensor([[0.4, 3.0], [0.5, -2.0]])
    y = torch.tensor([[0.0, 1.0], [0.0, -2.0]])
    saturated, sqnr = _C.quant.grid_error(x, y, torch.tensor([1.0, 1.0]))
    assert saturated == 0.25
    assert sqnr == pytest.approx(10 * math.log10(13.41 / 4.41), abs=1e-6)
    assert _C.quant.grid_error(x, x, None) == (0.0, math.inf)
    with pytest.raises(ValueError, match="two tensors of one shape"):
        _C.quant.grid_error(x, y[0], None)
    with pytest.raises(ValueError, match="expected one scale, or 2, got 3"):
        _C.quant.grid_error(x, y, torch.ones(3))
