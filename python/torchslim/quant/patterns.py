# SPDX-License-Identifier: BSD-3-Clause
"""What the operations of a traced model are: one name for module, function and method forms."""

import math
import operator
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torchslim.quant.encoder_layers import ENCODERS, plain_forward

_MODULE_KINDS: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv",
    nn.Conv2d: "conv",
    nn.ConvTranspose1d: "conv",
    nn.ConvTranspose2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.SyncBatchNorm: "batch_norm",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.AdaptiveAvgPool1d: "adaptive_avg_pool",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool",
    nn.AvgPool1d: "avg_pool",
    nn.AvgPool2d: "avg_pool",
    nn.MaxPool1d: "max_pool",
    nn.MaxPool2d: "max_pool",
    nn.Flatten: "flatten",
    nn.Dropout: "dropout",
    nn.Dropout1d: "dropout",
    nn.Dropout2d: "dropout",
    nn.Identity: "identity",
    nn.Hardswish: "function",
    nn.Hardsigmoid: "function",
    nn.Sigmoid: "function",
    nn.SiLU: "function",
    nn.Tanh: "function",
    nn.LeakyReLU: "function",
    nn.ELU: "function",
    nn.SELU: "function",
    nn.CELU: "function",
    nn.GELU: "function",
    nn.Mish: "function",
    nn.Softplus: "function",
    nn.LogSigmoid: "function",
    nn.ChannelShuffle: "move",
    nn.PixelShuffle: "move",
    nn.PixelUnshuffle: "move",
    nn.ZeroPad1d: "move",
    nn.ZeroPad2d: "move",
    nn.ReflectionPad1d: "move",
    nn.ReflectionPad2d: "move",
    nn.ReplicationPad1d: "move",
    nn.ReplicationPad2d: "move",
    nn.CircularPad1d: "move",
    nn.CircularPad2d: "move",
    nn.AdaptiveMaxPool2d: "move",
    nn.Unflatten: "move",
    nn.Upsample: "resize",
    nn.UpsamplingNearest2d: "resize",
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
    F.adaptive_avg_pool1d: "adaptive_avg_pool",
    F.adaptive_avg_pool2d: "adaptive_avg_pool",
    torch.mean: "mean",
    F.avg_pool1d: "avg_pool",
    F.avg_pool2d: "avg_pool",
    F.max_pool1d: "max_pool",
    F.max_pool2d: "max_pool",
    torch.max_pool1d: "max_pool",
    torch.max_pool2d: "max_pool",
    torch.flatten: "flatten",
    torch.reshape: "flatten",
    torch.squeeze: "flatten",
    F.dropout: "dropout",
    F.dropout2d: "dropout",
    torch.cat: "concat",
    torch.concat: "concat",
    torch.concatenate: "concat",
    torch.stack: "concat",
    operator.mul: "mul",
    operator.imul: "mul",
    torch.mul: "mul",
    torch.multiply: "mul",
    operator.sub: "arithmetic",
    operator.isub: "arithmetic",
    operator.truediv: "arithmetic",
    operator.itruediv: "arithmetic",
    operator.neg: "arithmetic",
    torch.sub: "arithmetic",
    torch.div: "arithmetic",
    torch.neg: "arithmetic",
    F.hardswish: "function",
    F.hardsigmoid: "function",
    F.sigmoid: "function",
    torch.sigmoid: "function",
    F.silu: "function",
    F.tanh: "function",
    torch.tanh: "function",
    F.leaky_relu: "function",
    F.elu: "function",
    F.selu: "function",
    F.celu: "function",
    F.gelu: "function",
    F.mish: "function",
    F.softplus: "function",
    F.logsigmoid: "function",
    torch.clamp: "function",
    torch.abs: "function",
    torch.chunk: "move",
    torch.split: "move",
    torch.unbind: "move",
    torch.transpose: "move",
    torch.permute: "move",
    torch.unsqueeze: "move",
    torch.narrow: "move",
    torch.index_select: "move",
    torch.flip: "move",
    torch.roll: "move",
    F.channel_shuffle: "move",
    F.pixel_shuffle: "move",
    F.pixel_unshuffle: "move",
    F.adaptive_max_pool2d: "move",
    operator.getitem: "move",
    F.pad: "pad",
    F.interpolate: "resize",
    F.upsample: "resize",
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
    "contiguous": "move",
    "mul": "mul",
    "mul_": "mul",
    "sub": "arithmetic",
    "div": "arithmetic",
    "sigmoid": "function",
    "sigmoid_": "function",
    "tanh": "function",
    "clamp": "function",
    "abs": "function",
    "chunk": "move",
    "split": "move",
    "unbind": "move",
    "transpose": "move",
    "permute": "move",
    "unsqueeze": "move",
    "narrow": "move",
    "index_select": "move",
    "flip": "move",
    "roll": "move",
    "expand": "move",
    "expand_as": "move",
    "repeat": "move",
    "unflatten": "move",
}

_IN_PLACE = {
    operator.iadd,
    operator.imul,
    operator.isub,
    operator.itruediv,
    torch.relu_,
    F.relu_,
    F.hardtanh_,
    "add_",
    "relu_",
    "mul_",
    "sigmoid_",
}

#: The form of an operation that overwrites its input that does not.
OUT_OF_PLACE: dict[object, Any] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
    "add_": "add",
    "mul_": "mul",
    "sigmoid_": "sigmoid",
}


class Tracer(fx.Tracer):
    """Traces down to the operations that `kind_of` knows, and remembers the source line of each."""

    def __init__(self) -> None:
        """Starts without a model."""
        super().__init__()
        self._whole: set[nn.Module] = set()  # called with masks: torch's own forward, as one operation

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Calls `m`, a transformer's encoder by its layers."""
        if type(m) in ENCODERS:
            plain = plain_forward(m, args, kwargs)
            if plain is None:
                self._whole.add(m)
            else:
                forward = plain
        return super().call_module(m, forward, args, kwargs)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401
        """The node, with the stack that led to it; fx's own `record_stack_traces` imports the compiler, a second."""
        node = super().create_node(*args, **kwargs)
        frames = list(traceback.walk_stack(sys._getframe(1)))
        node.stack_trace = "".join(traceback.StackSummary.extract(reversed(frames)).format())
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """PyTorch's own layers, and subclasses that keep their forward."""
        base = _known_base(type(m))
        if base is not None:
            return True
        if type(m) in ENCODERS and m not in self._whole:
            return False
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
        return "relu6" if limits == (0, 6) else "function"
    if kind == "resize":
        return "move" if argument(node, modules, "mode", 3, "nearest") == "nearest" else ""
    if kind == "pad":
        fills_in = argument(node, modules, "mode", 2, "constant"), argument(node, modules, "value", 3, None) or 0
        return "move" if fills_in[0] != "constant" or fills_in[1] == 0 else ""
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


def is_one_dimensional(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a layer or pool is over (N, C, L)."""
    if node.op == "call_module":
        base = _known_base(type(modules[str(node.target)]))
        return base is not None and base.__name__.endswith("1d")
    return str(getattr(node.target, "__name__", "")).endswith("1d")


def is_spatial_mean(node: fx.Node, shape: tuple[int, ...]) -> bool:
    """Whether a `mean` of a tensor of that shape is over height and width of images, or the length of (N, C, L)."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = (dims,) if isinstance(dims, int) else dims
    if len(shape) not in (3, 4) or not isinstance(dims, (tuple, list)) or not all(isinstance(d, int) for d in dims):
        return False
    return sorted(d % len(shape) for d in dims if isinstance(d, int)) == list(range(2, len(shape)))


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
    torch_root, own_root = str(Path(torch.__file__).parent), str(Path(__file__).parent)
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    found = ""
    for i, line in enumerate(lines):
        if line.startswith('File "') and torch_root not in line and own_root not in line:
            file, _, rest = line[6:].partition('", line ')
            number = rest.split(",")[0]
            code = lines[i + 1] if i + 1 < len(lines) and not lines[i + 1].startswith('File "') else ""
            found = f" ({Path(file).name}:{number}{': ' + code if code else ''})"
    return found


Handler = Callable[[fx.Node], None]
