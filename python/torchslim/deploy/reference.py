# SPDX-License-Identifier: BSD-3-Clause
"""The integer reference: what a file computes, in plain integer loops."""

from typing import Literal, NamedTuple

from torch import Tensor

from torchslim import _C
from torchslim.deploy.lower import IntegerGraph

#: How the runtime rounds the input image: torch 2.13 adds the zero point before it rounds, older ones after.
InputRule = Literal["torch-2.13", "round-then-add"]


class IntegerResult(NamedTuple):
    """What the integer reference computes: int8 codes (None where it ends in floats), and the float32 values."""

    codes: Tensor | None
    values: Tensor


def run_integer(graph: IntegerGraph, images: Tensor, *, input_rule: InputRule = "torch-2.13") -> IntegerResult:
    """Run `graph` on a batch as QNNPACK does, to the last bit, without a quantised operator of torch.

    Args:
        graph: what `lower` returned.
        images: float32 (N, C, H, W) with the example's C, H and W, finite.
        input_rule: how the runtime to compare with rounds the input.

    Raises:
        ValueError: the shape differs from the example's, or an image holds NaN or infinity.
        TypeError: the images are not float32.

    Example:
        >>> codes, values = ts.deploy.run_integer(ts.deploy.lower(graph), images)
    """
    return IntegerResult(*_C.deploy.run_integer(graph, images, input_rule))


def run_integer_nodes(graph: IntegerGraph, images: Tensor, *, input_rule: InputRule = "torch-2.13") -> list[Tensor]:
    """Return the int8 codes of every node of `graph`, or its floats, in order; for finding where two runs part."""
    codes: list[Tensor] = _C.deploy.run_integer_nodes(graph, images, input_rule)
    return codes
