# SPDX-License-Identifier: BSD-3-Clause
"""Tables of levels against the matrix of levels × elements that the usual implementations build, and floating-point
formats against casts."""

import torch
from harness import Case
from torch import Tensor

import torchslim as ts


def by_matrix(x: Tensor, levels: Tensor, scale: Tensor) -> Tensor:
    """The nearest level, as the authors of APoT look for it."""
    v = x / scale
    nearest = (v.unsqueeze(0) - levels.unsqueeze(1)).abs().min(dim=0)[1]
    return levels[nearest] * scale


def level_case(name: str, levels: Tensor, least: float | None) -> Case:
    """4 M values, one scale."""
    x, scale = torch.randn(4 << 20), torch.tensor(3.0)
    return Case(
        name=f"level_fake_quantize, {name}",
        ours=lambda: ts.quant.level_fake_quantize(x, levels, scale),
        peer_name="|x - level| matrix, argmin, gather",
        peer=lambda: by_matrix(x, levels, scale),
        clone=x.clone,
        shape="16 MB",
        least_ratio_to_peer=least,
    )


def float_case() -> Case:
    """A cast to fp8 and back, which has neither scale nor gradient."""
    x = torch.randn(4 << 20)
    return Case(
        name="float_fake_quantize, e4m3",
        ours=lambda: ts.quant.float_fake_quantize(x, ts.quant.FloatFormat.e4m3fn()),
        peer_name="cast to float8_e4m3fn and back",
        peer=lambda: x.to(torch.float8_e4m3fn).to(torch.float32),
        clone=x.clone,
        shape="16 MB",
    )


def mx_by_hand(x: Tensor) -> Tensor:
    """MXFP8 in torch: shared exponents, then a cast."""
    blocks = x.unflatten(-1, (-1, 32))
    exponent = blocks.abs().amax(-1, keepdim=True).log2().floor() - 8
    scale = torch.exp2(exponent.clamp(-127, 127))
    return ((blocks / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32) * scale).flatten(-2)


def block_float_case(axis: int) -> Case:
    """MXFP8 along the last dimension, where blocks are neighbours, or the first."""
    x = torch.randn(2048, 2048)
    return Case(
        name=f"block_float_fake_quantize, e4m3, axis {axis}",
        ours=lambda: ts.quant.block_float_fake_quantize(x, ts.quant.FloatFormat.e4m3fn(), axis=axis),
        peer_name="amax, log2, exp2, cast in torch",
        peer=lambda: mx_by_hand(x if axis == 1 else x.t()),
        clone=x.clone,
        shape="2048 x 2048",
    )


def binary_case(axis: int | None) -> Case:
    """XNOR-Net's weights, one mean or one for each row."""
    x = torch.randn(2048, 2048)
    dims = None if axis is None else 1 - axis
    return Case(
        name=f"binary_fake_quantize, axis {axis}",
        ours=lambda: ts.quant.binary_fake_quantize(x, axis),
        peer_name="sign times mean of abs in torch",
        peer=lambda: x.sign() * x.abs().mean(dims, keepdim=True),
        clone=x.clone,
        shape="2048 x 2048",
    )


def cases(threads: int) -> list[Case]:
    """Tables that fit registers, and one that does not."""
    torch.manual_seed(0)
    return [
        level_case("APoT, 16 levels", ts.quant.apot_levels(4, is_signed=False), 20.0),
        level_case("APoT, 31 levels", ts.quant.apot_levels(5), None),
        float_case(),
        block_float_case(0),
        block_float_case(1),
        binary_case(None),
        binary_case(0),
    ]
