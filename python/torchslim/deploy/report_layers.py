# SPDX-License-Identifier: BSD-3-Clause
"""What each operation of a network in integers costs, and how far it is from the float network."""

from typing import NamedTuple

from torch import Tensor

from torchslim import _C
from torchslim.deploy.target import Arithmetic
from torchslim.graph import Graph

#: Upper ends of the bins of `LayerReport.steps`: 0, 1, 2, 3 to 4, 5 to 8, 9 to 16; one more bin holds all above.
STEP_BINS: tuple[int, ...] = tuple(_C.deploy.step_bins)


class LayerReport(NamedTuple):
    """One operation of an integer graph."""

    layer: str  #: dotted name of the module it came from
    op: str  #: of `IntegerNode.op`, such as "conv2d"
    arithmetic: Arithmetic  #: of a `.ptl` file there: "int8", "float on codes" or "float"; see `fit_target`
    parameters: int  #: elements of weight and bias
    macs: int  #: multiply-accumulates for one image
    bytes: int  #: in a `.ptl` file: 1 a code, 12 an output channel (of transposed ones 8), 4 a float
    weight_bits: int  #: that hold the weight's codes; 32 where the layer is in float, 0 without a weight
    steps: list[int]  #: elements that are 0, 1, 2, ... steps away (`STEP_BINS`); empty where the result is floats
    mean_steps: float  #: mean distance, not rounded
    max_steps: float  #: largest distance, not rounded


def report_layers(graph: Graph, images: Tensor) -> list[LayerReport]:
    """Compare the integer reference with the same network without any grid, behind each operation.

    A distance is |scale · (code − zero_point) − float value| / scale: what quantisation does to the network, the errors
    of earlier operations included.

    Args:
        graph: the captured graph of a prepared model, as `lower` takes it.
        images: float32 (N, ...), N > 0; all are run in plain integer loops, so a few hundred are enough.

    Returns:
        One row for each node of `lower(graph)`, in order.

    Raises:
        ValueError: what `lower` and `run_integer` refuse, or no images.

    Example:
        >>> [(row.layer, row.mean_steps) for row in ts.deploy.report_layers(ts.graph.capture(model, images), images)]
    """
    return [
        LayerReport(
            row.layer,
            row.op,
            row.arithmetic,
            row.parameters,
            row.macs,
            row.bytes,
            row.weight_bits,
            row.steps,
            row.mean_steps,
            row.max_steps,
        )
        for row in _C.deploy.report_layers(graph, images)
    ]
