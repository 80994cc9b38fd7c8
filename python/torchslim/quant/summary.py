# SPDX-License-Identifier: BSD-3-Clause
"""What a prepared model is quantised with, layer by layer, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer, without_rounding
from torchslim.quant.batches import in_mode
from torchslim.quant.layers import QuantLayer
from torchslim.quant.prepared_model import PreparedModel, fake_quantizers

_WHO = "torchslim.quant.summary"


@dataclass(frozen=True)
class SummaryRow:
    """One quantiser of a prepared model."""

    #: Dotted name of the layer, or of the quantiser where no layer holds it.
    layer: str
    #: "weight" or "activation".
    tensor: str
    #: What kind of grid it is, such as "lsq".
    grid: str
    #: Width of a code.
    bits: int
    #: Of the grid, or of all channels; None where there is no scale (yet).
    smallest_scale: float | None = None
    largest_scale: float | None = None
    #: The share of elements that the grid's ends cut off, in [0, 1]; None where nothing was compared.
    saturated: float | None = None
    #: Signal to quantisation noise, 10·log10(Σx² / Σ(x − y)²), in dB; infinite without noise.
    sqnr: float | None = None


@dataclass(frozen=True)
class Summary:
    """The rows of a model; `str` is a table of them."""

    rows: tuple[SummaryRow, ...]

    def __str__(self) -> str:
        """The rows as a readable table."""
        table: str = _C.quant.summary_table([_C.quant.SummaryRow(*astuple(row)) for row in self.rows])
        return table

    def __iter__(self) -> Iterator[SummaryRow]:
        """Iterates over the rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)


@torch.no_grad()
def summary(model: nn.Module, inputs: Tensor | None = None) -> Summary:
    """Returns a row for each weight and each activation that a prepared model quantises, as it is now.

    Weights are compared with what they are rounded to. With `inputs` activations are too: the model runs on them in
    eval mode with no rounding, and each activation is compared with what its quantiser would make of it. The model is
    left as it is.

    Args:
        model: of `prepare`.
        inputs: a batch to run; None: activations are not compared.

    Raises:
        ValueError: the model holds no quantiser; with `inputs`, one has no grid yet or fake-quantise is disabled.

    Example:
        >>> print(summary(prepared, images))
    """
    rows = [_weight_row(name, layer) for name, layer in _weight_layers(model)]
    quantizers = dict(fake_quantizers(model))
    if not rows and not quantizers:
        raise ValueError(f"{_WHO}: the model holds no quantiser; call torchslim.quant.prepare first")
    errors = {} if inputs is None else _activation_errors(model, quantizers, inputs)
    rows += [_activation_row(name, quantizer, errors.get(name)) for name, quantizer in quantizers.items()]
    return Summary(tuple(rows))


def float_layers(model: PreparedModel) -> list[str]:
    """Returns the dotted names of the convolutions and linear layers of a prepared model that stay in float.

    Raises:
        TypeError: `model` is not a prepared model.
    """
    if not isinstance(model, PreparedModel):
        raise TypeError(
            f"torchslim.quant.float_layers: expected a prepared model, got {type(model).__name__}; "
            "call torchslim.quant.prepare first"
        )
    return list(model.float_layers)


def _weight_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    for name, module in model.named_modules():
        if isinstance(module, QuantLayer):
            yield name, module


def _weight_row(name: str, layer: QuantLayer) -> SummaryRow:
    rounded, scale = layer._rounded_weight()
    saturated, sqnr = _C.quant.grid_error(layer.weight_by_outputs(), rounded, scale)
    quantizer = layer.weight_fake_quantize
    grid = "fake_quantize" if quantizer is None else quantizer.describe() + (" frozen" if quantizer.is_frozen else "")
    bits = 8 if quantizer is None else quantizer.bits
    if scale is None:
        return SummaryRow(name, "weight", grid, bits, sqnr=sqnr)
    return SummaryRow(name, "weight", grid, bits, float(scale.min()), float(scale.max()), saturated, sqnr)


def _activation_row(name: str, quantizer: ActivationQuantizer, error: tuple[float, float] | None) -> SummaryRow:
    scale = float(quantizer.scale) if quantizer.has_grid() else None
    bits = (quantizer.quant_max - quantizer.quant_min).bit_length()
    return SummaryRow(
        name.removesuffix(".output_fake_quantize"),
        "activation",
        quantizer.describe(),
        bits,
        scale,
        scale,
        None if error is None else error[0],
        None if error is None else error[1],
    )


def _activation_errors(
    model: nn.Module, quantizers: dict[str, ActivationQuantizer], inputs: Tensor
) -> dict[str, tuple[float, float]]:
    for name, quantizer in quantizers.items():
        if not quantizer.has_grid() or not quantizer.rounds():
            why = "is disabled" if quantizer.has_grid() else "has seen no data"
            raise ValueError(f"{_WHO}: {name!r} {why}, so there is nothing to compare; run training forwards first")
    errors: dict[str, tuple[float, float]] = {}

    def compare(name: str, quantizer: ActivationQuantizer, x: Tensor) -> None:
        error: tuple[float, float] = _C.quant.grid_error(x.float(), quantizer._quantized(x).float(), quantizer.scale)
        errors[name] = error

    handles = [
        quantizer.register_forward_hook(lambda q, args, y, name=name: compare(name, q, y))
        for name, quantizer in quantizers.items()
    ]
    try:
        # In float: in eval what a quantiser is given lies on its grid already.
        with in_mode(model, False), without_rounding(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return errors
