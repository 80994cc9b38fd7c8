# SPDX-License-Identifier: BSD-3-Clause
"""How the range of a quantiser follows what it sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MovingAverageObserver:
    """The range goes a part of the way to what it sees: r + averaging_constant·(seen − r); the first range sets it.

    Args:
        averaging_constant: how far, in (0, 1]. 0.1 follows the activations as fast as the running statistics of a batch
            norm do; with 0.01, torch.ao's default, the first hundred steps clip what grows beyond the range.

    Raises:
        ValueError: averaging_constant is not in (0, 1].
    """

    averaging_constant: float = 0.1

    def __post_init__(self) -> None:
        """Checks the constant."""
        if not 0 < self.averaging_constant <= 1:
            raise ValueError(
                f"MovingAverageObserver: averaging_constant must be in (0, 1], got {self.averaging_constant}"
            )


@dataclass(frozen=True)
class MinMaxObserver:
    """The range holds everything that was seen: it only widens."""


Observer = MovingAverageObserver | MinMaxObserver

_BY_NAME: dict[str, type[MovingAverageObserver] | type[MinMaxObserver]] = {
    "moving_average": MovingAverageObserver,
    "min_max": MinMaxObserver,
}


def as_observer(observer: str | Observer) -> Observer:
    """Returns `observer`, or the one of that name with its defaults.

    Raises:
        ValueError: no observer has that name.
        TypeError: it is neither a name nor an observer.
    """
    if isinstance(observer, MovingAverageObserver | MinMaxObserver):
        return observer
    if not isinstance(observer, str):
        raise TypeError(f"FakeQuantize: observer must be a name or an observer, got {observer!r}")
    if observer not in _BY_NAME:
        raise ValueError(f"FakeQuantize: observer must be one of {', '.join(_BY_NAME)}, got {observer!r}")
    return _BY_NAME[observer]()
