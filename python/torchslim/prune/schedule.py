# SPDX-License-Identifier: BSD-3-Clause
"""Schedules: the share of weights that shall be zero at a training step."""

from collections.abc import Callable
from dataclasses import dataclass

from torchslim import _C

#: What a pruner takes: a function of the number of optimiser steps taken that returns the sparsity to have then.
Schedule = Callable[[int], float]


def polynomial_schedule(
    step: int,
    begin_step: int,
    end_step: int,
    initial_sparsity: float,
    final_sparsity: float,
    power: float = 3.0,
) -> float:
    """Returns a sparsity that rises fast early and is flat at the end (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1).

    s(t) = s_f + (s_i − s_f)·(1 − (t − t_0)/(t_n − t_0))^power, with t clamped to [t_0, t_n].

    Args:
        step: t ≥ 0.
        begin_step: t_0 ≥ 0; until then the result is `initial_sparsity`.
        end_step: t_n ≥ t_0; from then on the result is `final_sparsity` exactly.
        initial_sparsity: s_i in [0, 1].
        final_sparsity: s_f in [s_i, 1].
        power: > 0; 3 is the paper's cubic.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> [round(polynomial_schedule(step, 0, 4, 0.0, 0.5), 4) for step in range(6)]
        [0.0, 0.2891, 0.4375, 0.4922, 0.5, 0.5]
    """
    return float(_C.prune.polynomial_schedule(step, begin_step, end_step, initial_sparsity, final_sparsity, power))


def constant_schedule(step: int, sparsity: float) -> float:
    """Returns `sparsity`, in [0, 1], at every `step` ≥ 0: sparse from the first step on.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(_C.prune.constant_schedule(step, sparsity))


def one_shot_schedule(step: int, at_step: int, sparsity: float) -> float:
    """Returns 0 before `at_step` ≥ 0 and `sparsity`, in [0, 1], from it on: all is pruned at once.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(_C.prune.one_shot_schedule(step, at_step, sparsity))


@dataclass(frozen=True)
class PolynomialSchedule:
    """A `polynomial_schedule` that a pruner can hold: called with a step, it returns the sparsity to have then.

    It is 0 before `begin_step`; from there to `end_step` it moves only every `frequency` steps; at `end_step` it is
    `final_sparsity`, whether or not `frequency` divides the way there.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> schedule = PolynomialSchedule(begin_step=10, end_step=15, final_sparsity=0.5, frequency=2)
        >>> [round(schedule(step), 3) for step in range(9, 17)]
        [0.0, 0.0, 0.0, 0.392, 0.392, 0.496, 0.5, 0.5]
    """

    begin_step: int
    end_step: int
    final_sparsity: float
    initial_sparsity: float = 0.0
    power: float = 3.0
    frequency: int = 1

    def __post_init__(self) -> None:
        """Checks the arguments, so that a bad schedule fails before training."""
        self._schedule()

    def __call__(self, step: int) -> float:
        """Returns the sparsity to have after `step` optimiser steps."""
        return float(self._schedule()(step))

    def _schedule(self) -> Schedule:
        schedule: Schedule = _C.prune.PolynomialSchedule(
            self.begin_step, self.end_step, self.final_sparsity, self.initial_sparsity, self.power, self.frequency
        )
        return schedule


@dataclass(frozen=True)
class ConstantSchedule:
    """`sparsity`, in [0, 1], at every step.

    Raises:
        ValueError: the sparsity is out of its range.
    """

    sparsity: float

    def __post_init__(self) -> None:
        """Checks the argument."""
        self(0)

    def __call__(self, step: int) -> float:
        """Returns the sparsity."""
        return constant_schedule(step, self.sparsity)


@dataclass(frozen=True)
class OneShotSchedule:
    """0 before `at_step`, `sparsity` from it on.

    Raises:
        ValueError: an argument is out of its range.
    """

    at_step: int
    sparsity: float

    def __post_init__(self) -> None:
        """Checks the arguments."""
        self(0)

    def __call__(self, step: int) -> float:
        """Returns the sparsity to have after `step` optimiser steps."""
        return one_shot_schedule(step, self.at_step, self.sparsity)
