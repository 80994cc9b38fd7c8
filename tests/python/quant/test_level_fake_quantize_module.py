# SPDX-License-Identifier: BSD-3-Clause
import copy
import io

import pytest
import torch

import torchslim as ts


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_rounds_to_its_levels_at_its_scale(axis: int | None) -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4), axis)
    x = torch.randn(6, 8)
    module.fit_scale(x)
    assert torch.equal(module.scale, ts.quant.absmax_scale(x, 1.0, axis))
    assert torch.equal(module(x), ts.quant.level_fake_quantize(x, module.levels, module.scale, axis))


@pytest.mark.parametrize("axis", [None, 1])
def test_a_saved_module_loads_into_a_fresh_one(axis: int | None) -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4), axis).fit_scale(torch.randn(6, 8))
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    fresh = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(3), axis)
    fresh.load_state_dict(torch.load(stream))
    x = torch.randn(6, 8)
    assert list(module.state_dict()) == ["levels", "scale"]
    assert torch.equal(fresh(x), module(x))


def test_a_copy_stands_alone() -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4)).fit_scale(torch.ones(2))
    twin = copy.deepcopy(module)
    twin.fit_scale(torch.full((2,), 5.0))
    assert module.scale == 1 and twin.scale == 5


@pytest.mark.parametrize("rule", ["clipped", "passthrough"])
def test_trains_compiled(rule: str) -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4), 0, rule)
    x = torch.randn(3, 4, requires_grad=True)
    module.fit_scale(x.detach() / 2)
    expected = torch.autograd.grad(module(x).sum(), x)[0]
    assert (expected == 1).all() == (rule == "passthrough")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(x).sum(), x)[0], expected)


def test_exports_as_one_node() -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4))
    graph = torch.export.export(module, (torch.randn(4),)).graph
    nodes = [node.target for node in graph.nodes if node.op == "call_function"]
    assert nodes == [torch.ops.torchslim.level_fake_quantize.default]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="levels must ascend strictly"):
        ts.quant.LevelFakeQuantize(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="gradient must be `clipped` or `passthrough`, got `none`"):
        ts.quant.LevelFakeQuantize(torch.tensor([0.0, 1.0]), gradient="none")
    with pytest.raises(ValueError, match=r"one element per channel, shape \[2\], got shape \[0\]"):
        ts.quant.LevelFakeQuantize(torch.tensor([0.0, 1.0]), 0)(torch.ones(2))


def test_says_what_it_is() -> None:
    module = ts.quant.LevelFakeQuantize(ts.quant.apot_levels(4), 0)
    assert repr(module) == "LevelFakeQuantize(levels=15, axis=0, gradient='clipped')"
