# SPDX-License-Identifier: BSD-3-Clause
"""Masks by magnitude: which weights are kept."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from torchslim import _C

#: What a share of zeros is taken of: all tensors together, or each tensor alone.
Scope = Literal["global", "layer"]


def magnitude_masks(
    tensors: Sequence[Tensor], sparsity: float, scope: Scope = "global", *, names: Sequence[str] = ()
) -> list[Tensor]:
    """Returns one bool mask a tensor, True where the weight is kept: the weights of smallest magnitude are pruned.

    Exactly `round(N * sparsity)` of the N weights in the scope are pruned. Equal magnitudes are pruned in flat order:
    tensor by tensor, row by row, as a stable sort would. The result is the same for any number of threads. Streams
    over the weights in place, without concatenation or sort.

    Args:
        tensors: float32, float64, bfloat16 or float16, any shape and strides; in the global scope of one dtype.
        sparsity: share to prune, in [0, 1].
        scope: "global" ranks all tensors together, "layer" each alone.
        names: how errors call the tensors, one each; empty: "tensors[i]".

    Raises:
        ValueError: sparsity out of range, unknown scope, NaN among the weights, mixed dtypes in the global scope, or a
            wrong number of names.
        TypeError: another dtype.

    Example:
        >>> magnitude_masks([torch.tensor([1.0, -4.0]), torch.tensor([3.0, 2.0])], 0.5)
        [tensor([False,  True]), tensor([ True, False])]
    """
    masks: list[Tensor] = _C.prune.magnitude_masks(list(tensors), sparsity, scope, list(names))
    return masks
