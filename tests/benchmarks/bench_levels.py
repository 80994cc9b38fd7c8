# SPDX-License-Identifier: BSD-3-Clause
"""Tables of levels against the matrix of levels × elements that the usual implementations build."""

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


def cases(threads: int) -> list[Case]:
    """Tables that fit registers, and one that does not."""
    torch.manual_seed(0)
    return [
        level_case("APoT, 16 levels", ts.quant.apot_levels(4, is_signed=False), 20.0),
        level_case("APoT, 31 levels", ts.quant.apot_levels(5), None),
    ]
