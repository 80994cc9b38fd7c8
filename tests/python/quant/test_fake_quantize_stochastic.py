# SPDX-License-Identifier: BSD-3-Clause
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.philox import uniform
from torch import Tensor

import torchslim as ts
from torchslim import _C

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ZERO = torch.tensor(0, dtype=torch.int32)


def quantize(x: Tensor, scale: float = 0.5, seed: int = 7) -> Tensor:
    return ts.quant.fake_quantize_stochastic(x, torch.tensor(scale), ZERO, -8, 7, seed=seed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-6, 6, width=16), max_size=70),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_equals_the_written_out_loop(elements: list[float], seed: int, dtype: torch.dtype, per_channel: bool) -> None:
    x = torch.tensor(elements, dtype=dtype)
    n = len(elements)
    scale = torch.linspace(0.2, 0.9, n) if per_channel else torch.tensor(0.37)
    zero_point = torch.zeros(scale.shape, dtype=torch.int32)
    y = ts.quant.fake_quantize_stochastic(x, scale, zero_point, -8, 7, 0 if per_channel else None, seed=seed)
    number = torch.float64 if dtype == torch.float64 else torch.float32
    for i in range(n):
        s = scale[i] if per_channel else scale
        value = x[i].to(number) * s.reciprocal().to(number)
        whole = value.floor()
        steps = whole + float(uniform(i, seed) < (value - whole).item())
        expected = steps.clamp(-8, 7) * s.to(number)
        if not per_channel:
            expected = expected.float()
        assert y[i] == expected.to(dtype)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_rounds_up_as_often_as_the_fraction_says(fraction: float) -> None:
    n = 100_000
    ups = (quantize(torch.full((n,), 0.5 * (2 + fraction))) == 1.5).double().mean().item()
    assert abs(ups - fraction) < 5 * math.sqrt(fraction * (1 - fraction) / n)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_elements_are_counted_in_memory(layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 7, 3).contiguous(memory_format=layout)
    flat = x.permute(0, 2, 3, 1).flatten() if layout == torch.channels_last else x.flatten()
    y = quantize(x)
    assert y.stride() == x.stride()
    order = y.permute(0, 2, 3, 1).flatten() if layout == torch.channels_last else y.flatten()
    assert torch.equal(order, quantize(flat))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_instruction_sets_give_the_same_bits(dtype: torch.dtype) -> None:
    x = (torch.randn(70_001) * 3).to(dtype)
    expected, before = quantize(x, 0.37), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(quantize(x, 0.37), expected)
        _C.force_cpu_capability("portable")
        assert torch.equal(quantize(x, 0.37), expected)
    finally:
        _C.force_cpu_capability(None)
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_and_infinity_saturates(dtype: torch.dtype) -> None:
    y = quantize(torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype))
    assert y[0].isnan() and y[1:].tolist() == [3.5, -4.0]


def test_gradient_is_cut_outside_the_grid() -> None:
    x = torch.tensor([-9.0, -1.2, 0.3, 9.0, math.nan]).requires_grad_()
    quantize(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 0, 0]


def test_double_backward_is_refused_by_name() -> None:
    x = torch.randn(3, requires_grad=True)
    (grad,) = torch.autograd.grad((quantize(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"torchslim::fake_quantize_stochastic.*once-differentiable"):
        grad.sum().backward()


def test_empty_and_0_dim() -> None:
    assert quantize(torch.empty(0, 3)).shape == (0, 3)
    assert quantize(torch.tensor(0.3)).item() in (0.0, 0.5)


def test_a_generator_gives_new_numbers_and_the_same_from_the_same_state() -> None:
    x, scale = torch.rand(1000), torch.tensor(0.5)
    generator = torch.Generator().manual_seed(1)
    first = ts.quant.fake_quantize_stochastic(x, scale, ZERO, -8, 7, generator=generator)
    assert not torch.equal(ts.quant.fake_quantize_stochastic(x, scale, ZERO, -8, 7, generator=generator), first)
    generator = copy.deepcopy(torch.Generator().manual_seed(1))
    assert torch.equal(ts.quant.fake_quantize_stochastic(x, scale, ZERO, -8, 7, generator=generator), first)


def test_compiles_and_exports_as_one_node() -> None:
    seed = torch.tensor(3)

    class Rounds(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ts.quant.fake_quantize_stochastic(x, torch.tensor(0.5), ZERO, -8, 7, seed=seed)

    x = torch.randn(40, requires_grad=True)
    compiled = torch.compile(Rounds(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), Rounds()(x))
    nodes = [
        node for node in torch.export.export(Rounds(), (x.detach(),)).graph.nodes if "torchslim" in str(node.target)
    ]
    assert len(nodes) == 1


def test_autocast_keeps_the_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert quantize(torch.rand(4)).dtype == torch.float32


def test_a_seed_and_a_generator_are_refused() -> None:
    with pytest.raises(ValueError, match="give a seed or a generator, got both"):
        ts.quant.fake_quantize_stochastic(
            torch.rand(3), torch.tensor(0.5), ZERO, -8, 7, seed=1, generator=torch.Generator()
        )


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis", "error", "message"),
    [
        (torch.tensor(0.0), ZERO, None, ValueError, "torchslim::fake_quantize_stochastic: scale must be"),
        (torch.tensor(0.5), torch.tensor(9), None, ValueError, "zero_point"),
        (torch.ones(3), torch.zeros(3), 0, ValueError, "shape"),
        (torch.ones(4), torch.zeros(4), 1, ValueError, "axis"),
    ],
)
def test_bad_arguments_are_refused(
    scale: Tensor, zero_point: Tensor, axis: int | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ts.quant.fake_quantize_stochastic(torch.rand(4), scale, zero_point, -8, 7, axis, seed=1)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="torchslim::fake_quantize_stochastic"):
        quantize(torch.arange(4))
    with pytest.raises(TypeError, match="seed must be int64"):
        ts.quant.fake_quantize_stochastic(torch.rand(4), torch.tensor(0.5), ZERO, -8, 7, seed=torch.tensor(1.0))
