# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions other than those of images, as they train on their grids."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.layers import QuantConv2d, QuantLayer, numeric_padding
from torchslim.quant.observers import Observer
from torchslim.quant.weight_quantizer import WeightQuantizer
from torchslim.quant.weighted_layers import transposed_weight


class QuantConv1d(QuantLayer, nn.Conv1d):
    """A convolution over (N, C, L) that trains in int8, as `QuantConv2d` does over images, with the same arguments."""

    def __init__(
        self,
        conv: nn.Conv1d,
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
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            cast("tuple[int]", conv.kernel_size),
            cast("tuple[int]", conv.stride),
            cast("tuple[int]", numeric_padding(conv, name)),
            cast("tuple[int]", conv.dilation),
            conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        output = output_fake_quantize or FakeQuantize(observer, activation=activation)
        self._take_over(conv, input_fake_quantize, batch_norm, output, weight_fake_quantize, name)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantConvTranspose1d(QuantLayer, nn.ConvTranspose1d):  # type: ignore[misc]  # no output_size
    """A transposed convolution over (N, C, L) that trains in int8; see `QuantConvTranspose2d`."""

    def __init__(
        self,
        conv: nn.ConvTranspose1d,
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
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            cast("tuple[int]", conv.kernel_size),
            cast("tuple[int]", conv.stride),
            cast("tuple[int]", conv.padding),
            cast("tuple[int]", conv.output_padding),
            conv.groups,
            conv.bias is not None,
            cast("tuple[int]", conv.dilation),
            device="meta",
        )
        output = output_fake_quantize or FakeQuantize(observer, activation=activation)
        self._take_over(conv, input_fake_quantize, batch_norm, output, weight_fake_quantize, name)

    def weight_by_outputs(self) -> Tensor:
        """The weight as its grid has it: (O, I/groups, k)."""
        return transposed_weight(self.weight, self.groups)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = transposed_weight(weight, self.groups)
        padding = cast("tuple[int, ...]", self.padding)
        how = self.stride, padding, self.output_padding, self.groups, self.dilation
        return F.conv_transpose1d(x, weight, bias, *how)


class QuantConvTranspose2d(QuantLayer, nn.ConvTranspose2d):  # type: ignore[misc]  # no output_size
    """A transposed convolution that trains in int8: its weight, batch norm, activation and output quantiser as one.

    The arguments are those of `QuantConv2d`. The parameter `weight` is (I, O/groups, kh, kw), as that of `conv`; its
    grid has a scale for each output channel, (O), and codes have output channels first, (O, I/groups, kh, kw).
    """

    def __init__(
        self,
        conv: nn.ConvTranspose2d,
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
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            cast("tuple[int, int]", conv.kernel_size),
            cast("tuple[int, int]", conv.stride),
            cast("tuple[int, int]", conv.padding),
            cast("tuple[int, int]", conv.output_padding),
            conv.groups,
            conv.bias is not None,
            cast("tuple[int, int]", conv.dilation),
            device="meta",
        )
        output = output_fake_quantize or FakeQuantize(observer, activation=activation)
        self._take_over(conv, input_fake_quantize, batch_norm, output, weight_fake_quantize, name)

    def weight_by_outputs(self) -> Tensor:
        """The weight as its grid has it: (O, I/groups, kh, kw)."""
        return transposed_weight(self.weight, self.groups)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = transposed_weight(weight, self.groups)
        padding = cast("tuple[int, ...]", self.padding)
        how = self.stride, padding, self.output_padding, self.groups, self.dilation
        return F.conv_transpose2d(x, weight, bias, *how)


#: What each float convolution becomes.
QUANT_CONVOLUTIONS: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
}
