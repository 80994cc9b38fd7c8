# SPDX-License-Identifier: BSD-3-Clause
"""What the operations of a traced model are: one name for module, function and method forms."""

import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_MODULE_KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm2d: "batch_norm",
    nn.SyncBatchNorm: "batch_norm",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool",
    nn.AvgPool2d: "avg_pool",
    nn.MaxPool2d: "max_pool",
    nn.Flatten: "flatten",
    nn.Dropout: "dropout",
    nn.Dropout2d: "dropout",
    nn.Identity: "identity",
}

_FUNCTION_KINDS: dict[object, str] = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu: "relu",
    F.relu_: "relu",
    F.relu6: "relu6",
    F.hardtanh: "hardtanh",
    F.hardtanh_: "hardtanh",
    F.adaptive_avg_pool2d: "adaptive_avg_pool",
    torch.mean: "mean",
    F.avg_pool2d: "avg_pool",
    F.max_pool2d: "max_pool",
    torch.max_pool2d: "max_pool",
    torch.flatten: "flatten",
    torch.reshape: "flatten",
    torch.squeeze: "flatten",
    F.dropout: "dropout",
    F.dropout2d: "dropout",
    torch.cat: "concat",
    torch.concat: "concat",
    torch.concatenate: "concat",
}

_METHOD_KINDS = {
    "add": "add",
    "add_": "add",
    "relu": "relu",
    "relu_": "relu",
    "mean": "mean",
    "flatten": "flatten",
    "view": "flatten",
    "reshape": "flatten",
    "squeeze": "flatten",
    "contiguous": "identity",
}

_IN_PLACE = {operator.iadd, torch.relu_, F.relu_, F.hardtanh_, "add_", "relu_"}


class Tracer(fx.Tracer):
    """Traces down to the operations that `kind_of` knows, and remembers the source line of each."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """PyTorch's own layers, and subclasses that keep their forward."""
        base = _known_base(type(m))
        if base is not None:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _known_base(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The layer in the table whose forward `kind` runs, or None."""
    for base in _MODULE_KINDS:
        if issubclass(kind, base) and kind.forward is base.forward:
            return base
    return None


def kind_of(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Returns the name of what `node` does (`conv`, `relu`, `add`, ...), or an empty string."""
    kind = ""
    if node.op == "call_module":
        base = _known_base(type(modules[str(node.target)]))
        kind = "" if base is None else _MODULE_KINDS[base]
    elif node.op == "call_function":
        kind = _FUNCTION_KINDS.get(node.target, "")
    elif node.op == "call_method":
        kind = _METHOD_KINDS.get(str(node.target), "")
    if kind == "hardtanh":
        limits = argument(node, modules, "min_val", 1, -1.0), argument(node, modules, "max_val", 2, 1.0)
        return "relu6" if limits == (0, 6) else ""
    return kind


def argument(node: fx.Node, modules: dict[str, nn.Module], name: str, position: int, default: Any) -> Any:  # noqa: ANN401
    """Returns an argument by its name in the module form, or by name or position in the others."""
    if node.op == "call_module":
        return getattr(modules[str(node.target)], name)
    if name in node.kwargs:
        return node.kwargs[name]
    return node.args[position] if len(node.args) > position else default


def is_in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether `node` overwrites its first input."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    return node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))


def is_spatial_mean(node: fx.Node) -> bool:
    """Whether a `mean` is over height and width of images."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if not isinstance(dims, (tuple, list)) or not all(isinstance(d, int) for d in dims):
        return False
    return sorted(d % 4 for d in dims if isinstance(d, int)) == [2, 3]


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Returns the shape of the node's tensor for the example input, or None if it yields no tensor."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(shape)


def is_flattening(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a change of shape is (N, ...) -> (N, features)."""
    return len(after) == 2 and after == (before[0], math.prod(before[1:]))


def layer_of(node: fx.Node) -> str:
    """Returns the dotted name of the module that ran `node`; empty at the top."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def describe(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Returns operation, layer and source line of `node`, for messages."""
    if node.op == "call_module":
        what = type(modules[str(node.target)]).__name__
    elif isinstance(node.target, str):
        what = node.target
    else:
        what = getattr(node.target, "__name__", str(node.target))
    layer = layer_of(node)
    where = f"layer {layer!r}" if layer else "the model's forward"
    return f"{what!r} in {where}{_source_line(node)}"


def _source_line(node: fx.Node) -> str:
    """The innermost line of the user's own code, from the trace's stack."""
    torch_root = str(Path(torch.__file__).parent)
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    found = ""
    for i, line in enumerate(lines):
        if line.startswith('File "') and torch_root not in line:
            file, _, rest = line[6:].partition('", line ')
            number = rest.split(",")[0]
            code = lines[i + 1] if i + 1 < len(lines) and not lines[i + 1].startswith('File "') else ""
            found = f" ({Path(file).name}:{number}{': ' + code if code else ''})"
    return found


Handler = Callable[[fx.Node], None]
