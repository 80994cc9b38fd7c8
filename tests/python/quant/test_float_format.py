# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torchslim.quant import FloatFormat


@pytest.mark.parametrize(
    ("format", "largest", "smallest"),
    [
        (FloatFormat.fp16(), 65504, 2.0**-24),
        (FloatFormat.bf16(), torch.finfo(torch.bfloat16).max, 2.0**-133),
        (FloatFormat.e4m3fn(), 448, 2.0**-9),
        (FloatFormat.e5m2(), 57344, 2.0**-16),
        (FloatFormat.minifloat(3, 2), 28, 0.0625),
        (FloatFormat.minifloat(2, 3), 7.5, 0.125),
        (FloatFormat.minifloat(2, 1), 6, 0.5),
        (FloatFormat.minifloat(0, 7), 127 / 64, 1 / 64),
    ],
)
def test_limits_of_formats(format: FloatFormat, largest: float, smallest: float) -> None:
    assert (format.max, format.smallest) == (largest, smallest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 2, 15, "none"), r"exponent_bits must be in \[0, 8\] with specials `none`, got 9$"),
        ((1, 2, 15, "ieee"), r"exponent_bits must be in \[2, 8\] with specials `ieee`, got 1$"),
        ((4, 23, 7, "none"), r"mantissa_bits must be in \[0, 22\] .*, got 23$"),
        ((4, -1, 7, "none"), r"mantissa_bits must be in \[0, 22\] .*, got -1$"),
        ((0, 0, 0, "none"), r"mantissa_bits must be in \[1, 22\] with 0 exponent bits .*, got 0$"),
        ((4, 0, 7, "ieee"), r"mantissa_bits must be in \[1, 22\] .*, got 0$"),
        ((4, 3, 128, "none"), r"bias must be in \[-64, 127\], got 128$"),
        ((8, 3, 100, "none"), r"largest number of the format must be a finite float32, got .* bias 100 and 8"),
        ((4, 3, 7, "fnuz"), r"specials must be `ieee`, `nan` or `none`, got `fnuz`$"),
        ((4, 3, 7, "none", False), r"saturate must be true with specials `none`"),
    ],
)
def test_bad_formats_are_refused(arguments: tuple[object, ...], message: str) -> None:
    call: Callable[..., FloatFormat] = FloatFormat
    with pytest.raises(ValueError, match=r"torchslim::FloatFormat: .*" + message):
        call(*arguments)
    raw: Callable[..., Tensor] = torch.ops.torchslim.float_fake_quantize
    with pytest.raises(ValueError, match=r"torchslim::float_fake_quantize: .*" + message):
        raw(torch.ones(2), *(*arguments, True)[:5])


def test_formats_are_values() -> None:
    assert FloatFormat.minifloat(4, 3) == FloatFormat(4, 3, 7, "none")
    assert FloatFormat.e5m2() != FloatFormat.e5m2(saturate=False)
    assert len({FloatFormat.fp16(), FloatFormat.fp16()}) == 1
