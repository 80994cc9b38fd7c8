# SPDX-License-Identifier: BSD-3-Clause
"""The layers of a prepared model: convolution and linear layers that train on the numbers they will ship with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.observers import Observer

#: The batch norms that can stand behind a convolution.
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class _QuantLayer(nn.Module):
    """What convolution and linear layers share; `_product` is the layer's own part.

    A forward takes one of four forms:

    - training: the product with the weight on its grid, the batch norm with the batch's statistics, then the
      output's quantiser, with the activation in it. The batch norm needs no folding here: a weight grid per
      output channel commutes with a factor per output channel.
    - eval: the integers that lowering writes (`fold_layer`), as floats.
    - under `torch.jit.trace`: single operations that `torchslim.graph.capture` knows.
    - fake-quantise disabled: plain float.
    """

    weight: Tensor
    bias: Any  # a parameter or None: Conv2d and Linear annotate it differently
    output_fake_quantize: FakeQuantize
    layer_name: str

    def _take_over(
        self,
        layer: nn.Conv2d | nn.Linear,
        input_fake_quantize: FakeQuantize,
        batch_norm: nn.Module | None,
        activation: str,
        observer: str | Observer,
        name: str,
    ) -> None:
        self.register_parameter("weight", cast(nn.Parameter, layer.weight))
        self.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
        self.layer_name = name
        # In tuples, modules are not registered as children: the model owns them elsewhere. deepcopy keeps the tie.
        self._input_fake_quantize = (input_fake_quantize,)
        self._batch_norm = (batch_norm,)
        self.output_fake_quantize = FakeQuantize(observer, activation=activation)
        self.train(layer.training)

    @property
    def batch_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm between the layer and its activation; a child of another module."""
        return cast("nn.BatchNorm2d | None", self._batch_norm[0])

    @property
    def input_fake_quantize(self) -> FakeQuantize:
        """The quantiser whose grid the input is on; a child of another module."""
        return self._input_fake_quantize[0]

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The integers that this layer ships with: codes int8, scale (O), bias (O) on the accumulator's grid.

        Raises:
            ValueError: weights, batch norm or the input's scale cannot be rounded (NaN, Inf).
        """
        norm = self.batch_norm
        statistics = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
        try:
            codes, scale, bias = _C.quant.fold_layer(
                self.weight, self.bias, self.input_fake_quantize.scale, *statistics
            )
        except ValueError as error:
            raise ValueError(f"layer {self.layer_name!r}: {error}") from None
        return codes, scale, bias

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's output on its grid; see the class for the forms."""
        if not _rounds(self.output_fake_quantize):
            y = self._normalize(self._product(x, self.weight, self.bias))
        elif torch._C._is_tracing():
            y = self._normalize(self._product(x, self._traced_weight(), self.bias))
        elif self.training:
            y = self._trained(x)
        else:
            with torch.autocast(x.device.type, enabled=False):  # fewer bits than float32 could not hold the integers
                y = self._product(x.float(), *self._folded_floats())
        return cast(Tensor, self.output_fake_quantize(y))

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no product of its own")

    def _normalize(self, y: Tensor) -> Tensor:
        norm = self._batch_norm[0]
        return y if norm is None else cast(Tensor, norm(y))

    def _trained(self, x: Tensor) -> Tensor:
        weight, scale = torch.ops.torchslim.fake_quantize_weight(self.weight)
        bias: Tensor | None = self.bias
        if bias is not None and self._batch_norm[0] is None:
            bias = torch.ops.torchslim.round_bias(bias, self.input_fake_quantize.scale, scale)
        return self._normalize(self._product(x, weight, bias))

    def _traced_weight(self) -> Tensor:
        """The weight as one fake-quantise node; its scale is a constant there, as it is no parameter."""
        with _untraced():
            _, scale = torch.ops.torchslim.fake_quantize_weight(self.weight.detach())
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
        weight: Tensor = torch.ops.torchslim.fake_quantize.tensor_qparams(self.weight, scale, zero_point, -127, 127, 0)
        return weight

    def _folded_floats(self) -> tuple[Tensor, Tensor]:
        codes, scale, bias = self.folded()
        weight: Tensor = _C.quant.dequantize_weight(codes, scale)
        if torch.is_grad_enabled() and self.weight.requires_grad:
            smooth_weight, smooth_bias = self._differentiable()
            weight = _with_gradient(weight, smooth_weight)
            bias = _with_gradient(bias, smooth_bias)
        return weight, bias

    def _differentiable(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as `folded` has them, but for rounding the bias: so that eval() has gradients too."""
        weight, _ = torch.ops.torchslim.fake_quantize_weight(self.weight)
        norm = self.batch_norm
        if norm is None:
            return weight, self.bias
        assert norm.running_mean is not None and norm.running_var is not None
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            factor = factor * norm.weight
        bias = (-norm.running_mean if self.bias is None else self.bias - norm.running_mean) * factor
        if norm.bias is not None:
            bias = bias + norm.bias
        return weight * factor.view(-1, *[1] * (weight.dim() - 1)), bias


@contextmanager
def _untraced() -> Iterator[None]:
    """What runs inside leaves no nodes in a trace."""
    jit: Any = torch._C
    state = jit._get_tracing_state()
    jit._set_tracing_state(None)
    try:
        yield
    finally:
        jit._set_tracing_state(state)


def _rounds(quantizer: FakeQuantize) -> bool:
    """Whether fake-quantise is enabled; a trace or a compiled forward takes what Python knows of the buffer."""
    return quantizer._flags[1] if torch._C._is_tracing() else quantizer._read_flags()[1]


def _with_gradient(value: Tensor, smooth: Tensor | None) -> Tensor:
    """Exactly `value`, with the gradient of `smooth`."""
    return value if smooth is None else value + (smooth - smooth.detach())


class QuantConv2d(_QuantLayer, nn.Conv2d):
    """A convolution that trains in int8: its weight, batch norm, activation and output quantiser as one.

    Holds the parameters of `conv` under the same names, and one child, `output_fake_quantize`.

    Args:
        conv: the float convolution; its parameters are taken over, not copied. Zero padding only.
        input_fake_quantize: the quantiser that made the input; not owned.
        batch_norm: the batch norm behind it, or None; not owned, run as part of this layer.
        activation: `none`, `relu` or `relu6`.
        observer: of the output's quantiser.
        name: of the layer, for messages.

    Raises:
        ValueError: `conv` pads by other values than zero, or unevenly.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        input_fake_quantize: FakeQuantize,
        batch_norm: nn.Module | None = None,
        activation: str = "none",
        observer: str | Observer = "moving_average",
        name: str = "",
    ) -> None:
        """Takes over the parameters of `conv`."""
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            cast("tuple[int, int]", conv.kernel_size),
            cast("tuple[int, int]", conv.stride),
            numeric_padding(conv, name),
            cast("tuple[int, int]", conv.dilation),
            conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self._take_over(conv, input_fake_quantize, batch_norm, activation, observer, name)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantLinear(_QuantLayer, nn.Linear):
    """A linear layer that trains in int8: its weight, activation and output quantiser as one.

    Holds the parameters of `linear` under the same names, and one child, `output_fake_quantize`.

    Args:
        linear: the float layer; its parameters are taken over, not copied.
        input_fake_quantize: the quantiser that made the input; not owned.
        activation: `none`, `relu` or `relu6`.
        observer: of the output's quantiser.
        name: of the layer, for messages.
    """

    def __init__(
        self,
        linear: nn.Linear,
        input_fake_quantize: FakeQuantize,
        activation: str = "none",
        observer: str | Observer = "moving_average",
        name: str = "",
    ) -> None:
        """Takes over the parameters of `linear`."""
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self._take_over(linear, input_fake_quantize, None, activation, observer, name)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, weight, bias)


class _SharedGrid(nn.Module):
    """What rounds onto the grid of another quantiser, or not at all while that one's fake-quantise is disabled."""

    def __init__(self, owner: FakeQuantize) -> None:
        super().__init__()
        self._owner = (owner,)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        owner = self._owner[0]
        y: Tensor = torch.ops.torchslim.fake_quantize.tensor_qparams(
            x, owner.scale, owner.zero_point, owner.quant_min, owner.quant_max
        )
        return y


class SharedFakeQuantize(_SharedGrid):
    """Rounds onto the grid of another quantiser: behind a ReLU6 that stands alone, whose 6 may lie between grid points.

    Args:
        owner: the quantiser whose grid it is; not owned.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` on the owner's grid."""
        return self._fake_quantize(x) if _rounds(self._owner[0]) else x


class QuantAveragePool(_SharedGrid):
    """An average pool that rounds onto the grid of its input, as integers do (`torchslim::round_average`).

    Args:
        owner: the quantiser that made the input; not owned.
        pool: the average pool; None: over the whole image, to (N, C, 1, 1).
    """

    def __init__(self, owner: FakeQuantize, pool: nn.AvgPool2d | None = None) -> None:
        """Ties the module to `owner`."""
        super().__init__(owner)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Returns the averages, on the owner's grid."""
        y = nn.functional.adaptive_avg_pool2d(x, 1) if self.pool is None else cast(Tensor, self.pool(x))
        if not _rounds(self._owner[0]):
            return y
        if torch._C._is_tracing():
            return self._fake_quantize(y)
        size = x.shape[-2:] if self.pool is None else _pair(self.pool.kernel_size)
        rounded: Tensor = torch.ops.torchslim.round_average(y, self._owner[0].scale, size[0] * size[1])
        return rounded


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def numeric_padding(conv: nn.Conv2d, name: str) -> tuple[int, int]:
    """Returns the padding of `conv` as numbers; `same` is worked out.

    Raises:
        ValueError: it pads by other values than zero, or `same` would pad one side more than the other.
    """
    if conv.padding_mode != "zeros":
        raise ValueError(
            f"layer {name!r}: expected padding_mode 'zeros', got {conv.padding_mode!r}; "
            "integer runtimes pad with zeros only"
        )
    if not isinstance(conv.padding, str):
        return cast("tuple[int, int]", conv.padding)
    totals = [
        d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
    ]
    if any(total % 2 for total in totals):
        raise ValueError(
            f"layer {name!r}: padding 'same' with kernel {tuple(conv.kernel_size)} and dilation "
            f"{tuple(conv.dilation)} pads unevenly; pad by numbers, or use odd kernels"
        )
    return totals[0] // 2, totals[1] // 2
