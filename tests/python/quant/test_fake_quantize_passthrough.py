# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from torch import Tensor

import torchslim as ts

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def layouts(dtype: torch.dtype) -> list[Tensor]:
    x = (torch.randn(3, 8, 5, 4) * 10).to(dtype)
    return [x, x.to(memory_format=torch.channels_last), x[:, ::2, 1:], x[:0], x[0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_fake_quantize_and_the_whole_gradient(dtype: torch.dtype) -> None:
    scale, zero_point = torch.tensor(0.5), torch.tensor(2, dtype=torch.int32)
    for x in layouts(dtype):
        leaf = x.detach().requires_grad_()
        y = ts.quant.fake_quantize_passthrough(leaf, scale, zero_point, -8, 7)
        assert torch.equal(y, ts.quant.fake_quantize(x, scale, zero_point, -8, 7))
        grad = torch.randn_like(y)
        assert torch.equal(torch.autograd.grad(y, leaf, grad)[0], grad)


def test_nan_and_infinity_learn_too() -> None:
    x = torch.tensor([math.nan, math.inf]).requires_grad_()
    y = ts.quant.fake_quantize_passthrough(x, torch.ones(1), torch.zeros(1), -8, 7)
    assert y[0].isnan() and y[1] == 7
    y.backward(torch.tensor([2.0, 3.0]))
    assert x.grad is not None and x.grad.tolist() == [2, 3]


def test_keeps_nothing_for_backward() -> None:
    x = torch.randn(1000, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ts.quant.fake_quantize_passthrough(x, torch.ones(1), torch.zeros(1), -8, 7)
    assert not kept


def test_compiles_and_exports_as_one_node() -> None:
    class Rounds(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ts.quant.fake_quantize_passthrough(x, torch.tensor(0.5), torch.tensor(0), -8, 7)

    x = torch.randn(40, requires_grad=True)
    assert torch.equal(torch.compile(Rounds(), fullgraph=True, backend="aot_eager")(x), Rounds()(x))
    nodes = [
        node for node in torch.export.export(Rounds(), (x.detach(),)).graph.nodes if "torchslim" in str(node.target)
    ]
    assert len(nodes) == 1


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis", "message"),
    [
        (torch.tensor(-1.0), torch.tensor(0), None, "torchslim::fake_quantize_passthrough: scale must be"),
        (torch.tensor(0.5), torch.tensor(0.5), None, "zero_point"),
        (torch.ones(3), torch.zeros(3), 0, "shape"),
        (torch.ones(4), torch.zeros(4), 1, "axis"),
        (torch.tensor(0.5, requires_grad=True), torch.tensor(0), None, "requires grad"),
    ],
)
def test_bad_arguments_are_refused(scale: Tensor, zero_point: Tensor, axis: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ts.quant.fake_quantize_passthrough(torch.rand(4), scale, zero_point, -8, 7, axis)
