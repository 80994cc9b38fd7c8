# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from deploy_zoo import NETWORKS, images, trained
from torch import nn

import torchslim as ts


@pytest.mark.parametrize("make", NETWORKS)
def test_distances_are_those_of_a_loop(make: Callable[[], nn.Module]) -> None:
    """The float network is the prepared one without grids: the plain network with its weights."""
    model, x = trained(make), images(9, seed=5)
    graph = ts.graph.capture(model, x[:1])
    rows = ts.deploy.report_layers(graph, x)
    integers = ts.deploy.lower(graph)
    assert [(row.layer, row.op) for row in rows] == [(node.layer, node.op) for node in integers.nodes]
    plain = make()
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    expected = plain.eval()(x).detach().double()
    last = integers.nodes[-1]
    away = (ts.deploy.run_integer(integers, x).values.double() - expected).abs().flatten() / last.scale
    ends = [-1.0, *ts.deploy.STEP_BINS, float("inf")]
    counts = [sum(low + 0.5 < distance <= high + 0.5 for distance in away.tolist()) for low, high in pairwise(ends)]
    assert sum(counts) == expected.numel()
    assert sum(abs(a - b) for a, b in zip(rows[-1].steps, counts, strict=True)) <= 2  # floats at the edge of a bin
    assert rows[-1].mean_steps == pytest.approx(float(away.mean()), rel=1e-3)
    assert rows[-1].max_steps == pytest.approx(float(away.max()), rel=1e-3)


def test_costs_are_those_of_the_graph_and_bits_those_of_the_config() -> None:
    torch.manual_seed(0)
    config = {"weight": {"bits": 4}, "names": {"0": {"weight": {"bits": 8}}}}
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)]
    model = ts.quant.prepare(nn.Sequential(*layers), images(1), config)
    model(images(8))
    graph = ts.graph.capture(model.eval(), images(1))
    rows = ts.deploy.report_layers(graph, images(2))
    assert [row.weight_bits for row in rows] == [0, 8, 4]
    assert [row.macs for row in rows] == [0, 18 * 18 * 8 * 27, 16 * 16 * 5 * 72]
    assert [row.parameters for row in rows] == [0, 8 * 28, 5 * 73]
    assert [row.bytes for row in rows] == [0, 8 * 27 + 8 * 12, 5 * 72 + 5 * 12]
    assert sum(rows[1].steps) == 2 * 8 * 18 * 18


def test_a_transposed_convolution_takes_less_for_a_channel() -> None:
    torch.manual_seed(0)
    model = ts.quant.prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 5, 3)), images(1))
    model(images(8))
    rows = ts.deploy.report_layers(ts.graph.capture(model.eval(), images(1)), images(1))
    assert [row.bytes for row in rows] == [0, 8 * 27 + 8 * 12, 5 * 72 + 5 * 8]


def test_parts_in_float_have_no_distance() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.Softmax(1), torch.nn.Conv2d(8, 4, 1)]
    model = ts.quant.prepare(torch.nn.Sequential(*layers), images(1))
    model(images(8))
    rows = ts.deploy.report_layers(ts.graph.capture(model.eval(), images(1)), images(2))
    floats = [row for row in rows if row.op == "float"]
    assert floats
    assert all(row.steps == [] for row in floats)
    with pytest.raises(ValueError, match="there are no images"):
        ts.deploy.report_layers(ts.graph.capture(model, images(1)), images(1)[:0])
