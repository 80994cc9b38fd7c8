# SPDX-License-Identifier: BSD-3-Clause
"""What the weights of a prepared model are rounded to, where it is not the int8 rule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.binary_fake_quantize import binary_fake_quantize, ternary_fake_quantize
from torchslim.quant.float_fake_quantize import float_fake_quantize
from torchslim.quant.float_format import FloatFormat
from torchslim.quant.learned_activation import untraced
from torchslim.quant.learned_fake_quantize import learned_fake_quantize, positive_scale
from torchslim.quant.level_fake_quantize import level_fake_quantize
from torchslim.quant.levels import absmax_scale, apot_levels, power_of_two_levels

_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize.tensor_qparams
_fake_quantize_weight: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.fake_quantize_weight.default
_weight_scale: Callable[..., Tensor] = torch.ops.torchslim.weight_scale.default
_FORMATS = {
    "float8_e4m3": FloatFormat.e4m3fn,
    "float8_e5m2": FloatFormat.e5m2,
    "float16": FloatFormat.fp16,
    "bfloat16": FloatFormat.bf16,
}


class WeightQuantizer(nn.Module):
    """Rounds the weight of a convolution or linear layer: child `weight_fake_quantize` of prepared layers.

    Every quantiser has one grid per output channel and zero point 0, so that it commutes with the batch norm behind.
    State: "lsq" has the parameter `scale` (O), of which `positive_scale(scale)` is used; a frozen grid has the buffer
    `scale` (O); others have none. In C++: `quant::WeightQuantizer`, with the same keys.

    Args:
        weight: (O, ...), float32: "lsq" begins with its scale.
        quantizer: "fake_quantize": the grid [-L, L], L = 2^(bits-1) - 1, its scale a pure function of the weight (2 to
            8 bits); "lsq": the same grid, its scale trained; "binary", "ternary"; "apot", "power_of_two": levels, whose
            largest meets max|w| (2 to 8 bits); "float8_e4m3", "float8_e5m2", "float16", "bfloat16".
        bits: width of a code; None: the quantiser's own.
        scale_search: "absmax" or "mse" (`weight_scale`): where "fake_quantize" takes its scale from, and "lsq" its
            first.

    Raises:
        ValueError: a quantiser that does not exist, or does not go with these bits or this search.

    Example:
        >>> quantiser = WeightQuantizer(torch.ones(1, 2), bits=4)
        >>> quantiser(torch.tensor([[7.0, -3.4]]))
        (tensor([[ 7., -3.]]), tensor([1.]))
    """

    scale: Tensor

    def __init__(
        self, weight: Tensor, quantizer: str = "fake_quantize", bits: int | None = None, scale_search: str = "absmax"
    ) -> None:
        """Checks the arguments."""
        super().__init__()
        options = _C.quant.WeightQuantizerOptions(quantizer, bits, scale_search)
        options.check("WeightQuantizer")
        self.quantizer = quantizer
        self.scale_search = scale_search
        self.bits: int = options.width
        self.largest_code: int = options.largest_code
        self.has_codes: bool = options.has_codes
        self.is_frozen = False
        if quantizer == "lsq":
            scale = _weight_scale(weight.detach(), self.bits, scale_search)
            self.scale = nn.Parameter(scale)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the rounded weight, with its straight-through gradient, and its scale (O); None without codes."""
        if self.is_frozen:
            return self._on_grid(weight, self.scale), self.scale
        if self.quantizer == "lsq":
            scale = positive_scale(self.scale)
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
            codes = -self.largest_code, self.largest_code
            return learned_fake_quantize(weight, scale, zero_point, *codes, 0, "per_channel"), scale.detach()
        if self.quantizer == "fake_quantize" and self.scale_search == "absmax":
            return _fake_quantize_weight(weight, self.bits)
        if self.quantizer == "fake_quantize":
            scale = _weight_scale(weight.detach(), self.bits, self.scale_search)
            return self._on_grid(weight, scale), scale
        if self.has_codes:
            rounded = self._signs(weight)
            scale = rounded.detach().abs().flatten(1).amax(1)
            return rounded, torch.where(scale < torch.finfo(scale.dtype).tiny, torch.ones_like(scale), scale)
        return self._on_levels(weight), None

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (codes, scale), int8 and float32 (O): codes · scale is what `forward` returns.

        Raises:
            ValueError: NaN or infinity in the weight, or a quantiser without codes.
        """
        if not self.has_codes:
            raise ValueError(f"WeightQuantizer: {self.quantizer!r} gives no integer codes")
        if not bool(torch.isfinite(weight).all()):
            raise ValueError("WeightQuantizer: the weight holds NaN or infinity")
        with torch.no_grad():
            rounded, scale = self(weight.detach())
            steps = scale.view(-1, *[1] * (weight.dim() - 1))
            return torch.round(rounded / steps).to(torch.int8), scale.detach()

    def traced(self, weight: Tensor) -> Tensor:
        """The rounded weight in operations that `torchslim.graph.capture` knows; its scale is a constant there."""
        if not self.has_codes:
            with untraced():
                return self(weight.detach())[0]  # type: ignore[no-any-return]
        with untraced():
            scale = self(weight.detach())[1].detach()
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
        # Rounding to nearest does not give signs, so those come first; the grid then leaves them as they are.
        has_signs = self.quantizer in ("binary", "ternary") and not self.is_frozen
        codes = -self.largest_code, self.largest_code
        return _fake_quantize(self._signs(weight) if has_signs else weight, scale, zero_point, *codes, 0)

    def freeze(self, scale: Tensor) -> None:
        """Keeps the grid at `scale` from now on: for weights that were rounded to it by other means, such as `gptq`.

        Args:
            scale: float32 (O), > 0.

        Raises:
            ValueError: a quantiser without codes, or another shape, type or numbers; nothing has changed then.
        """
        if not self.has_codes:
            raise ValueError(f"WeightQuantizer: {self.quantizer!r} has no grid to freeze")
        if scale.dim() != 1 or scale.dtype != torch.float32:
            raise ValueError(f"WeightQuantizer: expected scale float32 (O), got {scale.dtype} {tuple(scale.shape)}")
        if not bool((torch.isfinite(scale) & (scale >= torch.finfo(torch.float32).tiny)).all()):
            raise ValueError("WeightQuantizer: scale must be > 0, normal and finite in each channel")
        self._parameters.pop("scale", None)
        self.register_buffer("scale", scale.detach().clone())
        self.is_frozen = True

    def describe(self) -> str:
        """The kind of its grid, in a word or two, without its bits."""
        return self.quantizer if self.scale_search == "absmax" else f"{self.quantizer} {self.scale_search}"

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        frozen = ", frozen" if self.is_frozen else ""
        return f"{self.quantizer!r}, bits={self.bits}, scale_search={self.scale_search!r}{frozen}"

    def _on_grid(self, weight: Tensor, scale: Tensor) -> Tensor:
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return _fake_quantize(weight, scale, zero_point, -self.largest_code, self.largest_code, 0)

    def _signs(self, weight: Tensor) -> Tensor:
        return (binary_fake_quantize if self.quantizer == "binary" else ternary_fake_quantize)(weight, 0)

    def _on_levels(self, weight: Tensor) -> Tensor:
        if self.quantizer in _FORMATS:
            format = _FORMATS[self.quantizer]()
            return float_fake_quantize(weight, format, absmax_scale(weight.detach(), format.max, 0), 0)
        levels = (apot_levels if self.quantizer == "apot" else power_of_two_levels)(self.bits).to(weight.device)
        return level_fake_quantize(weight, levels, absmax_scale(weight.detach(), 1.0, 0), 0)


class ModuleWeightQuantizer(WeightQuantizer):
    """A weight quantiser of the user's: child `module`, whose forward gives the rounded weight. It has no codes."""

    def __init__(self, module: nn.Module) -> None:
        """Takes over `module`."""
        nn.Module.__init__(self)
        self.quantizer = type(module).__name__
        self.scale_search = "absmax"
        self.bits = 32  # what it has room for; nobody knows what it uses
        self.has_codes = False
        self.is_frozen = False
        self.module = module

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the rounded weight and None."""
        rounded: Tensor = self.module(weight)
        return rounded, None

    def describe(self) -> str:
        """The name of the module's class."""
        return self.quantizer

    def extra_repr(self) -> str:
        """Nothing: the module prints itself."""
        return ""
