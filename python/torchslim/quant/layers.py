# SPDX-License-Identifier: BSD-3-Clause
"""The layers of a prepared model: convolution and linear layers that train on the numbers they will ship with."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer, is_tracing
from torchslim.quant.fake_quantize_module import FakeQuantize
from torchslim.quant.learned_activation import untraced
from torchslim.quant.observers import Observer
from torchslim.quant.weight_quantizer import WeightQuantizer
from torchslim.quant.weighted_layers import WeightedLayer

#: The batch norms that can stand behind a layer with a weight.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class QuantLayer(nn.Module):
    """What convolution and linear layers share; `_product` is the layer's own part.

    A forward takes one of four forms:

    - training, and eval where the weight has no codes: the product with the weight on its grid, the batch norm with
      the batch's statistics, then the output's quantiser, with the activation in it. The batch norm needs no folding
      here: a weight grid per output channel commutes with a factor per output channel.
    - eval: the integers that lowering writes (`fold_layer`), requantised by the rule of the integer reference.
    - under `torch.jit.trace`: single operations that `torchslim.graph.capture` knows.
    - fake-quantise disabled: plain float.
    """

    weight: Tensor
    bias: Any  # a parameter or None: Conv2d and Linear annotate it differently
    output_fake_quantize: ActivationQuantizer
    #: What rounds the weight; None: the int8 rule, `torchslim::fake_quantize_weight`.
    weight_fake_quantize: WeightQuantizer | None
    layer_name: str

    def _take_over(
        self,
        layer: WeightedLayer,
        input_fake_quantize: ActivationQuantizer,
        batch_norm: nn.Module | None,
        output_fake_quantize: ActivationQuantizer,
        weight_fake_quantize: WeightQuantizer | None,
        name: str,
    ) -> None:
        self.register_parameter("weight", cast(nn.Parameter, layer.weight))
        self.register_parameter("bias", cast("nn.Parameter | None", layer.bias))
        self.layer_name = name
        # In tuples, modules are not registered as children: the model owns them elsewhere. deepcopy keeps the tie.
        self._input_fake_quantize = (input_fake_quantize,)
        self._batch_norm = (batch_norm,)
        self.output_fake_quantize = output_fake_quantize
        self.weight_fake_quantize = weight_fake_quantize
        self.train(layer.training)

    @property
    def batch_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm between the layer and its activation; a child of another module."""
        return cast("nn.BatchNorm2d | None", self._batch_norm[0])

    def weight_by_outputs(self) -> Tensor:
        """The weight as its grid has it: (O, I/groups, ...)."""
        return self.weight

    @property
    def input_fake_quantize(self) -> ActivationQuantizer:
        """The quantiser whose grid the input is on; a child of another module."""
        return self._input_fake_quantize[0]

    @property
    def has_codes(self) -> bool:
        """Whether the weight lies on an even grid of int8 codes; if not, the layer has no integers to ship."""
        return self.weight_fake_quantize is None or self.weight_fake_quantize.has_codes

    def freeze_weight_grid(self, scale: Tensor) -> None:
        """Keeps the weight's grid at `scale` from now on, as buffer `weight_fake_quantize.scale`.

        For weights that were rounded to it by other means, such as `gptq`: they ship as they are.

        Args:
            scale: float32 (O), > 0.

        Raises:
            ValueError: another shape or numbers, or a weight without codes.
        """
        weight = self.weight_by_outputs()
        if scale.shape != weight.shape[:1]:
            raise ValueError(
                f"layer {self.layer_name!r}: freeze_weight_grid: expected one scale for each of the "
                f"{weight.shape[0]} output channels, got shape {tuple(scale.shape)}"
            )
        quantizer = self.weight_fake_quantize or WeightQuantizer(weight)
        quantizer.freeze(scale)
        self.weight_fake_quantize = quantizer.train(self.training)

    def folded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The integers that this layer ships with: codes int8, scale (O), bias (O) on the accumulator's grid.

        Raises:
            ValueError: weights, batch norm or the input's scale cannot be rounded (NaN, Inf), or the weight has no
                codes.
        """
        norm = self.batch_norm
        statistics = () if norm is None else (*_affine(norm), norm.running_mean, norm.running_var, norm.eps)
        quantizer, input_scale = self.weight_fake_quantize, self.input_fake_quantize.scale
        weight = self.weight_by_outputs()
        try:
            if quantizer is None:
                codes, scale, bias = _C.quant.fold_layer(weight, self.bias, input_scale, *statistics)
            else:
                quantized = quantizer.quantize(weight)
                codes, scale, bias = _C.quant.fold_codes(*quantized, self.bias, input_scale, *statistics)
        except ValueError as error:
            raise ValueError(f"layer {self.layer_name!r}: {error}") from None
        return codes, scale, bias

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's output on its grid; see the class for the forms."""
        if not self.output_fake_quantize.rounds():
            y = self._normalize(self._product(x, self.weight_by_outputs(), self.bias))
        elif is_tracing():
            y = self._normalize(self._product(x, self._traced_weight(), self.bias))
        elif self.training or not self.has_codes:
            y = self._trained(x)
        else:
            with torch.autocast(x.device.type, enabled=False):  # fewer bits than float32 could not hold the integers
                y = self._evaluated(x.float())
        return cast(Tensor, self.output_fake_quantize(y))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        """Takes a frozen grid over: it comes with the weights that were rounded to it."""
        scale = state_dict.get(f"{prefix}weight_fake_quantize.scale")
        has_scale = self.weight_fake_quantize is not None and hasattr(self.weight_fake_quantize, "scale")
        if isinstance(scale, Tensor) and not has_scale:
            self.freeze_weight_grid(scale.to(self.weight.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer itself, given its weight with output channels first."""
        raise TypeError(f"{type(self).__name__} has no product of its own")

    def _normalize(self, y: Tensor) -> Tensor:
        norm = self._batch_norm[0]
        return y if norm is None else cast(Tensor, norm(y))

    def _trained(self, x: Tensor) -> Tensor:
        weight, scale = self._rounded_weight()
        bias: Tensor | None = self.bias
        if bias is not None and scale is not None and self._batch_norm[0] is None:
            bias = torch.ops.torchslim.round_bias(bias, self.input_fake_quantize.scale, scale)
        return self._normalize(self._product(x, weight, bias))

    def _rounded_weight(self) -> tuple[Tensor, Tensor | None]:
        if self.weight_fake_quantize is None:
            weight, scale = torch.ops.torchslim.fake_quantize_weight(self.weight_by_outputs())
            return weight, scale
        return cast("tuple[Tensor, Tensor | None]", self.weight_fake_quantize(self.weight_by_outputs()))

    def _traced_weight(self) -> Tensor:
        """The weight as one fake-quantise node; its scale is a constant there, as it is no parameter."""
        weight = self.weight_by_outputs()
        if self.weight_fake_quantize is not None:
            return self.weight_fake_quantize.traced(weight)
        with untraced():
            _, scale = torch.ops.torchslim.fake_quantize_weight(weight.detach())
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
        rounded: Tensor = torch.ops.torchslim.fake_quantize.tensor_qparams(weight, scale, zero_point, -127, 127, 0)
        return rounded

    @torch.compiler.disable  # type: ignore[misc]
    def _evaluated(self, x: Tensor) -> Tensor:
        """The layer's output before its quantiser, with the gradient of the folded layer."""
        wants_gradient = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        # Sums are requantised to a grid that stands still, made of codes; a hook of the quantiser sees them unrounded.
        output = self.output_fake_quantize
        in_integers = self.input_fake_quantize.rounds() and not (output.training or output._forward_pre_hooks)
        if not in_integers:
            return self._product(x, *self._folded_floats())
        with torch.no_grad():
            y = self._requantized(x)
        return _with_gradient(y, self._product(x, *self._folded_floats()) if wants_gradient else None)

    def _requantized(self, x: Tensor) -> Tensor:
        """What runtimes compute: round(sums of products of codes · multiplier), in steps of the output's grid."""
        codes, scale, bias = self.folded()
        input_scale, output_scale = self.input_fake_quantize.scale, self.output_fake_quantize.scale
        step = scale * input_scale
        bias_codes = (bias * step.reciprocal()).round()
        sums = self._product(_C.quant.steps_of(x, input_scale), codes.float(), bias_codes)
        y: Tensor = _C.quant.requantize_sums(sums, step, output_scale, sums.dim() - codes.dim() + 1)
        return y

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
        weight, _ = self._rounded_weight()
        norm = self.batch_norm
        if norm is None:
            return weight, self.bias
        assert norm.running_mean is not None and norm.running_var is not None
        factor = torch.rsqrt(norm.running_var + norm.eps)
        gamma, beta = _affine(norm)
        if gamma is not None:
            factor = factor * gamma
        bias = (-norm.running_mean if self.bias is None else self.bias - norm.running_mean) * factor
        if beta is not None:
            bias = bias + beta
        return weight * factor.view(-1, *[1] * (weight.dim() - 1)), bias


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None]:
    """Gamma and beta of a batch norm, whole where FSDP2 has sharded them: its hooks see calls of the norm alone."""
    gamma, beta = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in (norm.weight, norm.bias))
    return gamma, beta


def _with_gradient(value: Tensor, smooth: Tensor | None) -> Tensor:
    """Exactly `value`, with the gradient of `smooth`."""
    return value if smooth is None else value + (smooth - smooth.detach())


class QuantLinear(QuantLayer, nn.Linear):
    """A linear layer that trains in int8: its weight, batch norm, activation and output quantiser as one.

    Holds the parameters of `linear` under the same names, the child `output_fake_quantize` and,
    unless the weight follows the int8 rule, `weight_fake_quantize`.

    Args:
        linear: the float layer; its parameters are taken over, not copied.
        input_fake_quantize: the quantiser that made the input; not owned.
        activation: `none`, `relu` or `relu6`.
        observer: of the output's quantiser.
        name: of the layer, for messages.
        batch_norm: the batch norm behind it, over (N, O), or None; not owned, run as part of this layer.
        output_fake_quantize: the output's quantiser, activation and all, in place of `activation` and `observer`.
        weight_fake_quantize: what rounds the weight; None: the int8 rule.
    """

    def __init__(
        self,
        linear: nn.Linear,
        input_fake_quantize: ActivationQuantizer,
        activation: str = "none",
        observer: str | Observer = "moving_average",
        name: str = "",
        *,
        batch_norm: nn.Module | None = None,
        output_fake_quantize: ActivationQuantizer | None = None,
        weight_fake_quantize: WeightQuantizer | None = None,
    ) -> None:
        """Takes over the parameters of `linear`."""
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        output = output_fake_quantize or FakeQuantize(observer, activation=activation)
        self._take_over(linear, input_fake_quantize, batch_norm, output, weight_fake_quantize, name)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, weight, bias)


class _SharedGrid(nn.Module):
    """What rounds onto the grid of another quantiser, or not at all while that one's fake-quantise is disabled."""

    def __init__(self, owner: ActivationQuantizer) -> None:
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
        return self._fake_quantize(x) if self._owner[0].rounds() else x


class QuantAveragePool(_SharedGrid):
    """An average pool that rounds onto the grid of its input, as integers do (`torchslim::round_average`).

    Args:
        owner: the quantiser that made the input; not owned.
        pool: the average pool; None: over the whole image, to (N, C, 1, 1). Over (N, C, L) both see images of height 1.
    """

    def __init__(self, owner: ActivationQuantizer, pool: nn.AvgPool2d | None = None) -> None:
        """Ties the module to `owner`."""
        super().__init__(owner)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Returns the averages, on the owner's grid."""
        if x.dim() == 3:
            return self.forward(x.unsqueeze(2)).squeeze(2)
        y = nn.functional.adaptive_avg_pool2d(x, 1) if self.pool is None else cast(Tensor, self.pool(x))
        if not self._owner[0].rounds():
            return y
        if is_tracing():
            return self._fake_quantize(y)
        size = x.shape[-2:] if self.pool is None else pair(self.pool.kernel_size)
        rounded: Tensor = torch.ops.torchslim.round_average(y, self._owner[0].scale, size[0] * size[1])
        return rounded


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Returns `value` for height and width."""
    return (value, value) if isinstance(value, int) else value
