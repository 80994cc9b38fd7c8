# SPDX-License-Identifier: BSD-3-Clause
"""A walk through the layers of a prepared model in the order data flows, with what each is given and answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from torchslim.quant.activation_quantizer import without_rounding
from torchslim.quant.batches import Loader, in_mode, read_batches, unchanged_on_error
from torchslim.quant.layers import QuantLayer, QuantLinear
from torchslim.quant.weight_grid import GridWeight
from torchslim.quant.weighted_layers import TransposedLayer

WalkedLayer = QuantLayer


class LayerValues(NamedTuple):
    """What a layer is given, and what it answers behind its batch norm and before its activation."""

    input: Tensor
    output: Tensor


class _StopError(Exception):
    """Raised when a forward has shown what was asked for."""


class LayerWalk:
    """Visits the layers of a prepared model in the order data flows through them; `walk_layers` makes one."""

    def __init__(self, who: str, model: nn.Module, loader: Loader, reference: nn.Module | None = None) -> None:
        """Runs the first batch to find the order."""
        self._who = who
        self._model = model
        self._loader = loader
        self.layers = self._ordered()
        self._floats: list[tuple[Tensor, Tensor]]
        if reference is None:
            self._floats = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
        else:
            self._floats = self._floats_of(reference)

    def values(self, layer: WalkedLayer) -> Iterator[tuple[LayerValues, LayerValues]]:
        """Yields for each batch the values of `layer` in the model as it is now and in the float one.

        The float one has the parameters that the model had at first, or those of the reference, and does not round.
        """
        for batch in read_batches(self._who, self._loader):
            rounded = self._values(layer, batch)
            with self._in_float():
                floats = self._values(layer, batch)
            yield rounded, floats

    def _ordered(self) -> list[WalkedLayer]:
        found: list[WalkedLayer] = []

        def show(layer: nn.Module, inputs: object) -> None:
            if any(layer is other for other in found):
                raise ValueError(f"{self._who}: layer {layer.layer_name!r} is run twice; make two layers of it")
            found.append(cast(WalkedLayer, layer))

        layers = [module for module in self._model.modules() if isinstance(module, WalkedLayer)]
        if not layers:
            raise ValueError(
                f"{self._who}: expected a prepared model with convolutions or linear layers, got "
                f"{type(self._model).__name__} without; call torchslim.quant.prepare first"
            )
        for layer in layers:
            if not layer.output_fake_quantize.has_grid():
                raise ValueError(
                    f"{self._who}: layer {layer.layer_name!r} has seen no data; call torchslim.quant.calibrate first"
                )
        if iter(self._loader) is self._loader:
            raise ValueError(
                f"{self._who}: the loader can be read once only, but each layer reads it; pass a DataLoader or list"
            )
        with _hooks(layers, show):
            for batch in read_batches(self._who, self._loader):
                self._model(batch)
                break
        return found

    def _floats_of(self, reference: nn.Module) -> list[tuple[Tensor, Tensor]]:
        given = _float_tensors(reference)
        found = []
        for name, tensor in _float_tensors(self._model).items():
            if "fake_quantize." in name:
                continue  # of a quantiser that learns its grid: in float it does nothing
            value = given.get(name)
            if value is None or value.shape != tensor.shape:
                raise ValueError(
                    f"{self._who}: the reference has no {name!r} of shape {tuple(tensor.shape)}; "
                    "pass the model that was prepared, in float"
                )
            if value.data_ptr() == tensor.data_ptr():
                raise ValueError(
                    f"{self._who}: the reference shares {name!r} with the model, so it is rounded too; "
                    "pass a copy from before its weights were rounded"
                )
            found.append((tensor, value.detach().to(tensor)))
        return found

    def _values(self, layer: WalkedLayer, batch: Tensor) -> LayerValues:
        seen: list[Tensor] = []

        def show(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])
            if module is layer.output_fake_quantize:
                raise _StopError

        with _hooks([layer, layer.output_fake_quantize], show), suppress(_StopError):
            self._model(batch)
        return LayerValues(*seen)

    @contextmanager
    def _in_float(self) -> Iterator[None]:
        now = [tensor.data for tensor, _ in self._floats]
        try:
            for tensor, value in self._floats:
                tensor.data = value
            with without_rounding(self._model):
                yield
        finally:
            for (tensor, _), value in zip(self._floats, now, strict=True):
                tensor.data = value


def _float_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the statistics of batch norms, by name."""
    statistics = (item for item in model.named_buffers() if item[0].endswith(("running_mean", "running_var")))
    return {**dict(model.named_parameters()), **dict(statistics)}


@contextmanager
def walk_layers(who: str, model: nn.Module, loader: Loader, reference: nn.Module | None = None) -> Iterator[LayerWalk]:
    """Yields a walk through a prepared, calibrated model, in eval mode and without gradients.

    The float one has the parameters and batch norm statistics of `reference`, by name; None: those of the model. Modes
    are put back at the end; parameters and buffers too if an error passes.

    Raises:
        ValueError: the model holds no layer, is not prepared or not calibrated, runs a layer twice; there is no batch;
            the loader can be read only once.
    """
    with torch.no_grad(), in_mode(model, False), unchanged_on_error([model], parameters=True):
        yield LayerWalk(who, model, loader, reference)


@contextmanager
def _hooks(modules: list[Any], show: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(show) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def channel_factor(layer: WalkedLayer) -> Tensor:
    """Returns gamma / sqrt(var + eps) of the layer's batch norm, (O), or ones."""
    norm = layer.batch_norm
    if norm is None:
        return layer.weight.new_ones(layer.weight_by_outputs().shape[0])
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    return factor if norm.weight is None else factor * norm.weight


def folded_bias(layer: WalkedLayer) -> Tensor:
    """Returns the bias with the batch norm in it, (O)."""
    bias = layer.weight.new_zeros(layer.weight_by_outputs().shape[0]) if layer.bias is None else layer.bias
    norm = layer.batch_norm
    if norm is None:
        return bias
    assert norm.running_mean is not None
    bias = (bias - norm.running_mean) * channel_factor(layer)
    return bias if norm.bias is None else bias + norm.bias


def bits_of(layer: WalkedLayer, bits: int | None = None) -> int:
    """Returns `bits`, or the width of codes that the weight of `layer` was prepared with."""
    if bits is not None:
        return bits
    return 8 if layer.weight_fake_quantize is None else layer.weight_fake_quantize.bits


def check_bits(who: str, layers: list[WalkedLayer], bits: int | None) -> None:
    """Raises ValueError unless the weight of every layer can be rounded to codes of that many bits on its grid.

    `bits` None: to codes of those that it was prepared with.
    """
    for layer in layers:
        grid = layer.weight_fake_quantize
        if isinstance(layer, TransposedLayer):
            raise ValueError(
                f"{who}: layer {layer.layer_name!r} is a transposed convolution, whose inputs are not gathered yet; "
                "leave it in float by the config of torchslim.quant.prepare"
            )
        if not layer.has_codes:
            raise ValueError(
                f"{who}: the weight of layer {layer.layer_name!r} has no grid of integers; "
                "give it another weight quantiser in torchslim.quant.prepare"
            )
        if bits is None and bits_of(layer) == 1:
            raise ValueError(
                f"{who}: layer {layer.layer_name!r} was prepared for 1 bit, which leaves no choice; "
                "give it more in torchslim.quant.prepare"
            )
        if bits is not None and grid is not None and 2 ** (bits - 1) - 1 > grid.largest_code:
            raise ValueError(
                f"{who}: layer {layer.layer_name!r} was prepared for codes up to {grid.largest_code}, which {bits} "
                "bits pass; ask for fewer bits, or prepare it with more"
            )


def put_weight(layer: WalkedLayer, rounded: GridWeight) -> None:
    """Gives `layer` a rounded weight, and keeps its grid."""
    # A copy is frozen, so that the quantiser can come back as it was.
    layer.weight_fake_quantize = copy.deepcopy(layer.weight_fake_quantize)
    layer.freeze_weight_grid(rounded.scale)
    layer.weight.copy_(rounded.weight)


def geometry(layer: Any) -> dict[str, Any]:  # noqa: ANN401
    """Returns how the layer applies its weight, as keyword arguments of `HessianAccumulator`."""
    if isinstance(layer, QuantLinear):
        return {}
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
