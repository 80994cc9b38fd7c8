# SPDX-License-Identifier: BSD-3-Clause
"""From a captured, prepared model to integers."""

from typing import TYPE_CHECKING

from torchslim import _C
from torchslim.graph import Graph

if TYPE_CHECKING:
    from torch import Tensor

    from torchslim.graph.graph import Node, Window

    class IntegerNode:
        """One operation on int8 codes: value = scale · (code − zero_point). Unused fields are None."""

        op: str
        layer: str
        inputs: list[int]
        shape: list[int]
        scale: float
        zero_point: int
        clamp_min: int
        clamp_max: int
        codes: Tensor | None
        weight_scale: Tensor | None
        bias: Tensor | None
        bias_codes: Tensor | None
        table: Tensor | None
        window: Window
        float_node: Node | None
        gives_floats: bool

    class WeightCount:
        """How many int8 weights a graph holds, and how many are not 0."""

        total: int
        nonzero: int
        sparsity: float

    class IntegerGraph:
        """A trained network in integers: node 0 is the input, the last is the result. Copies and pickles."""

        nodes: list[IntegerNode]

        def count_weights(self) -> WeightCount:
            """Count the int8 codes of all convolutions and linear layers: what is 0 here is 0 in the file."""
            ...

        def checksum(self) -> str:
            """Return a CRC-32 over every number that decides an output, as eight hex digits."""
            ...
else:
    IntegerGraph = _C.deploy.IntegerGraph
    IntegerNode = _C.deploy.IntegerNode
    WeightCount = _C.deploy.WeightCount


def lower(graph: Graph) -> IntegerGraph:
    """Turn the captured graph of a prepared model into integers.

    Weights, biases and batch norms become what the prepared model's eval forward uses; activation grids are the
    trained ones, never observed again.

    Args:
        graph: what `torchslim.graph.capture` returned for a prepared model.

    Raises:
        ValueError: a layer is not quantised or cannot be computed in integers; the message names it and the remedy.

    Example:
        >>> model = ts.quant.prepare(model, images)  # then train
        >>> print(ts.deploy.lower(ts.graph.capture(model.eval(), images)))
    """
    lowered: IntegerGraph = _C.deploy.lower(graph)
    return lowered


__all__ = ["IntegerGraph", "IntegerNode", "WeightCount", "lower"]
