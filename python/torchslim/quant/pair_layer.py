# SPDX-License-Identifier: BSD-3-Clause
"""Sums and products of two tensors, in eval as integers compute them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer, is_tracing

_PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "mul": torch.mul}


class QuantPair(nn.Module):
    """a + b or a · b; a quantiser follows it.

    In eval it gives the values that integer runtimes do: sums by fixed-point multipliers, ties away from zero, products
    of steps scaled once. In training, under a trace and where the quantisers do not round it is the plain operation.

    Args:
        kind: "add" or "mul".
        left, right: the quantisers whose grids the operands are on; not owned.
        output: the quantiser that follows; not owned.
    """

    def __init__(
        self, kind: str, left: ActivationQuantizer, right: ActivationQuantizer, output: ActivationQuantizer
    ) -> None:
        """Ties the module to the quantisers around it."""
        super().__init__()
        self.kind = kind
        # In a tuple, modules are not registered as children: the model owns them elsewhere. deepcopy keeps the tie.
        self._quantizers = (left, right, output)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the sum or the product."""
        left, right, output = self._quantizers
        in_integers = not (self.training or output.training or is_tracing())
        if not in_integers or not (left.rounds() and right.rounds() and output.rounds()):
            return _PLAIN[self.kind](a, b)
        requantized = _C.quant.requantized_add if self.kind == "add" else _C.quant.requantized_mul
        y: Tensor = requantized(a.float(), left.scale, b.float(), right.scale, output.scale)
        if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
            plain = _PLAIN[self.kind](a, b)
            y = y + (plain - plain.detach())
        return y

    def extra_repr(self) -> str:
        """The kind, for `print(model)`."""
        return self.kind
