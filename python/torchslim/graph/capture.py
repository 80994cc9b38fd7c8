# SPDX-License-Identifier: BSD-3-Clause
"""From a running module to a graph of known operations."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from torchslim import _C
from torchslim.graph.graph import Graph
from torchslim.graph.plain_attention import plain_attention

_KNOWN_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch every submodule to eval and back, by its flag alone: `train` methods may do more."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def _one_tensor(example_inputs: Tensor | Sequence[Tensor]) -> Tensor:
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    if len(inputs) != 1:
        raise ValueError(
            f"torchslim.graph.capture: expected one input tensor, got {len(inputs)}; "
            "wrap the module in one whose forward takes one image batch"
        )
    if not isinstance(inputs[0], Tensor):
        raise TypeError(f"torchslim.graph.capture: expected a tensor as example input, got {type(inputs[0]).__name__}")
    return inputs[0]


def _trace(model: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TracerWarning)
        # A copy of the example: forward may start with an operation in place.
        with torch.no_grad(), torch.autocast(example.device.type, enabled=False):
            trace: Callable[..., object] = torch.jit.trace
            traced = trace(model, example.detach().clone(), check_trace=False, strict=False)
    # torch's own functions check sizes, and ours read their flags; what depends on values is seen in the trace.
    decisions = [warning for warning in caught if not warning.filename.startswith(_KNOWN_FOLDERS)]
    if decisions:
        place = f"{decisions[0].filename}:{decisions[0].lineno}"
        cause = str(decisions[0].message).split(".")[0]
        raise ValueError(
            f"torchslim.graph.capture: control flow that a trace cannot hold at {place}: {cause}; "
            "keep decisions on values or shapes out of forward, or under `if not torch.jit.is_tracing():`"
        )
    if not isinstance(traced, torch.jit.ScriptModule):
        raise TypeError(
            f"torchslim.graph.capture: expected an nn.Module, got {type(model).__name__}; wrap the function in a module"
        )
    return traced


def capture(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> Graph:
    """Return what `model` computes in eval mode as a graph of known operations.

    The graph holds the model's own tensors under their state_dict names. The model is left as it was: training
    flags, parameters and buffers. Operations are recognised by what they do, never by class or parameter names.

    Args:
        model: one image batch in, one tensor out; in train or eval mode.
        example_inputs: a float32 batch (N, ...), or a tuple that holds it; the graph is valid for its shape
            apart from N.

    Raises:
        ValueError: an operation outside the list, control flow, a batch size fixed in `forward`, a parameter
            with NaN or Inf; the message names operation, layer, source line and remedy.
        TypeError: the example or a parameter is not float32.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> [node.kind for node in capture(net, torch.zeros(1, 3, 8, 8)).nodes]
        ['input', 'conv2d', 'relu']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"torchslim.graph.capture: expected an nn.Module, got {type(model).__name__}; wrap the function in a module"
        )
    example = _one_tensor(example_inputs)
    with _eval_mode(model), plain_attention(model):
        traced = _trace(model, example)
    graph: Graph = _C.graph.capture(traced._c, example)
    return graph
