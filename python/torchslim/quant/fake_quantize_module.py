# SPDX-License-Identifier: BSD-3-Clause
"""The quantiser that prepared models hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from torchslim import _C
from torchslim.quant.activation_quantizer import ActivationQuantizer, is_tracing
from torchslim.quant.fake_quantize_group import fake_quantize_group
from torchslim.quant.observers import MinMaxObserver, MovingAverageObserver, Observer, as_observer
from torchslim.quant.resizing_state import shared_shape

_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.fake_quantize.tensor_qparams
_clamp_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.clamp_fake_quantize.default
_observe_fake_quantize: Callable[..., Tensor] = torch.ops.torchslim.observe_fake_quantize.default
_observe_fake_quantize_channels: Callable[..., Tensor] = torch.ops.torchslim.observe_fake_quantize.channels
_observe_channels: Callable[..., None] = torch.ops.torchslim.observe_channels.default
_update_qparams: Callable[..., None] = torch.ops.torchslim.update_qparams.default

#: What `activation` clamps to: (clamp_min, clamp_max).
_CLAMPS: dict[str, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
}


class FakeQuantize(ActivationQuantizer):
    """Fake-quantises what passes through: y = fake_quantize(activation(x)).

    In training mode it observes the range first and moves its grid, in the same two passes over memory; `eval()`
    freezes the grid. Under `torch.jit.trace` it is the plain activation and one `torchslim::fake_quantize` node.

    Buffers, with torch.ao's names: `min_val`, `max_val`, `scale`, `zero_point` of shape () or, with an axis, (channels)
    from the first forward on; `observer_enabled`, `fake_quant_enabled`, uint8 of shape (1).

    Args:
        observer: "moving_average", "min_max", "histogram", "percentile", "mse", "entropy", or an observer with other
            settings, such as `MovingAverageObserver(0.01)`. Bits, symmetry, axis and groups are those of the quantiser.
            Other than the first two, or one that skips NaN or sees groups, it becomes the child `observer`, which reads
            `x` once more, and training forwards search its range anew each time.
        bits: width of the integers, 1 to 16. The grid is [-2^(bits-1), 2^(bits-1) - 1].
        symmetric: the zero point is 0 and the grid loses its lowest code, as for weights; takes 2 bits or more.
        axis: the channel dimension, to have one grid for each channel; None: one grid.
        group_size: elements along `axis` that share a grid; must divide it. None: all of a channel share one.
        activation: "none", "relu" or "relu6": applied first, at no cost. Needs `axis=None`.

    Raises:
        ValueError: an argument is none of these, or (in forward) the input holds NaN or infinity; the state is then
            unchanged.

    Example:
        >>> quantiser = FakeQuantize(activation="relu")
        >>> quantiser(torch.tensor([-1.0, 0.1, 2.55]))
        tensor([0.0000, 0.1000, 2.5500])
        >>> quantiser.scale, quantiser.zero_point
        (tensor(0.0100), tensor(-128, dtype=torch.int32))
    """

    min_val: Tensor
    max_val: Tensor
    scale: Tensor
    zero_point: Tensor
    observer: Observer

    def __init__(
        self,
        observer: str | Observer = "moving_average",
        bits: int = 8,
        symmetric: bool = False,
        axis: int | None = None,
        *,
        group_size: int | None = None,
        activation: str = "none",
    ) -> None:
        """Checks the arguments, then starts with nothing seen: scale 1, zero point 0."""
        super().__init__()
        self.quant_min, self.quant_max = _C.quant.observed_codes(
            "torchslim::FakeQuantize", bits, symmetric, axis, group_size, None, None, "refuse", 0.1, 2048, 99.99
        )
        if activation not in _CLAMPS:
            raise ValueError(f"FakeQuantize: activation must be one of {', '.join(_CLAMPS)}, got {activation!r}")
        if activation != "none" and axis is not None:
            raise ValueError(
                f"FakeQuantize: activation {activation!r} needs one grid for the tensor, got axis {axis}; "
                "apply the activation before the quantiser"
            )
        self.bits = bits
        self.symmetric = symmetric
        self.axis = axis
        self.group_size = group_size
        self.activation = activation
        self._set_observer(as_observer(observer))
        shape = () if axis is None else (0,)
        self.register_buffer("min_val", torch.full(shape, math.inf))
        self.register_buffer("max_val", torch.full(shape, -math.inf))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self._add_switches()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the fake-quantised activation of `x`: any shape, float32, float64, bfloat16 or float16."""
        if is_tracing():
            return self._quantized(self._activated(x)) if self._flags[1] else self._activated(x)
        observes, rounds = self._read_flags()
        if self.training and observes:
            if self._searches:
                self.observer(self._activated(x.detach()))
                self.update_qparams()
            elif self.axis is not None:
                return self._observed_channels(x, rounds)
            elif rounds:
                return self._observed(x)
            else:
                self._observed(x.detach())
        if not rounds:
            return self._activated(x)
        if self.activation == "none":
            return self._quantized(x)
        buffers = self._buffers
        return _clamp_fake_quantize(
            x, buffers["scale"], buffers["zero_point"], self.quant_min, self.quant_max, *_CLAMPS[self.activation]
        )

    def has_grid(self) -> bool:
        """Whether anything was seen that the grid follows from."""
        return self.min_val.numel() > 0 and bool(torch.isfinite(self.min_val).all())

    def describe(self) -> str:
        """The kind of its grid: whether the zero point is 0."""
        return "fake_quantize symmetric" if self.symmetric else "fake_quantize"

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point) as they follow from `min_val` and `max_val`.

        Raises:
            ValueError: nothing has been observed yet.
        """
        choose = _C.quant.choose_qparams if self.axis is None else _C.quant.channel_qparams
        scale, zero_point = choose(self.min_val, self.max_val, self.quant_min, self.quant_max, self.symmetric)
        return scale, zero_point

    def update_qparams(self) -> None:
        """Sets the grid, and with an `observer` inside the range, to what follows from what was seen, if anything was.

        Training forwards do so themselves.
        """
        if self._searches:
            low, high = self.observer.calculate_range()
            if low.shape != self.min_val.shape:
                self.min_val, self.max_val, self.scale, self.zero_point = self._unseen(low.shape)
            self.min_val.copy_(low)
            self.max_val.copy_(high)
        _update_qparams(*self._state(), self.quant_min, self.quant_max, self.symmetric, self.axis is not None)

    def extra_repr(self) -> str:
        """The arguments, for `print(model)`."""
        axis = "" if self.axis is None else f", axis={self.axis}"
        axis += "" if self.group_size is None else f", group_size={self.group_size}"
        return (
            f"observer={self.observer}, bits={self.bits}, symmetric={self.symmetric}{axis}, "
            f"activation={self.activation!r}"
        )

    def _set_observer(self, observer: Observer) -> None:
        if observer.group_size not in (None, self.group_size):
            raise ValueError(
                f"FakeQuantize: the observer has group_size {observer.group_size}, the quantiser {self.group_size}; "
                "give group_size to the quantiser alone"
            )
        fused = isinstance(observer, MovingAverageObserver | MinMaxObserver)
        self._searches = not fused or observer.options["non_finite"] == "skip" or self.group_size is not None
        if self._searches:
            self.observer = observer.for_grid(
                self.quant_min, self.quant_max, self.symmetric, self.axis, self.group_size
            )
        else:
            # The rule alone: the range is in this module's own buffers, under the names that files hold.
            self.__dict__["observer"] = observer

    def _quantized(self, x: Tensor) -> Tensor:
        if self.group_size is not None:
            assert self.axis is not None
            grid = self.scale, self.zero_point, self.quant_min, self.quant_max
            return fake_quantize_group(x, *grid, self.group_size, self.axis)
        return _fake_quantize(x, self.scale, self.zero_point, self.quant_min, self.quant_max, self.axis)

    def _averaging_constant(self) -> float:
        return self.observer.averaging_constant if isinstance(self.observer, MovingAverageObserver) else 1.0

    def _observed(self, x: Tensor) -> Tensor:
        return _observe_fake_quantize(
            x,
            *self._state(),
            self._averaging_constant(),
            self.quant_min,
            self.quant_max,
            self.symmetric,
            *_CLAMPS[self.activation],
            isinstance(self.observer, MinMaxObserver),
        )

    def _observed_channels(self, x: Tensor, rounds: bool) -> Tensor:
        assert self.axis is not None
        counts_channels = self.min_val.numel() == 0 and -x.dim() <= self.axis < x.dim()
        state = self._unseen((x.shape[self.axis],)) if counts_channels else self._state()
        arguments = (
            x,
            *state,
            self.axis,
            self._averaging_constant(),
            self.quant_min,
            self.quant_max,
            self.symmetric,
            isinstance(self.observer, MinMaxObserver),
        )
        y = x
        if rounds:
            y = _observe_fake_quantize_channels(*arguments)
        else:
            _observe_channels(*arguments)
        if counts_channels:  # the state becomes theirs only once x has been accepted
            self.min_val, self.max_val, self.scale, self.zero_point = state
        return y

    def _state(self) -> tuple[Tensor, ...]:
        buffers = cast("dict[str, Tensor]", self._buffers)
        return buffers["min_val"], buffers["max_val"], buffers["scale"], buffers["zero_point"]

    def _unseen(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        return (
            self.min_val.new_full(shape, math.inf),
            self.max_val.new_full(shape, -math.inf),
            self.scale.new_ones(shape),
            self.zero_point.new_zeros(shape),
        )

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        if self.axis is None:
            return {}
        dims = 1 if self.group_size is None else None
        return shared_shape(file, ("min_val", "max_val", "scale", "zero_point"), dims)
