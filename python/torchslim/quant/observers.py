# SPDX-License-Identifier: BSD-3-Clause
"""Observers: what a quantiser remembers of the values it saw, and the range it chooses for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor

from torchslim import _C
from torchslim.quant.resizing_state import ResizingState, shared_shape

_observe_range: Callable[..., None] = torch.ops.torchslim.observe_range.default
_observe_histogram: Callable[..., None] = torch.ops.torchslim.observe_histogram.default
_l2_range: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.l2_range.default
_percentile_range: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.percentile_range.default
_mse_range: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.mse_range.default
_entropy_range: Callable[..., tuple[Tensor, Tensor]] = torch.ops.torchslim.entropy_range.default


class ObserverOptions(TypedDict, total=False):
    """What all observers take, by keyword; `Observer` says what each means."""

    bits: int
    symmetric: bool
    axis: int | None
    group_size: int | None
    quant_min: int | None
    quant_max: int | None
    non_finite: str


_DEFAULTS = ObserverOptions(
    bits=8, symmetric=False, axis=None, group_size=None, quant_min=None, quant_max=None, non_finite="refuse"
)


class Observer(ResizingState):
    """What every observer does: it passes x through unchanged, remembers what it saw, and chooses a grid for it.

    Buffers, with torch.ao's names: `min_val`, `max_val`, float32, (inf, -inf) where nothing was seen: of shape (), or
    with `axis`, from the first forward or load on, (channels), or with `group_size` the shape of x, `axis` divided by
    `group_size`; those with a histogram also `histogram`, int64, that shape and `bins`.

    Args:
        bits: width of the integers, 1 to 16. The grid is [-2^(bits-1), 2^(bits-1) - 1].
        symmetric: the zero point is in the middle and the grid loses its lowest code, as for weights.
        axis: the channel dimension, to have one grid for each channel; None: one grid.
        group_size: elements along `axis` that share a grid; must divide it. None: all of a channel share one.
        quant_min, quant_max: smallest and largest code, instead of `bits`.
        non_finite: NaN and infinities in the data: "refuse" raises and leaves the state as it is, "skip" leaves them
            out.

    Raises:
        ValueError: an argument is none of these; in forward also: x holds NaN or infinity, or does not fit the state.
            The state is then unchanged.
    """

    min_val: Tensor
    max_val: Tensor
    histogram: Tensor | None

    #: The settings of a class besides those that all have, for `print`.
    _settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        options: ObserverOptions,
        *,
        averaging_constant: float = 0.1,
        bins: int | None = None,
        percentile: float = 99.99,
    ) -> None:
        """Checks the options, then starts with nothing seen."""
        super().__init__()
        unknown = options.keys() - _DEFAULTS.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__}: unknown option {min(unknown)!r}; known: {', '.join(_DEFAULTS)}")
        self.options: ObserverOptions = {**_DEFAULTS, **options}
        self.axis = self.options["axis"]
        self.group_size = self.options["group_size"]
        self.symmetric = self.options["symmetric"]
        self.averaging_constant = averaging_constant
        self.percentile = percentile
        self.bins = bins
        self.quant_min, self.quant_max = _C.quant.observed_codes(
            f"torchslim::{type(self).__name__}",
            **self.options,
            averaging_constant=averaging_constant,
            bins=2048 if bins is None else bins,
            percentile=percentile,
        )
        shape = () if self.axis is None else (0,)
        self.register_buffer("min_val", torch.full(shape, math.inf))
        self.register_buffer("max_val", torch.full(shape, -math.inf))
        self.register_buffer("histogram", None if bins is None else torch.zeros(*shape, bins, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Observes `x`, any shape, float32, float64, bfloat16 or float16, without a gradient; returns it as it is."""
        counts_channels = self.axis is not None and self.min_val.numel() == 0
        state = self._state_for(x) if counts_channels else (self.min_val, self.max_val, self.histogram)
        self._observe(x.detach(), *state)
        if counts_channels:  # the state becomes theirs only once x has been accepted
            self.min_val, self.max_val, self.histogram = state
        return x

    def calculate_range(self) -> tuple[Tensor, Tensor]:
        """Returns the range to quantise, (min, max): what was seen, less what this observer cuts off."""
        return self.min_val.clone(), self.max_val.clone()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, zero_point): `choose_qparams` of `calculate_range`, or with an axis the rule of weights.

        Raises:
            ValueError: nothing has been observed yet.
        """
        if self.min_val.numel() == 0:
            raise ValueError(
                f"torchslim::{type(self).__name__}: nothing has been observed yet; run some data through it first"
            )
        choose = _C.quant.choose_qparams if self.axis is None else _C.quant.channel_qparams
        scale, zero_point = choose(*self.calculate_range(), self.quant_min, self.quant_max, self.symmetric)
        return scale, zero_point

    def reset_state(self) -> None:
        """Forgets what was seen; with an axis, the next tensor may have other channels."""
        shape = torch.Size(() if self.axis is None else (0,))
        self.min_val, self.max_val, self.histogram = self._unseen(shape)

    def for_grid(
        self, quant_min: int, quant_max: int, symmetric: bool, axis: int | None, group_size: int | None
    ) -> Observer:
        """Returns a new observer with the settings of this one and another grid; it has seen nothing."""
        settings = {name: getattr(self, name) for name in self._settings}
        codes = {"quant_min": quant_min, "quant_max": quant_max, "symmetric": symmetric}
        grid = {**codes, "axis": axis, "group_size": group_size}
        return type(self)(**{**settings, **self.options, **grid})

    def extra_repr(self) -> str:
        """The settings, and the options that are not as usual, for `print(model)`."""
        settings = {name: getattr(self, name) for name in self._settings}
        usual = {name: value for name, value in self.options.items() if value != _DEFAULTS.get(name)}
        return ", ".join(f"{name}={value!r}" for name, value in {**settings, **usual}.items())

    def _observe(self, x: Tensor, min_val: Tensor, max_val: Tensor, histogram: Tensor | None) -> None:
        skip = self.options["non_finite"] == "skip"
        if histogram is not None:
            _observe_histogram(x, histogram, min_val, max_val, self.axis, self.group_size, skip)
        else:
            _observe_range(
                x, min_val, max_val, self.axis, self.group_size, self.averaging_constant, self._keeps_extremes(), skip
            )

    def _keeps_extremes(self) -> bool:
        return True

    def _unseen(self, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor | None]:
        counts = None if self.histogram is None else self.histogram.new_zeros(*shape, self.histogram.shape[-1])
        return self.min_val.new_full(shape, math.inf), self.max_val.new_full(shape, -math.inf), counts

    def _state_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        assert self.axis is not None
        if not -x.dim() <= self.axis < x.dim():
            return self.min_val, self.max_val, self.histogram  # the operator says what is wrong
        shape = list(x.shape) if self.group_size is not None else [x.shape[self.axis]]
        if self.group_size is not None:
            shape[self.axis] //= self.group_size
        return self._unseen(torch.Size(shape))

    def _shapes_in(self, file: dict[str, torch.Size]) -> dict[str, torch.Size]:
        if self.axis is None:
            return {}
        shapes = shared_shape(file, ("min_val", "max_val"), dims=1 if self.group_size is None else None)
        if shapes and self.histogram is not None:
            shapes["histogram"] = torch.Size([*shapes["min_val"], self.histogram.shape[-1]])
        return shapes


class MinMaxObserver(Observer):
    """The range holds everything that was seen: it only widens.

    Args:
        options: see `Observer`.

    Example:
        >>> observer = MinMaxObserver()
        >>> _ = observer(torch.tensor([-1.0, 0.5])), observer(torch.tensor([1.55]))
        >>> observer.calculate_qparams()
        (tensor(0.0100), tensor(-28, dtype=torch.int32))
    """

    def __init__(self, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options)


class MovingAverageObserver(Observer):
    """The range goes a part of the way to what it sees: r + averaging_constant·(seen − r); the first range sets it.

    Args:
        averaging_constant: how far, in (0, 1]. 0.1 follows the activations as fast as the running statistics of a batch
            norm do; with 0.01, torch.ao's default, the first hundred steps clip what grows beyond the range.
        options: see `Observer`.
    """

    _settings = ("averaging_constant",)

    def __init__(self, averaging_constant: float = 0.1, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options, averaging_constant=averaging_constant)

    def _keeps_extremes(self) -> bool:
        return False


class HistogramObserver(Observer):
    """A histogram of everything that was seen, and torch.ao's search for the least squared error.

    From the whole range on, it drops 1e-5 of the values at a time, on the side where that drops more bins, until the
    squared error of quantising grows. `MseObserver` finds the least error of the grid itself.

    Args:
        bins: of the histogram, 2 to 2^20. Bins are a power of two wide and merge, two into one, where the range grows.
        options: see `Observer`.

    Example:
        >>> observer = HistogramObserver()
        >>> _ = observer(torch.cat([torch.linspace(-1, 1, 100000), torch.tensor([10.0])]))
        >>> observer.max_val, observer.calculate_range()[1] < 1.1
        (tensor(10.), tensor(True))
    """

    _settings = ("bins",)

    def __init__(self, bins: int = 2048, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options, bins=bins)

    def calculate_range(self) -> tuple[Tensor, Tensor]:
        """Returns the range that the search ends with."""
        levels = self.quant_max - self.quant_min + 1
        low, high = _l2_range(self.histogram, self.min_val, self.max_val, levels)
        return low, high


class PercentileObserver(Observer):
    """A histogram of everything that was seen, without its outermost values.

    Args:
        percentile: the share of the values below the upper limit, and above the lower one; in (50, 100].
        bins: of the histogram, 2 to 2^20; a limit is known to a bin.
        options: see `Observer`.
    """

    _settings = ("percentile", "bins")

    def __init__(self, percentile: float = 99.99, *, bins: int = 2048, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options, bins=bins, percentile=percentile)

    def calculate_range(self) -> tuple[Tensor, Tensor]:
        """Returns the two percentiles."""
        low, high = _percentile_range(self.histogram, self.min_val, self.max_val, self.percentile)
        return low, high


class MseObserver(Observer):
    """A histogram of everything that was seen, and the grid with the least squared error.

    Both limits shrink by whole 1/256 parts of the range, first by 16 parts at a time, then by 4 and by 1 around the
    best.

    Args:
        bins: of the histogram, 2 to 2^20; values count as spread evenly over their bin.
        options: see `Observer`.
    """

    _settings = ("bins",)

    def __init__(self, bins: int = 2048, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options, bins=bins)

    def calculate_range(self) -> tuple[Tensor, Tensor]:
        """Returns the range of that grid."""
        state = (self.histogram, self.min_val, self.max_val)
        low, high = _mse_range(*state, self.quant_min, self.quant_max, self.symmetric)
        return low, high


class EntropyObserver(Observer):
    """A histogram of everything that was seen, and the range [-t, t] whose grid loses the least information.

    Args:
        bins: of the histogram, 2 to 2^20. Nothing is cut if |x| fills no more bins than the grid has steps.
        options: see `Observer`.
    """

    _settings = ("bins",)

    def __init__(self, bins: int = 2048, **options: Unpack[ObserverOptions]) -> None:
        """Starts with nothing seen."""
        super().__init__(options, bins=bins)

    def calculate_range(self) -> tuple[Tensor, Tensor]:
        """Returns [-t, t], within what was seen."""
        state = (self.histogram, self.min_val, self.max_val)
        low, high = _entropy_range(*state, self.quant_min, self.quant_max, self.symmetric)
        return low, high


_BY_NAME: dict[str, Callable[[], Observer]] = {
    "moving_average": MovingAverageObserver,
    "min_max": MinMaxObserver,
    "histogram": HistogramObserver,
    "percentile": PercentileObserver,
    "mse": MseObserver,
    "entropy": EntropyObserver,
}


def as_observer(observer: str | Observer) -> Observer:
    """Returns `observer`, or the one of that name with its defaults.

    Raises:
        ValueError: no observer has that name.
        TypeError: it is neither a name nor an observer.
    """
    if isinstance(observer, Observer):
        return observer
    if not isinstance(observer, str):
        raise TypeError(f"FakeQuantize: observer must be a name or an observer, got {observer!r}")
    if observer not in _BY_NAME:
        raise ValueError(f"FakeQuantize: observer must be one of {', '.join(_BY_NAME)}, got {observer!r}")
    return _BY_NAME[observer]()
