# SPDX-License-Identifier: BSD-3-Clause
"""What each layer of a network suffers from few bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.graph import capture, count_layers
from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.batches import in_mode
from torchslim.quant.prepared_model import PreparedModel, fake_quantizers
from torchslim.quant.weight_grid import ScaleSearch, round_weight
from torchslim.quant.weighted_layers import (
    TransposedLayer,
    WeightedLayer,
    transposed_weight,
    weight_by_outputs,
    weighted_layers,
)

_WHO = "torchslim.quant.sensitivity"


@dataclass(frozen=True)
class LayerSensitivity:
    """What the network was worth with one layer rounded and all others in float.

    Attributes:
        layer: its name.
        weights: elements of its weight.
        channels: its output channels, each with one scale.
        macs: multiply-accumulates for one image; 0 where they were not counted.
        values: of `evaluate`, by bits.
    """

    layer: str
    weights: int
    channels: int
    macs: int
    values: dict[int, float]


@dataclass(frozen=True)
class Sensitivity:
    """The result of `sensitivity`; `print` shows a table, the worst layer for the fewest bits first.

    Attributes:
        bits: the widths tried.
        higher_is_better: whether values are accuracies.
        baseline: of `evaluate`, all in float.
        rows: one for each layer, in the model's order.
    """

    bits: tuple[int, ...]
    higher_is_better: bool
    baseline: float
    rows: tuple[LayerSensitivity, ...]

    def damage(self, layer: str, bits: int) -> float:
        """Returns how much worse than the baseline that layer makes the network; below 0 where it is better."""
        names = [row.layer for row in self.rows]
        if layer not in names or bits not in self.bits:
            raise ValueError(f"torchslim.quant.Sensitivity: no value for layer {layer!r} of {bits} bits")
        value: float = self._in_cpp().damage(names.index(layer), self.bits.index(bits))
        return value

    def __str__(self) -> str:
        """The table."""
        return str(self._in_cpp())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Writes a picture of all values to `path` (.png, .svg, .pdf).

        Raises:
            ImportError: matplotlib is not installed.
        """
        from matplotlib.figure import Figure  # an extra: only a picture needs it

        figure = Figure(figsize=(6.4, 1.5 + 0.22 * len(self.rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(self.rows))
        values = [value for row in self.rows for value in row.values.values()]
        scale = axis_scale(values)
        axes.set_xscale(scale)
        if scale == "linear" or self.baseline > 0:
            axes.axvline(self.baseline, color="black", linewidth=0.8, label="float")
        for i, bits in enumerate(sorted(self.bits)):
            shade = 0.9 * (i + 1) / len(self.bits)  # the more bits, the darker
            colour = (0.86 - 0.74 * shade, 0.9 - 0.62 * shade, 0.98 - 0.4 * shade)
            values = [row.values[bits] for row in self.rows]
            axes.plot(values, places, "o", markersize=5, color=colour, label=f"{bits} bits")
        axes.set_yticks(places, [row.layer for row in self.rows], fontsize=8)
        axes.invert_yaxis()
        axes.grid(axis="y", linewidth=0.4)
        axes.set_axisbelow(True)
        axes.set_xlabel("accuracy" if self.higher_is_better else "loss")
        figure.legend(fontsize=8, loc="outside right upper", frameon=False)
        figure.savefig(path)

    def _in_cpp(self) -> Any:  # noqa: ANN401
        rows = [(row.layer, row.weights, row.channels, row.macs, list(row.values.values())) for row in self.rows]
        return _C.quant.Sensitivity(list(self.bits), self.higher_is_better, self.baseline, rows)


def axis_scale(values: Sequence[float]) -> str:
    """Returns matplotlib's name of the scale of an axis: "log" for positive values of which one is 30 times another."""
    return "log" if min(values) > 0 and max(values) > 30 * min(values) else "linear"


def sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    bits: Sequence[int] = (2, 4, 8),
    *,
    higher_is_better: bool = True,
    scale_search: ScaleSearch = "absmax",
    example_inputs: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Evaluates the model in float, then with one layer at a time rounded: 1 + layers × widths calls of `evaluate`.

    A layer's weight goes to its grid per output channel (`round_weight`). In a prepared model that has seen data, the
    layer's output goes to its own grid as well; elsewhere weights alone are rounded.

    Args:
        model: a float or a prepared model; runs in eval, without gradients. After the call, or an error, all is as it
            was, bit for bit.
        evaluate: returns an accuracy or a loss of the model it is given, finite.
        bits: widths of the weights' codes to try, 2 to 8 each, none twice.
        higher_is_better: whether `evaluate` returns an accuracy (True) or a loss (False).
        scale_search: how the scale of a channel is chosen, as for `weight_scale`.
        example_inputs: an image batch of a float model, to have the layers' multiplications counted; a prepared model
            knows its own.
        progress: called after each evaluation with how many are done, and of how many.

    Returns:
        the values, for `torchslim.quant.search`.

    Raises:
        ValueError: options out of range, a model without convolution and linear layers, and a value that is not
            finite, by the layer; a prepared model that has seen no data.

    Example:
        >>> found = sensitivity(model, lambda model: accuracy(model, images, labels), bits=(4, 8))
        >>> print(found)
    """
    widths = tuple(bits)
    if not widths or len(set(widths)) != len(widths):
        raise ValueError(f"{_WHO}: bits must name one width or more, none twice, got {widths}")
    layers = weighted_layers(_WHO, model)
    macs = _macs_of(model, example_inputs)
    calls, done = 1 + len(layers) * len(widths), 0

    def value_of(what: str) -> float:
        nonlocal done
        value = float(evaluate(model))
        if not math.isfinite(value):
            raise ValueError(
                f"{_WHO}: evaluate returned {value} with {what}; the loss overflows or the model is broken"
            )
        done += 1
        if progress is not None:
            progress(done, calls)
        return value

    rows = []
    with in_mode(model, False), torch.no_grad(), _in_float(model):
        baseline = value_of("all layers in float")
        for name, layer in layers.items():
            values = {}
            for width in widths:
                with _only(layer, width, scale_search):
                    values[width] = value_of(f"layer {name!r} of {width} bits")
            weights, channels = layer.weight.numel(), weight_by_outputs(layer).shape[0]
            rows.append(LayerSensitivity(name, weights, channels, macs.get(f"{name}.weight", 0), values))
    return Sensitivity(widths, higher_is_better, baseline, tuple(rows))


def _macs_of(model: nn.Module, example_inputs: Tensor | None) -> dict[str, int]:
    if example_inputs is None and isinstance(model, PreparedModel):
        example_inputs = torch.zeros(model.example_shape)
    if example_inputs is None:
        return {}
    return {count.weight: count.macs for count in count_layers(capture(model, example_inputs))}


@contextmanager
def _in_float(model: nn.Module) -> Iterator[None]:
    quantizers = list(fake_quantizers(model))
    for name, quantizer in quantizers:
        if not quantizer.has_grid():
            raise ValueError(f"{_WHO}: {name!r} has seen no data; run forwards in training mode first, or calibrate")
    enabled = [quantizer for _, quantizer in quantizers if bool(quantizer.fake_quant_enabled.item())]
    try:
        for quantizer in enabled:
            quantizer.disable_fake_quant()
        yield
    finally:
        for quantizer in enabled:
            quantizer.enable_fake_quant()


@contextmanager
def _only(layer: WeightedLayer, bits: int, scale_search: ScaleSearch) -> Iterator[None]:
    """Rounds the weight of one layer, and its output if it has a quantiser, in a model that runs in float."""
    before = layer.weight.detach().clone()
    quantizer = getattr(layer, "output_fake_quantize", None)
    hook = quantizer.register_forward_hook(_rounded) if isinstance(quantizer, ActivationQuantizer) else None
    try:
        rounded = round_weight(weight_by_outputs(layer), bits, scale_search).weight
        layer.weight.copy_(transposed_weight(rounded, layer.groups) if isinstance(layer, TransposedLayer) else rounded)
        yield
    finally:
        layer.weight.copy_(before)
        if hook is not None:
            hook.remove()


def _rounded(quantizer: ActivationQuantizer, inputs: object, output: Tensor) -> Tensor:
    return quantizer._quantized(output)
