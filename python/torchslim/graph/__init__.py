# SPDX-License-Identifier: BSD-3-Clause
"""A network as a small graph of known operations, with shapes and parameter names."""

from torchslim.graph.capture import capture
from torchslim.graph.graph import AtenCall, Graph, Grid, NamedTensor, Node, Window
from torchslim.graph.run import LayerCount, count_layers, count_macs, fold_batch_norms, run_float

__all__ = [
    "AtenCall",
    "Graph",
    "Grid",
    "LayerCount",
    "NamedTensor",
    "Node",
    "Window",
    "capture",
    "count_layers",
    "count_macs",
    "fold_batch_norms",
    "run_float",
]
