# SPDX-License-Identifier: BSD-3-Clause
"""What the quantisers of activations have in common, so that a prepared model can hold any of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchslim.quant.resizing_state import ResizingState

#: Of the two that PyTorch has, the one that a compiled forward can ask.
is_tracing: Callable[[], bool] = torch.jit._trace.is_tracing

_Self = TypeVar("_Self", bound="ActivationQuantizer")

#: The activations that a quantiser applies first.
ACTIVATIONS = ("none", "relu", "relu6")


class ActivationQuantizer(ResizingState):
    """A quantiser with one grid, its activation in it, and two switches; `FakeQuantize` and `LearnedActivation` are.

    A subclass gives `scale` (float32) and `zero_point` (int32) as they are now, `quant_min` and `quant_max`, which lie
    in int8, and registers the switches by `_add_switches`: buffers `observer_enabled` and `fake_quant_enabled`, uint8
    of shape (1).
    """

    if TYPE_CHECKING:  # subclasses have them as buffers or as properties

        @property
        def scale(self) -> Tensor:
            """The step of the grid."""

        @property
        def zero_point(self) -> Tensor:
            """The code of 0."""

    quant_min: int
    quant_max: int
    activation: str
    observer_enabled: Tensor
    fake_quant_enabled: Tensor

    @abstractmethod
    def has_grid(self) -> bool:
        """Whether anything was seen that the grid follows from."""

    @abstractmethod
    def describe(self) -> str:
        """The kind of its grid, in a word or two, without its bits."""

    @abstractmethod
    def _quantized(self, x: Tensor) -> Tensor:
        """Returns `x`, behind its activation, on the grid as it is now."""

    def enable_observer(self: _Self, enabled: bool = True) -> _Self:
        """Lets training forwards move the range."""
        self.observer_enabled.fill_(int(enabled))
        self._read_flags()
        return self

    def disable_observer(self: _Self) -> _Self:
        """Keeps the range as it is."""
        return self.enable_observer(False)

    def enable_fake_quant(self: _Self, enabled: bool = True) -> _Self:
        """Lets forwards round."""
        self.fake_quant_enabled.fill_(int(enabled))
        self._read_flags()
        return self

    def disable_fake_quant(self: _Self) -> _Self:
        """Makes forwards apply the activation alone; the range is still observed in training mode."""
        return self.enable_fake_quant(False)

    def rounds(self) -> bool:
        """Whether fake-quantise is enabled; a trace or a compiled forward takes what Python knows of the buffer."""
        return self._flags[1] if is_tracing() else self._read_flags()[1]

    def _add_switches(self) -> None:
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("fake_quant_enabled", torch.ones(1, dtype=torch.uint8))
        # What the two flags say, as Python knows it: a compiled or traced forward cannot branch on a tensor.
        self._flags = (True, True)

    def _read_flags(self) -> tuple[bool, bool]:
        if not torch.compiler.is_compiling():
            self._flags = (self._is_set("observer_enabled"), self._is_set("fake_quant_enabled"))
        return self._flags

    def _is_set(self, flag: str) -> bool:
        tensor = self._buffers[flag]  # attribute access to a buffer costs more than the operators
        return tensor is not None and bool(tensor.item())

    def _activated(self, x: Tensor) -> Tensor:
        if self.activation == "none":
            return x
        return torch.relu(x) if self.activation == "relu" else functional.relu6(x)

    def _after_loading(self) -> None:
        self._read_flags()


@contextmanager
def without_rounding(model: nn.Module) -> Iterator[None]:
    """Keeps the activations of a prepared model from being rounded."""
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    rounded = [bool(quantizer.fake_quant_enabled.item()) for quantizer in quantizers]
    try:
        for quantizer in quantizers:
            quantizer.disable_fake_quant()
        yield
    finally:
        for quantizer, enabled in zip(quantizers, rounded, strict=True):
            quantizer.enable_fake_quant(enabled)
