# SPDX-License-Identifier: BSD-3-Clause
"""Some of what a layer is given and should answer, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchslim import _C
from torchslim.quant.hessian import Numbers, as_list


class LayerSamples:
    """Keeps rows that a layer's weight is applied to, and the outputs wanted for them.

    A row is an input of a linear layer or a window of a convolution's input. Every row that was added is kept with the
    same probability (Vitter 1985, algorithm R), so that memory is bounded.

    Args:
        weight_shape: (O, I) of a linear layer, (O, I/groups, k) or (O, I/groups, kh, kw) of a convolution.
        stride: of a convolution; one number or one for each spatial dimension.
        padding: zeros on both sides, likewise.
        dilation: likewise.
        groups: of a convolution.
        max_bytes: of the rows kept, at least one; each is float32, with its target.
        seed: of the choice.

    Raises:
        ValueError: no such layer can exist, or no row fits.

    Example:
        >>> samples = LayerSamples((1, 2))
        >>> samples.add(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
        >>> samples.inputs, samples.targets
        (tensor([[[1., 2.]]]), tensor([[[3.]]]))
    """

    def __init__(
        self,
        weight_shape: Sequence[int],
        *,
        stride: Numbers = 1,
        padding: Numbers = 0,
        dilation: Numbers = 1,
        groups: int = 1,
        max_bytes: int = 256 << 20,
        seed: int = 0,
    ) -> None:
        """Starts with nothing added."""
        geometry = as_list(stride), as_list(padding), as_list(dilation), groups
        self._state = _C.quant.LayerSamples(list(weight_shape), *geometry, max_bytes, seed)

    def add(self, input: Tensor, target: Tensor) -> None:
        """Adds a batch: inputs (..., I) or (N, I, ...), and the outputs wanted for them, (..., O) or (N, O, ...).

        Raises:
            ValueError: they do not fit the layer, are empty, or hold NaN or infinity. Nothing is then added.
        """
        self._state.add(input, target)

    @property
    def inputs(self) -> Tensor:
        """The rows kept, float32 (groups, rows, K)."""
        inputs: Tensor = self._state.inputs()
        return inputs

    @property
    def targets(self) -> Tensor:
        """Their targets, float32 (groups, rows, O / groups)."""
        targets: Tensor = self._state.targets()
        return targets

    @property
    def rows(self) -> int:
        """How many rows were added."""
        rows: int = self._state.rows
        return rows
