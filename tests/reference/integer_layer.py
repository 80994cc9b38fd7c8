# SPDX-License-Identifier: BSD-3-Clause
"""A convolution or linear layer in integers, by QNNPACK's rules, from a layer of a prepared model."""

import torch
from torch import Tensor, nn


def codes_of(x: Tensor, quantizer: nn.Module) -> Tensor:
    """The integers (as float64) of values that lie on a quantiser's grid."""
    return torch.round(x.double() / quantizer.scale.double()) + quantizer.zero_point.double()


def integer_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Runs `layer` on `x`, which lies on the grid of its input, with integer sums; returns floats on its own grid."""
    source, target = layer.input_fake_quantize, layer.output_fake_quantize
    codes, scale, bias = layer.folded()
    accumulator_step = scale * source.scale
    inputs = codes_of(x, source) - source.zero_point.double()
    if isinstance(layer, nn.Conv2d):
        sums = nn.functional.conv2d(
            inputs, codes.double(), None, layer.stride, layer.padding, layer.dilation, layer.groups
        )
        along = (-1, 1, 1)
    else:
        sums = nn.functional.linear(inputs, codes.double())
        along = (-1,)
    sums = sums + torch.round(bias * accumulator_step.reciprocal()).double().view(along)
    multiplier = accumulator_step * target.scale.reciprocal()
    out = torch.round(sums.float() * multiplier.view(along)).double() + target.zero_point.double()
    low = target.zero_point.item() if target.activation != "none" else target.quant_min
    out = out.clamp(low, target.quant_max)
    return ((out - target.zero_point.double()) * target.scale.double()).float()
