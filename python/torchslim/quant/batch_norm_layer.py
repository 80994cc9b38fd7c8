# SPDX-License-Identifier: BSD-3-Clause
"""A batch norm that follows no convolution, in integers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer
from torchslim.quant.learned_activation import untraced


class QuantBatchNorm2d(nn.Module):
    """A batch norm behind no layer: a factor and an offset for each channel, as a depthwise 1×1 convolution.

    One number for each channel lies exactly on the channel's grid, so nothing but the offset is rounded, to the int32
    grid of the sums. A quantiser follows it.

    Args:
        norm: the batch norm, with running statistics; not owned.
        input_fake_quantize: the quantiser that made the input; not owned.
        output_fake_quantize: the quantiser that follows; not owned.
        name: of the batch norm, for messages.
    """

    weight: Tensor

    def __init__(
        self,
        norm: nn.Module,
        input_fake_quantize: ActivationQuantizer,
        output_fake_quantize: ActivationQuantizer,
        name: str = "",
    ) -> None:
        """Ties the layer to `norm`."""
        super().__init__()
        # In tuples, modules are not registered as children: the model owns them elsewhere. deepcopy keeps the tie.
        self._norm = (cast(nn.BatchNorm2d, norm),)
        self._input_fake_quantize = (input_fake_quantize,)
        self._output_fake_quantize = (output_fake_quantize,)
        self.layer_name = name
        self.channels = self._norm[0].num_features
        self.register_buffer("weight", torch.ones(self.channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised `x` (N, C, H, W): with the batch's statistics in training, in integers in eval."""
        norm, quantizer = self._norm[0], self._input_fake_quantize[0]
        if torch._C._is_tracing() and quantizer.rounds():
            with untraced():
                _, scale = torch.ops.torchslim.fake_quantize_weight(self.weight)
                zero_point = torch.zeros_like(scale, dtype=torch.int32)
            weight = torch.ops.torchslim.fake_quantize.tensor_qparams(self.weight, scale, zero_point, -127, 127, 0)
            return cast(Tensor, norm(nn.functional.conv2d(x, weight, groups=self.channels)))
        if norm.training or not quantizer.rounds() or self._output_fake_quantize[0].training:
            return cast(Tensor, norm(x))
        try:
            codes, scale, bias = _C.quant.fold_layer(
                self.weight,
                None,
                quantizer.scale,
                norm.weight,
                norm.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
            )
        except ValueError as error:
            raise ValueError(f"layer {self.layer_name!r}: {error}") from None
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():
            y = self._requantized(x.float(), codes.view(-1, 1, 1).float(), scale, bias)
        if torch.is_grad_enabled():
            smooth = cast(Tensor, norm(x.float()))
            y = y.detach() + (smooth - smooth.detach())
        return y

    def _requantized(self, x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """What runtimes compute: round((code · steps + bias) · multiplier), in steps of the output's grid."""
        input_scale, output_scale = self._input_fake_quantize[0].scale, self._output_fake_quantize[0].scale
        step = scale * input_scale
        bias_codes = (bias * step.reciprocal()).round().view(-1, 1, 1)
        sums = torch.addcmul(bias_codes, _C.quant.steps_of(x, input_scale), codes)
        y: Tensor = _C.quant.requantize_sums(sums, step, output_scale, 1)
        return y
