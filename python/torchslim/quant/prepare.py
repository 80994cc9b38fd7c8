# SPDX-License-Identifier: BSD-3-Clause
"""From a float model to one that trains on int8 grids."""

import copy
import itertools
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from torchslim.quant import patterns
from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.batches import in_mode
from torchslim.quant.config import QuantConfig
from torchslim.quant.prepared_model import PreparedModel
from torchslim.quant.rewrite import WHO, Rewriter
from torchslim.quant.tracing import trace
from torchslim.quant.usual_forms import bring_into_usual_forms


def prepare(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor], config: Mapping[str, Any] | None = None
) -> PreparedModel:
    """Returns a copy of `model` that trains in int8: quantisers inserted, convolutions joined with what follows.

    A convolution, its batch norm and its ReLU or ReLU6 become one layer with one quantiser behind it. Additions and
    the input get quantisers of their own; pools keep the grid of their input. Activations have one int8 grid each,
    from a moving average of their range; weights one symmetric grid per output channel, from the weights as they are.

    Args:
        model: a float32 model of one image batch; left untouched. Operations are recognised as modules, functions or
            methods, whatever their names.
        example_inputs: an input batch (N, ...), or a tuple that holds it; its values do not matter.
        config: None for int8, or a mapping: bits, observers and quantisers of activations and weights, for all layers,
            by kind, by type and by name, such as `{"weight": {"bits": 4, "quantizer": "lsq"}, "names": {"classifier":
            None}}`; None leaves a layer in float. `docs/api/quant/config.md` has them all.

    Returns:
        The prepared model, in the training or eval mode `model` was in. Parameters keep their names and order, so that
        its state_dict loads the float model's with `strict=False`. Build the optimiser from it, not from `model`.

    Raises:
        ValueError: a config with an unknown key or layer, or that contradicts itself; an operation that cannot run in
            int8, a model that cannot be traced, NaN or infinity in a parameter or buffer, a layer used twice; the
            message names operation, layer, source line and remedy.
        TypeError: parameters or example are not float32.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> prepared = prepare(net, torch.zeros(1, 3, 8, 8))
        >>> print(prepared.code)
    """
    example = _checked_example(example_inputs)
    settings = QuantConfig(config)
    _check_model(model)
    root = copy.deepcopy(model)
    graph = _trace(root, example)
    bring_into_usual_forms(root, graph)
    _propagate_shapes(root, graph, example)
    rewriter = Rewriter(root, graph, settings)
    rewriter.run()
    return PreparedModel(root, _code(graph), tuple(example.shape), rewriter.float_layers)


def _checked_example(example_inputs: Tensor | Sequence[Tensor]) -> Tensor:
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        kinds = ", ".join(type(x).__name__ for x in inputs)
        raise ValueError(f"{WHO}: expected one input tensor as example, got ({kinds})")
    if inputs[0].dtype != torch.float32:
        raise TypeError(f"{WHO}: expected a float32 example input, got {inputs[0].dtype}")
    return inputs[0].detach()


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"{WHO}: expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, ActivationQuantizer):
            raise ValueError(f"{WHO}: the model holds a quantiser already, {name!r}; prepare the float model")
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise TypeError(f"{WHO}: expected float32, but {name!r} is {tensor.dtype}; call model.float() first")
        constant = not isinstance(tensor, nn.Parameter) and not name.endswith(("running_mean", "running_var"))
        if not bool(torch.isfinite(tensor).all()) and not (constant and not bool(tensor.isnan().any())):
            raise ValueError(
                f"{WHO}: {name!r} holds NaN or infinity; the model is broken, load a checkpoint from before that"
            )


def _trace(root: nn.Module, example: Tensor) -> fx.Graph:
    """Traces the training form, so that dropout is seen, and makes sure that eval computes the same."""
    graphs = []
    for training in (True, False):
        with in_mode(root, training):
            try:
                graphs.append(trace(root, example))
            except Exception as error:
                raise ValueError(
                    f"{WHO}: the model cannot be traced{_user_line(error)}: {str(error).splitlines()[0]}; "
                    "keep decisions on values or shapes out of forward"
                ) from error
    _keep_constants(root, graphs[0])
    modules = dict(root.named_modules(remove_duplicate=False))
    steps = [
        [
            (node.op, "" if node.op == "get_attr" else node.target)
            for node in graph.nodes
            if patterns.kind_of(node, modules) not in ("dropout", "identity")
        ]
        for graph in graphs
    ]
    if steps[0] != steps[1]:
        raise ValueError(
            f"{WHO}: forward computes different things in training and in eval mode; "
            "take out what depends on self.training, but for dropout"
        )
    return graphs[0]


def _keep_constants(root: nn.Module, graph: fx.Graph) -> None:
    """Tensors that forward made of nothing, which the trace holds as attributes, become buffers."""
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and "." not in name and isinstance(root.__dict__.get(name), Tensor):
            root.register_buffer(name, root.__dict__.pop(name), persistent=False)


def _user_line(error: BaseException) -> str:
    """The innermost line outside PyTorch that led to `error`."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _propagate_shapes(root: nn.Module, graph: fx.Graph, example: Tensor) -> None:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        names = ", ".join(str(node.target) for node in inputs)
        raise ValueError(f"{WHO}: expected a model with one input, got ({names}); wrap it in one with a single input")
    runnable = fx.GraphModule(root, copy.deepcopy(graph))
    with in_mode(root, False), torch.no_grad():
        try:
            _ShapesAndNumbers(runnable).propagate(example.clone())
        except Exception as error:
            cause = error.__cause__ or error
            raise ValueError(
                f"{WHO}: the model does not run on the example input of shape {tuple(example.shape)}: "
                f"{str(cause).splitlines()[0]}"
            ) from error
    for node, copied in zip(graph.nodes, runnable.graph.nodes, strict=True):
        node.meta.update({key: copied.meta[key] for key in ("type", "tensor_meta", "number") if key in copied.meta})


class _ShapesAndNumbers(ShapeProp):
    """Notes the shapes of tensors, and what numbers are computed from them."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        result = super().run_node(n)
        if isinstance(result, (int, torch.Size)):
            n.meta["number"] = tuple(result) if isinstance(result, torch.Size) else result
        return result


def _code(graph: fx.Graph) -> str:
    """The graph as Python; it calls modules and functions of torch alone."""
    for node in graph.nodes:
        node.type = None  # annotations may name types of the user's
    return str(graph.python_code("self").src).strip() + "\n"
