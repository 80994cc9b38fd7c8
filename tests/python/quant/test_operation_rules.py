# SPDX-License-Identifier: BSD-3-Clause
"""One table of rules, walked through prepare in Python, prepare in C++ and lowering."""

import pytest
import torch
from test_operations import CASES, Around

import torchslim as ts
from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer

#: Layers that Python's prepare sees whole, and a captured graph, which C++'s starts from, as the operations within.
TAKEN_APART = ("gated linear unit", "norm of roots", "unit vectors", "local response", "attention layer")

RULES = {rule.kind: rule for rule in _C.graph.operation_rules()}


def placed(name: str) -> tuple[list[str], list[str], list[str], list[str], set[str]]:
    """Quantisers and layers in float by C++ and by Python, and the layers without children."""
    function, _ = CASES[name]
    model = Around(function).eval()
    x = torch.randn(2, 3, 8, 8)
    model(x)  # sets the size of what is lazy
    prepared = ts.quant.prepare(model, x)
    leaves = {
        name
        for name, module in model.named_modules()
        if type(module).__module__.startswith("torch.nn.modules") and not list(module.children())
    }
    paths, floats = _C.quant.place_quantizers(ts.graph.capture(model, x), leaves)
    ours = [name for name, module in prepared.named_modules() if isinstance(module, ActivationQuantizer)]
    return paths, floats, ours, ts.quant.float_layers(prepared), leaves


@pytest.mark.parametrize("name", [name for name in CASES if name not in TAKEN_APART])
def test_both_languages_place_the_same_quantisers(name: str) -> None:
    paths, floats, ours, our_floats, leaves = placed(name)
    assert sorted(paths) == sorted(ours)
    assert len(floats) == len(our_floats)
    assert {name for name in floats if name in leaves} == {name for name in our_floats if name in leaves}


@pytest.mark.parametrize("name", TAKEN_APART)
def test_around_layers_that_are_taken_apart_both_place_the_same(name: str) -> None:
    paths, floats, ours, our_floats, _ = placed(name)
    around = {"input_fake_quantize", "head.0.output_fake_quantize", "tail.output_fake_quantize"}
    assert around < set(paths) and around < set(ours)
    assert bool(floats) == bool(our_floats)


@pytest.mark.parametrize("name", CASES)
def test_lowering_finds_each_on_the_grid_of_its_rule(name: str) -> None:
    function, _ = CASES[name]
    x = torch.randn(2, 3, 8, 8)
    model = Around(function).train()
    model(x)  # sets the size of what is lazy
    prepared = ts.quant.prepare(model, x)
    prepared(x)
    scales = {float(module.scale) for module in prepared.modules() if isinstance(module, ActivationQuantizer)}
    graph = ts.quant.convert(prepared).integer_graph
    for node in graph.nodes:
        if node.gives_floats:
            continue
        assert node.scale in scales, f"{node.op} in {node.layer!r} is on a grid of its own making"
        rule = RULES.get(
            {"conv2d": "conv", "add": "add", "max_pool2d": "max_pool", "flatten": "flatten"}.get(node.op, "")
        )
        if rule is not None and rule.grid == _C.graph.GridRule.INPUT:
            assert node.scale == graph.nodes[node.inputs[0]].scale
