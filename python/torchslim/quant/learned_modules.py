# SPDX-License-Identifier: BSD-3-Clause
"""Quantisers whose grid is trained with the network: LSQ, LSQ+, PACT, TQT and trainable ranges."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from torchslim import _C
from torchslim.quant.learned_fake_quantize import (
    learned_fake_quantize,
    pact_scale,
    positive_scale,
    trainable_range_qparams,
    trained_threshold_scale,
)
from torchslim.quant.resizing_state import ResizingState, shared_shape

_GRAD_SCALES = ("none", "numel", "per_channel", "features")


class LearnedQuantizer(ResizingState):
    """What learned quantisers have in common; use one of its subclasses.

    The first forward in training mode begins with `initialize`; in eval mode it must have happened before. Parameters
    and buffers have shape () or, with an axis, (channels), from `initialize` or loading on; the buffer `initialized` is
    uint8 of shape (1). State dicts have the same keys in C++.
    """

    initialized: Tensor
    grad_scale = "none"
    gradient = "rounded"

    def __init__(self, quant_min: int, quant_max: int, axis: int | None) -> None:
        """Checks the grid."""
        super().__init__()
        if not -(2**23) <= quant_min < quant_max <= 2**23:
            raise ValueError(
                f"{type(self).__name__}: quant_min must be < quant_max, both within ±2**23, "
                f"got {quant_min} and {quant_max}"
            )
        if axis is not None and not isinstance(axis, int):
            raise TypeError(f"{type(self).__name__}: axis must be None or a whole number, got {axis!r}")
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.axis = axis
        self.register_buffer("initialized", torch.zeros(1, dtype=torch.uint8))
        self._is_initialized = False  # what the buffer says, as Python knows it: compiled code cannot ask a tensor

    def forward(self, x: Tensor) -> Tensor:
        """Returns `learned_fake_quantize(x)`: any shape, float32, float64, bfloat16 or float16."""
        if not self._is_initialized:
            if not self.training:
                self._refuse_uninitialized()
            self.initialize(x)
        scale, zero_point = self.qparams()
        return learned_fake_quantize(
            x, scale, zero_point, self.quant_min, self.quant_max, self.axis, self.grad_scale, self.gradient
        )

    def initialize(self, x: Tensor) -> None:
        """Sets the parameters from a batch.

        Raises:
            ValueError: `x` is empty, or holds NaN or infinity; nothing has changed then.
        """
        for name, values in self._first_values(x.detach()).items():
            self._set(name, values)
        self.initialized.fill_(1)
        self._is_initialized = True

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns the grid that forwards use: scale float32, zero_point int32.

        Raises:
            ValueError: there is no grid yet.
        """
        if not self._is_initialized:
            self._refuse_uninitialized()
        scale, zero_point = self.qparams()
        return scale.detach().float(), _C.quant.rounded_zero_point(zero_point, self.quant_min, self.quant_max)

    @abstractmethod
    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point) as they follow from the parameters, with their gradients."""

    @abstractmethod
    def _first_values(self, x: Tensor) -> dict[str, Tensor]:
        """Returns what each parameter begins with."""

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        axis = "" if self.axis is None else f", axis={self.axis}"
        return f"quant_min={self.quant_min}, quant_max={self.quant_max}{axis}"

    def _unset(self) -> Tensor:
        return torch.ones(() if self.axis is None else (0,))

    def _set(self, name: str, values: Tensor) -> None:
        """Gives a parameter or buffer new values, and their shape; it stays the same tensor, as optimisers need."""
        state = getattr(self, name)
        state.data = values.to(state)

    def _refuse_uninitialized(self) -> None:
        raise ValueError(
            f"{type(self).__name__}: the grid has no values yet; "
            "run a batch in training mode, or call initialize(batch)"
        )

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        if self.axis is None:
            return {}
        return shared_shape(file, [name for name in self._state_tensors() if name != "initialized"])

    def _after_loading(self) -> None:
        self._is_initialized = bool(self.initialized.item())


class LearnedFakeQuantize(LearnedQuantizer):
    """LSQ and LSQ+: fake-quantises on a grid whose scale (and, not symmetric, zero point) is trained.

    Parameter `scale`, of which `positive_scale(scale)` is used; `zero_point`: a float parameter, rounded half to even
    and clamped to the grid in each forward, or (symmetric) an int32 buffer of 0. Begins with 2·mean|x|/√quant_max of
    the first batch, or (not symmetric) with its range.

    Args:
        quant_min: the smallest integer of the grid.
        quant_max: the largest integer of the grid, > 0.
        axis: the channel dimension, to have one grid for each channel; None: one grid.
        symmetric: the zero point is 0 (LSQ), else it is learned (LSQ+).
        grad_scale: how gradients of the grid are scaled: "none", "numel" (the paper's rule for weights), "per_channel",
            or "features" (its rule for activations: it does not depend on the batch); see `learned_fake_quantize`.

    Raises:
        ValueError: an argument is none of these; in forward, the first batch is empty or holds NaN or infinity, or
            there was none and the module is in eval mode.

    Example:
        >>> quantiser = LearnedFakeQuantize(-8, 7)
        >>> quantiser(torch.tensor([-1.0, 0.5, 1.5]))
        tensor([-0.7559,  0.7559,  1.5119], grad_fn=...)
    """

    scale: nn.Parameter
    zero_point: Tensor

    def __init__(
        self,
        quant_min: int = -128,
        quant_max: int = 127,
        axis: int | None = None,
        symmetric: bool = True,
        grad_scale: str = "numel",
    ) -> None:
        """Checks the arguments."""
        super().__init__(quant_min, quant_max, axis)
        if quant_max <= 0:
            raise ValueError(f"LearnedFakeQuantize: quant_max must be > 0, got {quant_max}")
        if symmetric and quant_min > 0:
            raise ValueError(f"LearnedFakeQuantize: the zero point 0 must be in the grid, got quant_min {quant_min}")
        if grad_scale not in _GRAD_SCALES:
            raise ValueError(
                f"LearnedFakeQuantize: grad_scale must be one of {', '.join(_GRAD_SCALES)}, got {grad_scale!r}"
            )
        self.symmetric = symmetric
        self.grad_scale = grad_scale
        self.scale = nn.Parameter(self._unset())
        if symmetric:
            self.register_buffer("zero_point", torch.zeros_like(self._unset(), dtype=torch.int32))
        else:
            self.zero_point = nn.Parameter(torch.zeros_like(self._unset()))

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point), with their gradients."""
        return positive_scale(self.scale), self.zero_point

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        return f"{super().extra_repr()}, symmetric={self.symmetric}, grad_scale={self.grad_scale!r}"

    def _first_values(self, x: Tensor) -> dict[str, Tensor]:
        if self.symmetric:
            scale = _C.quant.initial_scale(x, self.quant_max, self.axis)
            return {"scale": scale, "zero_point": torch.zeros_like(scale)}
        scale, zero_point = _C.quant.initial_qparams(x, self.quant_min, self.quant_max, self.axis)
        return {"scale": scale, "zero_point": zero_point}


class Pact(LearnedQuantizer):
    """PACT: clips to [0, alpha], ReLU included, and fake-quantises; alpha is trained by what it clips alone.

    Parameter `alpha`, of which max(|alpha|, 2**-23) is used; begins with the largest value of the first batch.

    Args:
        quant_min: the smallest integer of the grid, which stands for 0.
        quant_max: the largest integer of the grid, which stands for alpha.
        axis: the channel dimension, to have one alpha for each channel; None: one.

    Example:
        >>> quantiser = Pact(0, 15)
        >>> quantiser(torch.tensor([-1.0, 0.5, 1.5]))
        tensor([0.0000, 0.5000, 1.5000], grad_fn=...)
    """

    alpha: nn.Parameter
    gradient = "clip"

    def __init__(self, quant_min: int = -128, quant_max: int = 127, axis: int | None = None) -> None:
        """Checks the arguments."""
        super().__init__(quant_min, quant_max, axis)
        self.alpha = nn.Parameter(self._unset())

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point), the scale with its gradient."""
        scale = pact_scale(self.alpha, self.quant_min, self.quant_max)
        return scale, torch.full_like(scale, self.quant_min, dtype=torch.int32, requires_grad=False)

    def _first_values(self, x: Tensor) -> dict[str, Tensor]:
        return {"alpha": _C.quant.initial_alpha(x, self.axis)}


class TrainedThreshold(LearnedQuantizer):
    """TQT: a symmetric grid whose scale is a power of two, from a threshold that is trained in the log domain.

    Parameter `log2_threshold`; begins with log2(max|x|) of the first batch.

    Args:
        quant_min: the smallest integer of the grid, ≤ 0.
        quant_max: the largest integer of the grid; quant_max + 1 is a power of two.
        axis: the channel dimension, to have one threshold for each channel; None: one.

    Example:
        >>> quantiser = TrainedThreshold(-8, 7)
        >>> quantiser(torch.tensor([-1.0, 0.6, 1.5]))
        tensor([-1.0000,  0.5000,  1.5000], grad_fn=...)
    """

    log2_threshold: nn.Parameter

    def __init__(self, quant_min: int = -128, quant_max: int = 127, axis: int | None = None) -> None:
        """Checks the arguments."""
        super().__init__(quant_min, quant_max, axis)
        if quant_min > 0:
            raise ValueError(f"TrainedThreshold: the zero point 0 must be in the grid, got quant_min {quant_min}")
        trained_threshold_scale(torch.ones(()), quant_max)  # refuses what has no power of two
        self.log2_threshold = nn.Parameter(self._unset())

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point), the scale with its gradient."""
        scale = trained_threshold_scale(self.log2_threshold, self.quant_max)
        return scale, torch.zeros_like(scale, dtype=torch.int32, requires_grad=False)

    def _first_values(self, x: Tensor) -> dict[str, Tensor]:
        return {"log2_threshold": _C.quant.initial_log2_threshold(x, self.axis)}


class TrainableRange(LearnedQuantizer):
    """A trainable range [input_low, input_low + input_range], as NNCF's asymmetric quantiser.

    Parameters `input_low` and `input_range`, of which max(|input_range|, 2**-23) is used; begin with the range of the
    first batch, widened to hold 0.

    Args:
        quant_min: the smallest integer of the grid.
        quant_max: the largest integer of the grid.
        axis: the channel dimension, to have one range for each channel; None: one.

    Example:
        >>> quantiser = TrainableRange(0, 15)
        >>> quantiser(torch.tensor([-1.0, 0.45, 2.0]))
        tensor([-1.0000,  0.4000,  2.0000], grad_fn=...)
    """

    input_low: nn.Parameter
    input_range: nn.Parameter

    def __init__(self, quant_min: int = -128, quant_max: int = 127, axis: int | None = None) -> None:
        """Checks the arguments."""
        super().__init__(quant_min, quant_max, axis)
        self.input_low = nn.Parameter(torch.zeros_like(self._unset()))
        self.input_range = nn.Parameter(self._unset())

    def qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point), with their gradients."""
        return trainable_range_qparams(self.input_low, self.input_range, self.quant_min, self.quant_max)

    def _first_values(self, x: Tensor) -> dict[str, Tensor]:
        low, length = _C.quant.initial_range(x, self.axis)
        return {"input_low": low, "input_range": length}
