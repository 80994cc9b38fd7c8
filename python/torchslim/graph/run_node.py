# SPDX-License-Identifier: BSD-3-Clause
"""One node of a graph as calls of torch's own operators, which other exporters can follow."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchslim.graph.graph import AtenCall, Node, Window

Parameter = Callable[[Tensor], Tensor]


def run_node(node: Node, inputs: Sequence[Tensor], parameter: Parameter = lambda tensor: tensor) -> Tensor:
    """Return what `node`, not the input and no quantiser, computes of its inputs, for the batch size of the capture.

    Args:
        node: of a graph whose batch norms may be folded.
        inputs: one tensor for each of `node.inputs`.
        parameter: what stands for a tensor of the model, such as a buffer of the module that is traced.

    Raises:
        ValueError: the node's kind cannot be run alone.
    """
    x = inputs[0]
    if node.call is not None:
        return _run_call(node.call, inputs, parameter)
    simple: dict[str, Callable[[], Tensor]] = {
        "relu": lambda: F.relu(x),
        "relu6": lambda: F.hardtanh(x, 0.0, 6.0),
        "add": lambda: x + inputs[1],
        "mul": lambda: x * inputs[1],
        "concat": lambda: torch.cat(list(inputs), node.dim),
        "global_avg_pool": lambda: F.adaptive_avg_pool2d(x, 1),
        "flatten": lambda: torch.flatten(x, 1),
        "max_pool2d": lambda: max_pool(x, node.window),
        "avg_pool2d": lambda: avg_pool(x, node.window),
    }
    if node.kind in simple:
        return simple[node.kind]()
    weight = None if node.weight.value is None else parameter(node.weight.value)
    bias = None if node.bias.value is None else parameter(node.bias.value)
    if node.kind == "batch_norm2d":
        assert node.running_mean.value is not None and node.running_var.value is not None
        mean, var = parameter(node.running_mean.value), parameter(node.running_var.value)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, node.eps)
    if weight is None:
        raise ValueError(f"torchslim.graph.run_node: layer {node.layer!r}: a {node.kind} cannot be run alone")
    return weighted(node.kind, x, weight, bias, node.window)


def weighted(kind: str, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """Return what a convolution of any kind or a linear layer computes; `weight` as torch's functions take it."""
    if kind == "linear":
        return F.linear(x, weight, bias)
    one = kind.endswith("1d")

    def sizes(pair: list[int]) -> list[int]:
        return pair[1:] if one else list(pair)

    stride, padding, dilation = sizes(window.stride), sizes(window.padding), sizes(window.dilation)
    if "transpose" in kind:
        turned: Any = torch.conv_transpose1d if one else torch.conv_transpose2d
        outside = sizes(window.output_padding)
        result: Tensor = turned(x, weight, bias, stride, padding, outside, window.groups, dilation)
        return result
    straight: Any = torch.conv1d if one else torch.conv2d
    result = straight(x, weight, bias, stride, padding, dilation, window.groups)
    return result


def max_pool(x: Tensor, window: Window) -> Tensor:
    """Return the maximum over each window."""
    return F.max_pool2d(x, window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode)


def avg_pool(x: Tensor, window: Window) -> Tensor:
    """Return the average over each window, of images or of lengths."""
    if x.dim() == 3:
        sizes = window.kernel[1:], window.stride[1:], window.padding[1:]
        return F.avg_pool1d(x, *sizes, window.ceil_mode, window.count_include_pad)
    sizes = window.kernel, window.stride, window.padding
    return F.avg_pool2d(x, *sizes, window.ceil_mode, window.count_include_pad)


def _run_call(call: AtenCall, inputs: Sequence[Tensor], parameter: Parameter) -> Tensor:
    operator = getattr(getattr(torch.ops.aten, call.op.removeprefix("aten::")), call.overload or "default")
    arguments = [parameter(value) if isinstance(value, Tensor) else value for value in call.arguments]
    for slot, value in zip(call.slots, inputs, strict=True):
        arguments[slot] = value
    if call.op == "aten::prelu" and isinstance(call.arguments[1], Tensor):
        # ExecuTorch's own form fails on slopes of channels.
        slope = arguments[1].reshape(-1, *(1 for _ in inputs[0].shape[2:]))
        falling: Tensor = F.relu(inputs[0]) - slope * F.relu(-inputs[0])
        return falling
    if call.op == "aten::adaptive_max_pool2d" and inputs[0].dim() == 4:
        sizes, wanted = inputs[0].shape[2:], arguments[1]
        if all(size % want == 0 for size, want in zip(sizes, wanted, strict=True)):
            return F.max_pool2d(inputs[0], [size // want for size, want in zip(sizes, wanted, strict=True)])
    schema = operator._schema.arguments
    by_place = [value for value, place in zip(arguments, schema, strict=True) if not place.kwarg_only]
    by_name = {place.name: value for value, place in zip(arguments, schema, strict=True) if place.kwarg_only}
    result = operator(*by_place, **by_name)
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor
