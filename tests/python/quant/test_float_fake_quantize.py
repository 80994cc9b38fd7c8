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
from reference.float_fake_quantize import block_float_fake_quantize as block_reference
from reference.float_fake_quantize import float_fake_quantize as reference
from torch import Tensor

from torchslim.quant import FloatFormat, block_float_fake_quantize, float_fake_quantize

ONE = torch.tensor(1.0)

#: Formats that torch can cast to.
CASTS = {
    torch.float16: FloatFormat.fp16(saturate=False),
    torch.bfloat16: FloatFormat.bf16(saturate=False),
    torch.float8_e4m3fn: FloatFormat.e4m3fn(),  # this cast saturates, the others do not
    torch.float8_e5m2: FloatFormat.e5m2(saturate=False),
}

#: Formats whose numbers can all be listed.
SMALL = {
    "e4m3fn": FloatFormat.e4m3fn(),
    "e4m3fn, nan": FloatFormat.e4m3fn(saturate=False),
    "e5m2": FloatFormat.e5m2(),
    "e5m2, inf": FloatFormat.e5m2(saturate=False),
    "e3m2": FloatFormat.minifloat(3, 2),
    "e2m3": FloatFormat.minifloat(2, 3),
    "e2m1": FloatFormat.minifloat(2, 1),
    "e3m0": FloatFormat.minifloat(3, 0),
    "e1m2": FloatFormat.minifloat(1, 2),
    "e2m0": FloatFormat(2, 0, 2, "none"),
    "int8": FloatFormat.minifloat(0, 7),
    "e4m3, bias 11": FloatFormat(4, 3, 11, "none"),
    "e4m3, bias -3": FloatFormat(4, 3, -3, "nan"),
    "e3m1, nan": FloatFormat(3, 1, 3, "nan", saturate=False),
    "e2m2, ieee": FloatFormat(2, 2, 1, "ieee", saturate=False),
}

MINI = ((3, 2), (2, 3), (2, 1), (0, 7))
MX = [FloatFormat.e4m3fn(), FloatFormat.e5m2(), *(FloatFormat.minifloat(*pair) for pair in MINI)]


def all_patterns(dtype: torch.dtype) -> Tensor:
    """All 65536 numbers of a type of two bytes."""
    return torch.arange(-32768, 32768).to(torch.int16).view(dtype)


def random_floats(count: int) -> Tensor:
    """float32 of any bits: every exponent, both signs, NaN and infinities."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-(2**31), 2**31, (count,), generator=generator).to(torch.int32).view(torch.float32)


# ---- one format for all ----


@pytest.mark.parametrize("to", CASTS, ids=str)
def test_has_the_bits_of_torchs_casts(to: torch.dtype) -> None:
    near_limits = torch.tensor([448, 464, 464.0001, 480, 57344, 61439, 61440, 65504, 65519, 65520, 3.4e38, 3.3961e38])
    for x in (
        all_patterns(torch.float16),
        all_patterns(torch.bfloat16),
        all_patterns(torch.float16).float(),
        all_patterns(torch.bfloat16).float(),
        random_floats(1 << 20),
        torch.randn(10001),
        torch.cat([near_limits, -near_limits]),
        torch.randn(10001, dtype=torch.float64) * 100,
    ):
        assert_same_bits(float_fake_quantize(x, CASTS[to]), x.to(to).to(x.dtype))


@pytest.mark.parametrize("to", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_saturates_where_casts_overflow(to: torch.dtype) -> None:
    x = random_floats(100000)
    format = FloatFormat.e4m3fn() if to == torch.float8_e4m3fn else FloatFormat.e5m2()
    expected = x.clamp(-format.max, format.max).to(to).float()
    assert_same_bits(float_fake_quantize(x, format), torch.where(x.isnan(), x, expected))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_table_of_all_numbers(name: str, dtype: torch.dtype) -> None:
    format = SMALL[name]
    numbers = torch.linspace(-1.3 * format.max, 1.3 * format.max, 301)
    powers = format.smallest * 2.0 ** torch.arange(-3, 12).float()
    specials = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 3e38])
    x = torch.cat([numbers, powers, powers * 1.5, -powers * 1.25, specials]).to(dtype).requires_grad_()
    y = float_fake_quantize(x, format)
    values, passes = reference(x.detach(), format, ONE)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_written_out_loop_in_every_layout(dtype: torch.dtype, layout: str, axis: int | None) -> None:
    x = LAYOUTS[layout](torch.randn(2, 8, 4, 3).to(dtype)).requires_grad_()
    if axis is not None and axis >= x.dim():
        return
    format = FloatFormat.minifloat(2, 1)
    scale = torch.tensor(0.3) if axis is None else torch.rand(x.shape[axis]) + 0.1
    y = float_fake_quantize(x, format, scale, axis)
    values, passes = reference(x.detach(), format, scale, axis)
    assert_same_bits(y.detach(), values)
    assert y.stride() == torch.empty_like(x).stride()
    grad = torch.randn_like(x)
    assert_same_bits(gradient(y, x, grad), grad * passes)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.floats(width=32), st.floats(-300, 300, width=16)), max_size=40),
    st.sampled_from(sorted(SMALL)),
    st.floats(2.0**-10, 2.0**10, width=32),
    st.sampled_from(DTYPES),
)
def test_any_numbers_and_scales(elements: list[float], name: str, scale: float, dtype: torch.dtype) -> None:
    x = torch.tensor(elements, dtype=torch.float64).to(dtype).requires_grad_()
    y = float_fake_quantize(x, SMALL[name], scale)
    values, passes = reference(x.detach(), SMALL[name], torch.tensor(scale))
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


# ---- a shared scale for each block ----


@pytest.mark.parametrize("format", MX, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_equal_the_written_out_loop(format: FloatFormat, dtype: torch.dtype) -> None:
    x = (torch.randn(3, 64) * torch.exp(torch.randn(3, 64) * 3)).to(dtype)
    x[0, 32:] = 0
    x[1, :4] = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    x.requires_grad_()
    y = block_float_fake_quantize(x, format)
    values, passes = block_reference(x.detach(), format, 32, 1)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "every second", "expanded"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_in_every_layout(dtype: torch.dtype, layout: str, axis: int) -> None:
    x = LAYOUTS[layout](torch.randn(4, 8, 3, 5).to(dtype)).requires_grad_()
    block = next(size for size in (4, 3, 2, 1) if x.shape[axis] % size == 0)
    format = FloatFormat.minifloat(2, 1)
    y = block_float_fake_quantize(x, format, block, axis)
    values, passes = block_reference(x.detach(), format, block, axis)
    assert_same_bits(y.detach(), values)
    assert y.stride() == torch.empty_like(x).stride()
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)
    assert_same_bits(block_float_fake_quantize(x, format, block, axis - 4).detach(), values)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(1, 40),
    st.sampled_from(MX),
    st.sampled_from(DTYPES),
    st.integers(0, 2**31),
)
def test_blocks_of_any_shape(
    shape: list[int], axis: int, block: int, format: FloatFormat, dtype: torch.dtype, seed: int
) -> None:
    axis %= len(shape)
    shape[axis] *= block
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()
    y = block_float_fake_quantize(x, format, block, axis)
    values, passes = block_reference(x.detach(), format, block, axis)
    assert_same_bits(y.detach(), values)
    assert_same_bits(gradient(y, x, torch.ones_like(x)), passes)


def test_blocks_at_the_ends_of_float32() -> None:
    x = torch.tensor([1e-45, 1e-40, 3e-39, 2.0**-126, 1e-30, 1.0, 1e30, 3e38] * 4)
    for format in MX:
        values, _ = block_reference(x, format, 1, 0)
        assert_same_bits(block_float_fake_quantize(x, format, 1), values)


def test_empty_tensors_have_no_blocks() -> None:
    x = torch.empty(0, 32, requires_grad=True)
    assert block_float_fake_quantize(x, MX[0]).shape == (0, 32)
    assert block_float_fake_quantize(x, MX[0], 4, 0).shape == (0, 32)
    assert gradient(block_float_fake_quantize(x, MX[0]), x, x.detach()).shape == (0, 32)


# ---- both ----

OPS: dict[str, Callable[..., Tensor]] = {
    "float_fake_quantize": lambda x, **options: float_fake_quantize(x, FloatFormat.e4m3fn(), 0.01, **options),
    "block_float_fake_quantize": lambda x, **options: block_float_fake_quantize(x, MX[4], 2, **options),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_and_threads_give_the_same_bits(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(80000), random_floats(480), torch.zeros(32)]).to(dtype).reshape(-1, 64).requires_grad_()
    scale = torch.rand(64) + 0.1

    def run() -> list[Tensor]:
        results = [
            float_fake_quantize(x, FloatFormat.e4m3fn(), 0.01),
            float_fake_quantize(x, FloatFormat.e5m2(saturate=False), scale, 1),
            block_float_fake_quantize(x, MX[2]),
            block_float_fake_quantize(x, MX[4], x.shape[0] // 2, 0),
        ]
        return results + [gradient(y, x, torch.ones_like(x)) for y in results]

    expected = run()
    for other in (*with_instruction_sets(run), *with_threads(run)):
        for one, two in zip(expected, other, strict=True):
            assert_same_bits(one.detach(), two.detach())


@pytest.mark.parametrize("name", OPS)
def test_passthrough_passes_all(name: str) -> None:
    x = (torch.randn(100) * 50).requires_grad_()
    grad = torch.randn_like(x)
    y = OPS[name](x, gradient="passthrough")
    assert_same_bits(y.detach(), OPS[name](x.detach()))
    assert_same_bits(gradient(y, x, grad), grad)
    assert not torch.equal(gradient(OPS[name](x), x, grad), grad)


@pytest.mark.parametrize("name", OPS)
def test_double_backward_is_refused_by_name(name: str) -> None:
    x = torch.randn(8, requires_grad=True)
    (grad,) = torch.autograd.grad((OPS[name](x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"torchslim::{name}: the gradient cannot be differentiated again"):
        grad.sum().backward()


@pytest.mark.parametrize("name", OPS)
def test_keeps_one_bit_per_element_or_nothing(name: str) -> None:
    x = torch.randn(1002, requires_grad=True)
    assert saved_bytes(lambda: OPS[name](x)) == [126]
    assert saved_bytes(lambda: OPS[name](x, gradient="passthrough")) == []


@pytest.mark.parametrize("name", OPS)
def test_autocast_keeps_the_type(name: str) -> None:
    assert_keeps_the_type_under_autocast(OPS[name])


@pytest.mark.parametrize("rule", ["clipped", "passthrough"])
@pytest.mark.parametrize("name", OPS)
def test_compiles_whole_with_the_same_bits(name: str, rule: str) -> None:
    def loss(x: Tensor) -> Tensor:
        return (OPS[name](x * 2, gradient=rule) ** 2).sum()

    assert_compiles_whole(loss, torch.randn(4, 6, requires_grad=True))


def test_exports_as_one_node() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return block_float_fake_quantize(float_fake_quantize(x, FloatFormat.e5m2()), MX[0])

    assert exported_ops(Model(), torch.randn(64)) == [
        torch.ops.torchslim.float_fake_quantize.default,
        torch.ops.torchslim.block_float_fake_quantize.default,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), r"torchslim::float_fake_quantize: scale must be > 0, got 0$"),
        ((math.nan,), r"scale must be > 0, got nan$"),
        ((1e-42,), r"scale must be a normal float32, got 1.00053e-42$"),
        ((torch.ones(3),), r"scale must have one element, got shape \[3\]; one scale per channel needs `axis`$"),
        ((torch.ones(3), 1), r"scale must have one element per channel, shape \[4\], got shape \[3\]$"),
        ((torch.ones(4), 2), r"axis must be in \[-2, 1\] for a tensor of 2 dimensions, got 2$"),
        ((None, 1), r"axis 1 needs a scale for each channel$"),
        ((torch.ones(4, device="meta"), 1), r"scale must be on the input's device cpu, got meta"),
        ((torch.tensor(1.0, requires_grad=True),), r"scale requires grad, but .*; detach it$"),
    ],
)
def test_bad_scales_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., Tensor] = float_fake_quantize
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4), FloatFormat.e5m2(), *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (MX[0], 3),
            r"torchslim::block_float_fake_quantize: block_size 3 must divide .* dimension 1, got 4; pad",
        ),
        ((MX[0], 0), r"block_size must be at least 1, got 0$"),
        ((MX[0], 2, 2), r"axis must be in \[-2, 1\] for a tensor of 2 dimensions, got 2$"),
        ((FloatFormat(2, 1, 10, "none"), 2), r"the largest number of the format must be at least 1, got 0.0117188$"),
    ],
)
def test_bad_blocks_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., Tensor] = block_float_fake_quantize
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4), *arguments)


@pytest.mark.parametrize("name", OPS)
def test_other_types_and_gradients_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"torchslim::{name}: expected a float32, .* got Int; convert it first"):
        OPS[name](torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ValueError, match=rf"torchslim::{name}: gradient must be `clipped` or `passthrough`, got `x`"):
        OPS[name](torch.zeros(2), gradient="x")


@pytest.mark.parametrize("call", [float_fake_quantize, block_float_fake_quantize])
def test_a_name_is_no_format(call: Callable[..., Tensor]) -> None:
    with pytest.raises(TypeError, match=rf"{call.__name__}: format must be a FloatFormat, such as .*, got 'e4m3'"):
        call(torch.zeros(2), "e4m3")
