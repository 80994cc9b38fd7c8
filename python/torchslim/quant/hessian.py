# SPDX-License-Identifier: BSD-3-Clause
"""The Hessian of a layer's squared output error, from batches of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchslim import _C

#: One number for all spatial dimensions of a convolution, or one for each.
Numbers = int | Sequence[int]


def as_list(numbers: Numbers) -> list[int]:
    """Returns one number as a list of it, several as a list."""
    return [numbers] if isinstance(numbers, int) else list(numbers)


class HessianAccumulator:
    """Collects H = mean of 2·x·xᵀ over all rows x that a layer's weight is applied to (Frantar et al. 2023).

    And, where what the float network would give the layer is known, the drift D = mean of 2·(x_float − x)·xᵀ, from
    which `gptq` makes good what moved x (Li et al. 2025, arXiv:2504.02692). Memory: H and D, and some megabytes for the
    rows of a few samples (or of one).

    Args:
        weight_shape: (O, I) of a linear layer, (O, I/groups, k) or (O, I/groups, kh, kw) of a convolution.
        stride: of a convolution; one number or one for each spatial dimension.
        padding: zeros on both sides, likewise.
        dilation: likewise.
        groups: of a convolution.

    Raises:
        ValueError: no such layer can exist.

    Example:
        >>> hessian = HessianAccumulator((8, 2))
        >>> hessian.add(torch.tensor([[1.0, 2.0]]))
        >>> hessian.hessian()
        tensor([[[2., 4.],
                 [4., 8.]]], dtype=torch.float64)
    """

    def __init__(
        self,
        weight_shape: Sequence[int],
        *,
        stride: Numbers = 1,
        padding: Numbers = 0,
        dilation: Numbers = 1,
        groups: int = 1,
    ) -> None:
        """Starts with nothing added."""
        self._state = _C.quant.HessianAccumulator(
            list(weight_shape), as_list(stride), as_list(padding), as_list(dilation), groups
        )

    def add(self, input: Tensor, float_input: Tensor | None = None) -> None:
        """Adds a batch of the layer's inputs: floating point, (..., I) or (N, I, ...), not empty. No gradient.

        Args:
            input: what the layer is given.
            float_input: what the float network gives it, of the same shape. Every batch has one, or none has.

        Raises:
            ValueError: one does not fit the layer, is empty, or holds NaN or infinity. Nothing is then added.
        """
        self._state.add(input, float_input)

    def hessian(self) -> Tensor:
        """Returns H, float64 (groups, K, K), K = I for a linear layer, I/groups·kh·kw for a convolution.

        Raises:
            ValueError: nothing was added.
        """
        hessian: Tensor = self._state.hessian()
        return hessian

    def drift(self) -> Tensor:
        """Returns D, of H's shape: D[:, i, j] is of the drift of input i beside input j.

        Raises:
            ValueError: no float input was added.
        """
        drift: Tensor = self._state.drift()
        return drift

    @property
    def rows(self) -> int:
        """How many rows were added."""
        rows: int = self._state.rows
        return rows
