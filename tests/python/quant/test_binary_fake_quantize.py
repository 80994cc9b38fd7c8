# SPDX-License-Identifier: BSD-3-Clause
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import (
    DTYPES,
    LAYOUTS,
    assert_compiles_whole,
    assert_keeps_the_type_under_autocast,
    assert_same_bits,
    exported_ops,
    gradient,
    saved_bytes,
    with_instruction_sets,
    with_threads,
)
from reference.binary_fake_quantize import sign_fake_quantize as reference
from torch import Tensor

from torchslim.quant import binary_fake_quantize, ternary_fake_quantize

OPS: dict[str, Callable[..., Tensor]] = {
    "binary_fake_quantize": binary_fake_quantize,
    "ternary_fake_quantize": ternary_fake_quantize,
}


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_equals_the_written_out_loop_in_every_layout(
    name: str, dtype: torch.dtype, layout: str, axis: int | None
) -> None:
    x = LAYOUTS[layout](torch.randn(2, 8, 4, 3).to(dtype)).requires_grad_()
    if axis is not None and axis >= x.dim():
        return
    y = OPS[name](x, axis, gradient="clipped")
    values, passes = reference(x.detach(), axis, name.startswith("ternary"))
    assert_same_bits(y.detach(), values)
    assert y.stride() == torch.empty_like(x).stride()
    grad = torch.randn_like(x)
    assert_same_bits(gradient(y, x, grad), grad * passes)
    assert_same_bits(gradient(OPS[name](x, axis, gradient="passthrough"), x, grad), grad)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6, width=32), st.floats(-2, 2, width=16)), min_size=1, max_size=60),
    st.sampled_from(sorted(OPS)),
    st.sampled_from(DTYPES),
)
def test_any_numbers(elements: list[float], name: str, dtype: torch.dtype) -> None:
    x = torch.tensor(elements, dtype=torch.float64).to(dtype)
    if not x.isfinite().all():
        return
    for axis in (None, 0):
        values, _ = reference(x, axis, name.startswith("ternary"))
        torch.testing.assert_close(OPS[name](x, axis), values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", OPS)
def test_zeros_stay_and_zero_is_positive(name: str) -> None:
    assert torch.equal(OPS[name](torch.zeros(5)), torch.zeros(5))
    y = OPS[name](torch.tensor([0.0, -0.0, 2.0, -2.0]))
    assert y.tolist() == ([1, 1, 1, -1] if name.startswith("binary") else [0, 0, 2, -2])


@pytest.mark.parametrize("name", OPS)
def test_nan_makes_the_mean_nan(name: str) -> None:
    x = torch.tensor([[math.nan, 1.0, -2.0], [1.0, 1.0, -1.0]])
    y = OPS[name](x, 0)
    assert y[0].isnan().all() and y[1].isfinite().all()


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_and_threads_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    x = torch.randn(7, 30001).to(dtype).requires_grad_()

    def run() -> list[Tensor]:
        results = [OPS[name](x, axis, gradient="clipped") for axis in (None, 0, 1)]
        return results + [gradient(y, x, torch.ones_like(x)) for y in results]

    expected = run()
    for other in (*with_instruction_sets(run), *with_threads(run)):
        for one, two in zip(expected, other, strict=True):
            assert_same_bits(one.detach(), two.detach())


@pytest.mark.parametrize("name", OPS)
def test_default_gradients(name: str) -> None:
    x = torch.tensor([-2.0, -1.0, 0.3, 1.0, 1.1], requires_grad=True)
    expected = [0, 1, 1, 1, 0] if name.startswith("binary") else [1, 1, 1, 1, 1]
    assert gradient(OPS[name](x), x, torch.ones(5)).tolist() == expected


@pytest.mark.parametrize("name", OPS)
def test_double_backward_is_refused_by_name(name: str) -> None:
    x = torch.randn(8, requires_grad=True)
    (grad,) = torch.autograd.grad((OPS[name](x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"torchslim::{name}: the gradient cannot be differentiated again"):
        grad.sum().backward()


@pytest.mark.parametrize("name", OPS)
def test_keeps_one_bit_per_element_or_nothing(name: str) -> None:
    x = torch.randn(1001, requires_grad=True)
    assert saved_bytes(lambda: OPS[name](x, gradient="clipped")) == [126]
    assert saved_bytes(lambda: OPS[name](x, gradient="passthrough")) == []


@pytest.mark.parametrize("name", OPS)
def test_autocast_keeps_the_type(name: str) -> None:
    assert_keeps_the_type_under_autocast(OPS[name])


@pytest.mark.parametrize("rule", ["clipped", "passthrough"])
@pytest.mark.parametrize("name", OPS)
def test_compiles_whole_with_the_same_bits(name: str, rule: str) -> None:
    def loss(x: Tensor) -> Tensor:
        return (OPS[name](x * 2, 0, gradient=rule) ** 2).sum()

    assert_compiles_whole(loss, torch.randn(4, 6, requires_grad=True))


def test_exports_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ternary_fake_quantize(binary_fake_quantize(x))

    assert exported_ops(Model(), torch.randn(4)) == [
        torch.ops.torchslim.binary_fake_quantize.default,
        torch.ops.torchslim.ternary_fake_quantize.default,
    ]


@pytest.mark.parametrize("name", OPS)
def test_bad_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"torchslim::{name}: axis must be in \[-2, 1\] .*got 2$"):
        OPS[name](torch.zeros(2, 4), 2)
    with pytest.raises(ValueError, match=rf"torchslim::{name}: gradient must be `clipped` or `passthrough`, got `x`"):
        OPS[name](torch.zeros(2), gradient="x")
    with pytest.raises(TypeError, match=rf"torchslim::{name}: expected a float32, .* got Int; convert it first"):
        OPS[name](torch.zeros(2, dtype=torch.int32))
