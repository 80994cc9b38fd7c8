# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions as they train on their grids."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.layers import QuantLayer
from torchslim.quant.observers import Observer
from torchslim.quant.weight_quantizer import WeightQuantizer
from torchslim.quant.weighted_layers import transposed_weight

Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d


class QuantConvolution(QuantLayer):
    """A convolution that trains in int8: its weight, batch norm, activation and output quantiser as one.

    `QuantConv2d` and its like are this in front of the class of `torch.nn` of the same name. It holds the parameters
    of `conv` under the same names, the child `output_fake_quantize` and, unless the weight follows the int8 rule,
    `weight_fake_quantize`.

    Args:
        conv: the float convolution; its parameters are taken over, not copied. Zero padding only.
        input_fake_quantize: the quantiser that made the input; not owned.
        batch_norm: the batch norm behind it, or None; not owned, run as part of this layer.
        activation: `none`, `relu` or `relu6`.
        observer: of the output's quantiser.
        name: of the layer, for messages.
        output_fake_quantize: the output's quantiser, activation and all, in place of `activation` and `observer`.
        weight_fake_quantize: what rounds the weight; None: the int8 rule.

    Raises:
        ValueError: `conv` pads by other values than zero, or unevenly.
    """

    def __init__(
        self,
        conv: Convolution,
        input_fake_quantize: ActivationQuantizer,
        batch_norm: nn.Module | None = None,
        activation: str = "none",
        observer: str | Observer = "moving_average",
        name: str = "",
        *,
        output_fake_quantize: ActivationQuantizer | None = None,
        weight_fake_quantize: WeightQuantizer | None = None,
    ) -> None:
        """Takes over the parameters of `conv`."""
        form: dict[str, Any] = {
            "stride": conv.stride,
            "padding": numeric_padding(conv, name),
            "dilation": conv.dilation,
            "groups": conv.groups,
            "bias": conv.bias is not None,
        }
        if conv.transposed:
            form["output_padding"] = conv.output_padding
        # Of the class of `torch.nn` that stands behind this one.
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, device="meta", **form)
        output = output_fake_quantize or FakeQuantize(observer, activation=activation)
        self._take_over(conv, input_fake_quantize, batch_norm, output, weight_fake_quantize, name)


class QuantConv1d(QuantConvolution, nn.Conv1d):
    """A convolution over (N, C, L) that trains in int8; see `QuantConvolution`."""

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantConv2d(QuantConvolution, nn.Conv2d):
    """A convolution over images that trains in int8; see `QuantConvolution`."""

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantTransposedConvolution(QuantConvolution):
    """A `QuantConvolution` whose parameter `weight` is (I, O/groups, ...), as that of `conv`.

    Its grid has a scale for each output channel, (O), and codes have output channels first, (O, I/groups, ...).
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _function: ClassVar[Callable[..., Tensor]]

    def weight_by_outputs(self) -> Tensor:
        """The weight as its grid has it: (O, I/groups, ...)."""
        return transposed_weight(self.weight, self.groups)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = transposed_weight(weight, self.groups)
        how = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return type(self)._function(x, weight, bias, *how)


class QuantConvTranspose1d(QuantTransposedConvolution, nn.ConvTranspose1d):  # type: ignore[misc]  # no output_size
    """A transposed convolution over (N, C, L) that trains in int8."""

    _function = F.conv_transpose1d


class QuantConvTranspose2d(QuantTransposedConvolution, nn.ConvTranspose2d):  # type: ignore[misc]  # no output_size
    """A transposed convolution over images that trains in int8."""

    _function = F.conv_transpose2d


def numeric_padding(conv: Convolution, name: str) -> tuple[int, ...]:
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
        return conv.padding
    totals = [
        d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
    ]
    if any(total % 2 for total in totals):
        raise ValueError(
            f"layer {name!r}: padding 'same' with kernel {tuple(conv.kernel_size)} and dilation "
            f"{tuple(conv.dilation)} pads unevenly; pad by numbers, or use odd kernels"
        )
    return tuple(total // 2 for total in totals)


#: What each float convolution becomes.
QUANT_CONVOLUTIONS: dict[type[nn.Module], type[QuantConvolution]] = {
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
}
