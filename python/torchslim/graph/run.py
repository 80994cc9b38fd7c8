# SPDX-License-Identifier: BSD-3-Clause
"""What can be done with a captured graph: run it, fold its batch norms, count its work."""

from typing import NamedTuple

from torch import Tensor

from torchslim import _C
from torchslim.graph.graph import Graph


class LayerCount(NamedTuple):
    """What one convolution or linear layer costs: multiply-accumulates for one image, weights, zeros among them."""

    layer: str
    weight: str
    kind: str
    macs: int
    weights: int
    zeros: int


def run_float(graph: Graph, input: Tensor) -> Tensor:
    """Return the graph's result for `input` (N, ...), node by node in float, fake-quantised where it has grids.

    Raises:
        ValueError: the shape differs from the captured one in more than N.
    """
    result: Tensor = _C.graph.run_float(graph, input)
    return result


def fold_batch_norms(graph: Graph) -> Graph:
    """Return `graph` without batch norms: folded into the convolution before, or a depthwise 1×1 one instead.

    Raises:
        ValueError: the graph has fake-quantised values, or a folded value is not finite.
    """
    folded: Graph = _C.graph.fold_batch_norms(graph)
    return folded


def count_macs(graph: Graph) -> int:
    """Return the multiply-accumulates of one image in convolutions and linear layers, zeros included."""
    return int(_C.graph.count_macs(graph))


def count_layers(graph: Graph) -> list[LayerCount]:
    """Return one row for each convolution and linear layer, in order.

    Zeros are counted as the weights run: after rounding, where the weight is fake-quantised.
    """
    return [LayerCount(*row) for row in _C.graph.count_layers(graph)]
