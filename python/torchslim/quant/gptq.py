# SPDX-License-Identifier: BSD-3-Clause
"""GPTQ: a weight rounded column by column, each error made good in the columns that follow."""

from __future__ import annotations

from torch import Tensor

from torchslim import _C
from torchslim.quant.weight_grid import GridWeight, ScaleSearch


def gptq(
    weight: Tensor,
    hessian: Tensor,
    bits: int = 4,
    *,
    scale_search: ScaleSearch = "absmax",
    block_size: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    drift: Tensor | None = None,
) -> GridWeight:
    """Rounds a weight so that the layer's output changes least (Frantar et al. 2023, arXiv:2210.17323, algorithm 1).

    With U the upper Cholesky factor of H⁻¹, for each column i: e = (w_i − q_i) / U_ii and w_j −= e·U_ij for j > i.
    A channel that the nearest grid point would serve better (smaller (q−w)ᵀ·H·(q−w)) takes that, so the result is
    never worse. In float64.

    With a drift D what is approached is the answer of the float network: w·x_float by q·x. Of all weights, before
    rounding, w' = w + w·D·H⁻¹ comes nearest; that is rounded, and what is compared is (q−w)ᵀ·H·(q−w) − 2·w·D·(q−w).
    Li et al. 2025, arXiv:2504.02692, move w column by column; in one step it is the same aim.

    Args:
        weight: (O, ...), floating point, not empty. No gradient flows to it.
        hessian: (groups, K, K), or (K, K) for one group, of `HessianAccumulator`.
        bits: width of a code, 2 to 8.
        scale_search: how the scale of a channel is chosen beforehand, as for `weight_scale`.
        block_size: columns that are rounded before the rest of the weight is brought up to date; only speed depends
            on it.
        damping: share of the mean of H's diagonal that is added to it, ≥ 0; it grows until H is positive definite.
        act_order: whether columns are rounded in the order of falling H[i, i].
        drift: of H's shape, of `HessianAccumulator`; None: the layer's own answer to its inputs is approached.

    Returns:
        the weight on its grid, the scale, the codes.

    Raises:
        ValueError: NaN or infinity; shapes; options out of range; an H that no damping makes positive definite.

    Example:
        >>> x = torch.tensor([[1.0, 1.0]])  # the layer only sees sums
        >>> gptq(torch.tensor([[3.0, 1.4], [1.4, 1.4]]), 2 * x.T @ x, bits=3).codes
        tensor([[3, 1],
                [3, 3]], dtype=torch.int8)
    """
    options = bits, scale_search, block_size, damping, act_order
    return GridWeight(*_C.quant.gptq(weight, hessian, *options, drift))
