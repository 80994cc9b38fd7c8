# SPDX-License-Identifier: BSD-3-Clause
import copy
import io

import pytest
import torch

import torchslim as ts
from torchslim.quant import FloatFakeQuantize, FloatFormat

E4M3 = FloatFormat.e4m3fn()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_rounds_to_its_format_at_its_scale(axis: int | None) -> None:
    module = FloatFakeQuantize(E4M3, axis)
    x = torch.randn(6, 8)
    module.fit_scale(x)
    assert torch.equal(module.scale, ts.quant.absmax_scale(x, 448.0, axis))
    assert torch.equal(module(x), ts.quant.float_fake_quantize(x, E4M3, module.scale, axis))


@pytest.mark.parametrize("axis", [None, 1])
def test_a_saved_module_loads_into_a_fresh_one(axis: int | None) -> None:
    module = FloatFakeQuantize(E4M3, axis).fit_scale(torch.randn(6, 8))
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    fresh = FloatFakeQuantize(E4M3, axis)
    fresh.load_state_dict(torch.load(stream))
    x = torch.randn(6, 8)
    assert list(module.state_dict()) == ["scale"]
    assert torch.equal(fresh(x), module(x))


def test_a_copy_stands_alone() -> None:
    module = FloatFakeQuantize(E4M3).fit_scale(torch.full((2,), 448.0))
    twin = copy.deepcopy(module)
    twin.fit_scale(torch.full((2,), 896.0))
    assert module.scale == 1 and twin.scale == 2


@pytest.mark.parametrize("rule", ["clipped", "passthrough"])
def test_trains_compiled(rule: str) -> None:
    module = FloatFakeQuantize(E4M3, 0, rule)
    x = torch.randn(3, 4, requires_grad=True)
    module.fit_scale(x.detach() / 2)
    expected = torch.autograd.grad(module(x).sum(), x)[0]
    assert (expected == 1).all() == (rule == "passthrough")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(x).sum(), x)[0], expected)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="gradient must be `clipped` or `passthrough`, got `none`"):
        FloatFakeQuantize(E4M3, gradient="none")
    with pytest.raises(ValueError, match=r"one element per channel, shape \[2\], got shape \[0\]"):
        FloatFakeQuantize(E4M3, 0)(torch.ones(2))


def test_says_what_it_is() -> None:
    assert repr(FloatFakeQuantize(E4M3, 0)).startswith("FloatFakeQuantize(format=FloatFormat(exponent_bits=4,")
