# SPDX-License-Identifier: BSD-3-Clause
"""What each target can do, and how it does it."""

from typing import Literal, NamedTuple, cast

from torchslim import _C
from torchslim.deploy.lower import IntegerGraph

Arithmetic = Literal["int8", "float on codes", "float"]


class LayerFit(NamedTuple):
    """What a target makes of one operation of an integer graph."""

    layer: str  #: dotted name of the module it came from
    op: str  #: of `IntegerNode.op`, such as "conv2d"
    arithmetic: Arithmetic  #: "float on codes": dequantised, computed on whole numbers, quantised; the same bits
    problem: str  #: why the target cannot run it, with the numbers and the remedy; empty: it can


def known_targets() -> list[str]:
    """Return the targets that `fit_target` knows: "qnnpack" (`.ptl`), "onnx" (`.onnx`), "xnnpack" (`.pte`)."""
    return list(_C.deploy.known_targets())


def fit_target(graph: IntegerGraph, target: str) -> list[LayerFit]:
    """Say for each operation how a target computes it and whether it can; `save` refuses what cannot run.

    Args:
        graph: what `lower` returned.
        target: of `known_targets()`.

    Returns:
        One row for each node of the graph, in order.

    Raises:
        ValueError: an unknown target.

    Example:
        >>> graph = ts.deploy.lower(ts.graph.capture(model.eval(), images))
        >>> [row.layer for row in ts.deploy.fit_target(graph, "qnnpack") if row.arithmetic != "int8"]
    """
    return [
        LayerFit(layer, op, cast(Arithmetic, arithmetic), problem)
        for layer, op, arithmetic, problem in _C.deploy.fit_target(graph, target)
    ]
