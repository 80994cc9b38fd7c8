# SPDX-License-Identifier: BSD-3-Clause
"""Brings operations of a traced model into the forms that have rules, before shapes are known."""

from __future__ import annotations

import operator
from typing import cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchslim.quant import patterns


def bring_into_usual_forms(root: nn.Module, graph: fx.Graph) -> None:
    """Rewrites `graph`, and the layers of `root` with it: the network computes what it did.

    Padding other than zeros on both sides becomes an operation before its convolution, a gated linear unit a product,
    and sizes that are read off `x.data` are read off `x`.
    """
    modules = dict(root.named_modules(remove_duplicate=False))
    padded: dict[nn.Module, tuple[list[int], str] | None] = {}
    for node in list(graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if module is not None and patterns.kind_of(node, modules) == "conv" and not _is_transposed(module):
            if module not in padded:
                padded[module] = _take_padding(cast("nn.Conv1d | nn.Conv2d", module))
            if padded[module] is not None:
                _pad_before(graph, node, *cast("tuple[list[int], str]", padded[module]))
        elif node.target is F.glu or type(module) is nn.GLU:
            _gate(graph, node, patterns.argument(node, modules, "dim", 1, -1))
        elif node.target is getattr and len(node.args) == 2 and node.args[1] == "data":
            _read_sizes_before(node)
            if not node.users:
                graph.erase_node(node)


def _is_transposed(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))


def _take_padding(conv: nn.Conv1d | nn.Conv2d) -> tuple[list[int], str] | None:
    """What must be padded before `conv`, from the last dimension on, and how; None where its own padding does."""
    sides: list[int] = []
    for i in reversed(range(len(conv.kernel_size))):
        if isinstance(conv.padding, str):
            total = conv.dilation[i] * (conv.kernel_size[i] - 1) if conv.padding == "same" else 0
            sides += [total // 2, total - total // 2]
        else:
            sides += [conv.padding[i]] * 2
    even = all(sides[i] == sides[i + 1] for i in range(0, len(sides), 2))
    if not any(sides) or (conv.padding_mode == "zeros" and even):
        return None
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    conv.__dict__["padding"] = (0,) * len(conv.kernel_size)
    conv.__dict__["padding_mode"] = "zeros"
    return sides, mode


def _pad_before(graph: fx.Graph, node: fx.Node, sides: list[int], mode: str) -> None:
    x = _input_of(node)
    with graph.inserting_before(node):
        padding = graph.call_function(F.pad, (x, sides), {"mode": mode})
    _written_where(padding, node)
    node.replace_input_with(x, padding)


def _gate(graph: fx.Graph, node: fx.Node, dim: int) -> None:
    x = _input_of(node)
    with graph.inserting_before(node):
        halves = graph.call_method("chunk", (x, 2, dim))
        first, second = (graph.call_function(operator.getitem, (halves, i)) for i in (0, 1))
        gate = graph.call_function(torch.sigmoid, (second,))
        product = graph.call_function(torch.mul, (first, gate))
    for made in (halves, first, second, gate, product):
        _written_where(made, node)
    node.replace_all_uses_with(product)
    graph.erase_node(node)


def _read_sizes_before(node: fx.Node) -> None:
    """`x.data` has the sizes of `x`."""
    for user in list(node.users):
        if user.target in ("size", "dim") or (user.target is getattr and user.args[1] in ("shape", "ndim")):
            user.replace_input_with(node, _input_of(node))


def _input_of(node: fx.Node) -> fx.Node:
    return cast(fx.Node, node.args[0] if node.args else node.kwargs["input"])


def _written_where(made: fx.Node, node: fx.Node) -> None:
    made.stack_trace = node.stack_trace
    if "nn_module_stack" in node.meta:
        made.meta["nn_module_stack"] = node.meta["nn_module_stack"]
