# SPDX-License-Identifier: BSD-3-Clause
"""From a prepared model to integers."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from torchslim.deploy import IntegerGraph, lower, run_integer
from torchslim.graph import capture
from torchslim.quant.prepared_model import PreparedModel, fake_quantizers

_WHO = "torchslim.quant.convert"


class ConvertedModel(nn.Module):
    """A network in integers, run by the integer reference; `convert` makes it.

    For each layer with weights it holds buffers under the layer's name: `codes` (int8), `weight_scale`, `bias`.

    Attributes:
        integer_graph: the network; `print(model.integer_graph)` shows its operations and grids.
        example_shape: the shape of the example input; other batch sizes run too.
    """

    def __init__(self, integer_graph: IntegerGraph, example_shape: tuple[int, ...]) -> None:
        """Takes a graph of `torchslim.deploy.lower`."""
        super().__init__()
        self.integer_graph = integer_graph
        self.example_shape = example_shape
        for node in integer_graph.nodes:
            if node.codes is not None:
                layer = self._layer(node.layer)
                for name in ("codes", "weight_scale", "bias"):
                    layer.register_buffer(name, getattr(node, name))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Returns float32 values on the output's grid: scale × (code − zero point).

        Args:
            x: float32 images (N, C, H, W) with the example's C, H and W; finite.
        """
        return run_integer(self.integer_graph, x, input_rule="round-then-add").values

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> NoReturn:
        """Refused: grids of activations are no tensors here, so weights alone would not fit them."""
        raise ValueError(
            "torchslim.quant.ConvertedModel: a converted model cannot be changed; "
            "load the prepared model and convert it again"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "ConvertedModel":
        """Buffers are the graph's own tensors in the copy too."""
        return ConvertedModel(copy.deepcopy(self.integer_graph, memo), self.example_shape)

    def __reduce__(self) -> tuple[type["ConvertedModel"], tuple[IntegerGraph, tuple[int, ...]]]:
        """Pickles the graph; buffers follow from it."""
        return ConvertedModel, (self.integer_graph, self.example_shape)

    def _layer(self, name: str) -> nn.Module:
        module: nn.Module = self
        for part in name.split("."):
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module


def convert(model: nn.Module) -> ConvertedModel:
    """Returns the integers that a prepared model has trained, as a module that runs them.

    They are those of `model.eval()` as it is now: weights and biases by the same C++ function, grids of activations as
    they stand; nothing is observed again. Layers in float, and layers whose weight has no integer codes, run on floats
    between them. The model is left as it is and can go on training.

    Args:
        model: of `torchslim.quant.prepare`, after training forwards, with fake-quantise enabled.

    Returns:
        A module whose forward computes in integers (the exact rules of QNNPACK) and returns float32 values.

    Raises:
        TypeError: `model` is not a prepared model.
        ValueError: a quantiser has seen nothing or is disabled, a parameter or buffer holds NaN or infinity, or the
            network does not fit integers; the message names the layer.

    Example:
        >>> converted = convert(prepared)
        >>> (converted(images) - prepared.eval()(images)).abs().max() / step  # at most 1: where rounding meets a tie
    """
    if not isinstance(model, PreparedModel):
        raise TypeError(
            f"{_WHO}: expected a prepared model, got {type(model).__name__}; call torchslim.quant.prepare and train it"
        )
    _check_quantizers(model)
    _check_finite(model)
    # Of one image: where the batch lies elsewhere for a while, the integer reference counts on it.
    graph = capture(model, torch.zeros(1, *model.example_shape[1:]))
    return ConvertedModel(lower(graph), model.example_shape)


def _check_quantizers(model: PreparedModel) -> None:
    for name, quantizer in fake_quantizers(model):
        if not quantizer.has_grid():
            raise ValueError(
                f"{_WHO}: {name!r} has seen no data, so its scale is not set; run forwards in training mode first"
            )
        if not bool(quantizer.fake_quant_enabled.item()):
            raise ValueError(
                f"{_WHO}: fake-quantise is disabled in {name!r}; call torchslim.quant.enable_fake_quant first"
            )


def _check_finite(model: PreparedModel) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"{_WHO}: {name!r} holds NaN or infinity; training broke it, load a checkpoint from before that"
            )
