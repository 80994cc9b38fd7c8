# SPDX-License-Identifier: BSD-3-Clause
"""The rest of what `rewrite.Rewriter` knows: products, concatenations, functions of each element, moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from torchslim.quant import patterns
from torchslim.quant.batch_norm_layer import QuantBatchNorm2d
from torchslim.quant.pair_layer import QuantPair

if TYPE_CHECKING:
    from torchslim.quant.rewrite import Rewriter


def add_or_multiply(rewriter: Rewriter, node: fx.Node, kind: str) -> None:
    """The sum or product of two tensors; of a tensor and a number it is a function of each element."""
    terms = [*node.args, *(node.kwargs[k] for k in ("input", "other") if k in node.kwargs)][:2]
    tensors = [t for t in terms if isinstance(t, fx.Node) and t in rewriter.grids]
    if len(tensors) < len(terms) or node.kwargs.get("alpha", 1) != 1:
        apply_function(rewriter, node)
        return
    activation, last = rewriter.activation_after(node)
    path, quantizer = rewriter.new_quantizer(home(node), f"{kind}_fake_quantize", node, activation)
    with rewriter.graph.inserting_before(node):
        left, right = (rewriter.grids[t] for t in tensors)
        pair = QuantPair(kind, left, right, quantizer)
        result = rewriter.graph.call_module(rewriter.add_module(home(node), f"{kind}_layer", pair), tuple(tensors))
        rounded = rewriter.graph.call_module(path, (result,))
    rewriter.put(rounded, quantizer, node, last)


def concatenate(rewriter: Rewriter, node: fx.Node) -> None:
    """Tensors of one grid stay on it; others get a grid of their own behind the concatenation."""
    terms = node.args[0] if node.args else node.kwargs.get("tensors")
    if not isinstance(terms, (list, tuple)) or not all(isinstance(t, fx.Node) and t in rewriter.grids for t in terms):
        rewriter.refuse(node, "expected a list of tensors that all depend on the input", "compute constants outside")
    grids = {id(rewriter.grids[t]) for t in terms}
    if len(grids) == 1:
        rewriter.finish(node, rewriter.grids[terms[0]])
        return
    activation, last = rewriter.activation_after(node)
    path, quantizer = rewriter.new_quantizer(home(node), "concat_fake_quantize", node, activation)
    with rewriter.graph.inserting_before(node):
        result = rewriter.graph.create_node("call_function", node.target, node.args, node.kwargs)
        rounded = rewriter.graph.call_module(path, (result,))
    rewriter.put(rounded, quantizer, node, last)


def apply_function(rewriter: Rewriter, node: fx.Node) -> None:
    """A function of each element, such as hardswish, with a quantiser behind it."""
    not_in_place(rewriter, node)
    path, quantizer = rewriter.new_quantizer(home(node), f"{name_of(rewriter, node)}_fake_quantize", node)
    with rewriter.graph.inserting_after(node):
        rounded = rewriter.graph.call_module(path)
    node.replace_all_uses_with(rounded)
    rounded.args = (node,)
    rounded.meta = dict(node.meta)
    rewriter.done.add(node)
    rewriter.finish(rounded, quantizer)


def scale_channels(rewriter: Rewriter, node: fx.Node, norm: nn.Module) -> None:
    """A batch norm that follows no layer: a factor and an offset for each channel, as a depthwise 1×1 convolution."""
    activation, last = rewriter.activation_after(node)
    parent, _, name = str(node.target).rpartition(".")
    path, output = rewriter.new_quantizer(parent, f"{name}_fake_quantize", node, activation)
    layer = QuantBatchNorm2d(norm, rewriter.grid(node), output, str(node.target))
    layer_path = rewriter.add_module(parent, f"{name}_layer", layer)
    with rewriter.graph.inserting_before(node):
        result = rewriter.graph.call_module(layer_path, (rewriter.input_of(node),))
        rounded = rewriter.graph.call_module(path, (result,))
    rewriter.put(rounded, output, node, last)


def not_in_place(rewriter: Rewriter, node: fx.Node) -> None:
    """Turns an operation that overwrites its input into the form that does not: others may read the input."""
    if node.op == "call_module":
        module = rewriter.modules[str(node.target)]
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False
    else:
        node.target = patterns.OUT_OF_PLACE.get(node.target, node.target)
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}


def home(node: fx.Node) -> str:
    """The dotted name of the module whose forward writes `node` down."""
    layer = patterns.layer_of(node)
    return layer.rpartition(".")[0] if node.op == "call_module" else layer


def name_of(rewriter: Rewriter, node: fx.Node) -> str:
    """The own name of the module or function that `node` calls; functions have the one that ATen's operator has."""
    if node.op == "call_module":
        return str(node.target).rpartition(".")[2]
    target: Any = node.target
    name = str(target if isinstance(target, str) else target.__name__).strip("_")
    return {"truediv": "div", "multiply": "mul", "itruediv": "div"}.get(name, name)
