# SPDX-License-Identifier: BSD-3-Clause
"""Learned quantisers where a prepared model holds one: LSQ, LSQ+, PACT, TQT and trainable ranges for activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchslim.quant.activation_quantizer import ACTIVATIONS, ActivationQuantizer, is_tracing
from torchslim.quant.learned_fake_quantize import learned_fake_quantize
from torchslim.quant.learned_modules import (
    LearnedFakeQuantize,
    LearnedQuantizer,
    Pact,
    TrainableRange,
    TrainedThreshold,
)

#: No grid of an activation is finer: below it, runtimes' fixed-point multipliers lose bits.
_SMALLEST_SCALE = 2.0**-12

#: What makes a learned quantiser from the smallest and the largest code.
_KINDS: dict[str, Callable[[int, int], LearnedQuantizer]] = {
    "lsq": lambda low, high: LearnedFakeQuantize(low, high, symmetric=True, grad_scale="features"),
    "lsq+": lambda low, high: LearnedFakeQuantize(low, high, symmetric=False, grad_scale="features"),
    "pact": Pact,
    "tqt": TrainedThreshold,
    "range": TrainableRange,
}

#: Those whose zero point is 0: behind a ReLU, their codes begin at 0.
_SYMMETRIC = ("lsq", "tqt")

_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize.tensor_qparams


class LearnedActivation(ActivationQuantizer):
    """Fake-quantises activation(x) on a grid that is trained, where a prepared model would hold a `FakeQuantize`.

    Child `learned`, whose parameters begin with the first batch in training mode. While fake-quantise is disabled, each
    training batch sets them anew; with the observer disabled, they get no gradient. The scale is at least 2^-12, its
    gradient passes. `scale` and `zero_point` follow from the parameters: they are no buffers. `eval()` keeps the grid.

    Args:
        learned: one grid for the tensor (`axis=None`), within 256 codes. Codes beyond int8, such as [0, 255], are
            shifted into it: `quant_min`, `quant_max` and `zero_point` are in the int8 convention.
        activation: "none", "relu" or "relu6".

    Raises:
        ValueError: a grid per channel, more than 256 codes, another activation; in forward, what `learned` raises.

    Example:
        >>> quantiser = LearnedActivation.of("lsq", bits=4, activation="relu")
        >>> quantiser(torch.tensor([-1.0, 0.5, 1.5])).min()
        tensor(0., grad_fn=...)
    """

    def __init__(self, learned: LearnedQuantizer, activation: str = "none") -> None:
        """Checks the arguments."""
        super().__init__()
        if learned.axis is not None:
            raise ValueError(f"LearnedActivation: expected one grid for the tensor, got axis {learned.axis}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"LearnedActivation: activation must be one of {', '.join(ACTIVATIONS)}, got {activation}")
        low, high = learned.quant_min, learned.quant_max
        self._shift = 0 if low >= -128 and high <= 127 else low + 128
        if high - self._shift > 127:
            raise ValueError(f"LearnedActivation: expected at most 256 codes, got [{low}, {high}]")
        self.quant_min, self.quant_max = low - self._shift, high - self._shift
        self.activation = activation
        self.learned = learned
        self._add_switches()

    @classmethod
    def of(cls, quantizer: str, bits: int = 8, activation: str = "none") -> LearnedActivation:
        """Makes it by name: "lsq", "lsq+", "pact", "tqt" or "range", with 2^bits codes; see `prepare`'s config."""
        from_zero = quantizer in _SYMMETRIC and activation != "none"
        low = 0 if from_zero else -(2 ** (bits - 1))
        quantiser = cls(_KINDS[quantizer](low, low + 2**bits - 1), activation)
        quantiser._name = quantizer
        return quantiser

    @staticmethod
    def names() -> list[str]:
        """The names that `of` takes."""
        return list(_KINDS)

    _name = ""

    @property
    def scale(self) -> Tensor:
        """The grid's step, float32, without a gradient."""
        return self._qparams()[0].detach().float()

    @property
    def zero_point(self) -> Tensor:
        """The code of 0, int32, in the int8 convention."""
        with torch.no_grad():
            _, zero_point = self.learned.qparams()
            codes = torch.clamp(torch.round(zero_point), self.learned.quant_min, self.learned.quant_max)
            return (codes - self._shift).to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the fake-quantised activation of `x`: any shape, float32, float64, bfloat16 or float16."""
        y = self._activated(x)
        if is_tracing():
            return self._quantized(y) if self._flags[1] else y
        observes, rounds = self._read_flags()
        if self.training and observes and not (rounds and self.learned._is_initialized):
            self.learned.initialize(y)
        if not rounds:
            return y
        if not self.learned._is_initialized:
            self.learned._refuse_uninitialized()
        scale, zero_point = self._qparams()
        if not observes:
            scale, zero_point = scale.detach(), zero_point.detach()
        codes = self.learned.quant_min, self.learned.quant_max
        return learned_fake_quantize(y, scale, zero_point, *codes, None, self.learned.grad_scale, self.learned.gradient)

    def has_grid(self) -> bool:
        """Whether the parameters have been set by a batch."""
        return bool(self.learned.initialized.item())

    def describe(self) -> str:
        """The kind of its grid: the quantiser's name."""
        return self._name or type(self.learned).__name__

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        return f"quant_min={self.quant_min}, quant_max={self.quant_max}, activation={self.activation!r}"

    def _qparams(self) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.learned.qparams()
        return scale + (scale.detach().clamp_min(_SMALLEST_SCALE) - scale.detach()), zero_point

    def _quantized(self, y: Tensor) -> Tensor:
        with untraced():
            scale, zero_point = self.scale, self.zero_point
        return _fake_quantize(y, scale, zero_point, self.quant_min, self.quant_max)

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        return {}


@contextmanager
def untraced() -> Iterator[None]:
    """What runs inside leaves no nodes in a trace."""
    jit: Any = torch._C
    state = jit._get_tracing_state()
    jit._set_tracing_state(None)
    try:
        yield
    finally:
        jit._set_tracing_state(state)
