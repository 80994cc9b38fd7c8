# SPDX-License-Identifier: BSD-3-Clause
"""Fits the training into the minutes allowed: measures the steps, and drops epochs if the machine is too slow."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_WARM_UP = 5  # steps at the start of a stage that are not timed: memory and kernels are being set up
_LOOK_EVERY = 25  # steps between two looks at the clock


@dataclass
class Stage:
    """Some epochs of training. `progress` runs from 0 to 1 whatever the clock does to `total`: schedules follow it."""

    name: str
    epochs: int  #: wanted
    steps_per_epoch: int
    step_seconds: float  #: on two idle cores, until this machine has been timed
    pause_seconds: float = 0.0  #: after each epoch: test and checkpoint
    total: int = 0  #: steps planned
    done: int = 0  #: steps made
    progress: float = 0.0

    def __post_init__(self) -> None:
        """Plans all epochs."""
        self.total = self.total or self.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """True once all planned steps are made."""
        return self.done >= self.total

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 1."""
        return self.done // self.steps_per_epoch + 1

    @property
    def epochs_planned(self) -> int:
        """Epochs planned; one that the clock cuts short counts as one."""
        return math.ceil(self.total / self.steps_per_epoch)

    def advance(self) -> float:
        """Counts one step and returns the progress in its middle, for the learning rate."""
        before = self.progress
        self.progress += (1.0 - before) / max(self.total - self.done, 1)
        self.done += 1
        return (before + self.progress) / 2

    def seconds_left(self) -> float:
        """What is still to be done, in seconds of the machine that `step_seconds` speaks of."""
        steps = max(self.total - self.done, 0)
        return steps * self.step_seconds + math.ceil(steps / self.steps_per_epoch) * self.pause_seconds


class Clock:
    """Counts from the first training step to the report, and keeps the stages inside `budget_seconds`."""

    def __init__(
        self,
        budget_seconds: float,
        stages: list[Stage],
        rest_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rest_seconds` is all that is not training, on two idle cores; `now` gives seconds from any origin."""
        self.budget_seconds = budget_seconds
        self.stages = stages
        self.rest_seconds = rest_seconds
        self.slowdown = 1.0  #: this machine against two idle cores; known once the first steps are timed
        self.timed = False
        self._now = now
        self._start = now()
        self._stage_begin = 0  # first step of this process in the stage that runs
        self._look: tuple[int, float] | None = None  # step and time of the last look at the clock

    def start(self, seconds_before: float = 0.0) -> None:
        """Starts counting; `seconds_before` were used before an interruption."""
        self._start = self._now() - seconds_before

    def used(self) -> float:
        """Seconds since the first training step."""
        return self._now() - self._start

    def left(self) -> float:
        """Estimated seconds from now to the report."""
        return self._training_left() + self._rest_left()

    @property
    def epochs_dropped(self) -> int:
        """Epochs that were wanted and will not be trained, over all stages; a part counts as one."""
        return sum(stage.epochs - stage.total // stage.steps_per_epoch for stage in self.stages)

    def begin(self, stage: Stage) -> None:
        """Begins or takes up `stage`."""
        self._stage_begin, self._look = stage.done, None

    def tick(self, stage: Stage) -> None:
        """After each step: times it and, where what is left no longer fits, drops epochs of this and later stages."""
        made = stage.done - self._stage_begin
        if made < _WARM_UP or (made - _WARM_UP) % _LOOK_EVERY:
            return
        now = self._now()
        if self._look is not None and stage.done > self._look[0]:
            self._measured(stage, (now - self._look[1]) / (stage.done - self._look[0]))
            self._fit()
        self._look = (stage.done, now)

    def pause(self, stage: Stage, seconds: float) -> None:
        """After each epoch: the test and the checkpoint took `seconds`, which are no steps."""
        stage.pause_seconds = seconds / self.slowdown
        if self._look is not None:
            self._look = (self._look[0], self._look[1] + seconds)
        self._fit()

    def _measured(self, stage: Stage, seconds: float) -> None:
        """The first time counts as it is, later ones move an average: a burst of other work is not a slow machine."""
        ratio = seconds / stage.step_seconds
        first = self._look is None or self._look[0] - self._stage_begin <= _WARM_UP
        self.slowdown = ratio if first or not self.timed else (self.slowdown + ratio) / 2
        self.timed = True

    def _rest_left(self) -> float:
        return self.rest_seconds * self.slowdown

    def _training_left(self) -> float:
        return self.slowdown * sum(stage.seconds_left() for stage in self.stages)

    def _fit(self) -> None:
        """Drops what no longer fits into the time left; takes epochs back where a tenth of it would still be spare."""
        if not self.timed:
            return
        allowed = self.budget_seconds - self.used()
        if self.left() > allowed:
            self._drop(allowed)
        elif self.epochs_dropped:
            self._take_back(0.9 * allowed)

    def _drop(self, allowed: float) -> None:
        """Drops epochs from the stage that keeps most of what it wanted and, at one epoch each, single steps."""
        while self.left() > allowed:
            stages = [stage for stage in self.stages if _can_drop(stage)]
            if not stages:
                break
            stage = max(stages, key=_share_kept)
            stage.total = (stage.epochs_planned - 1) * stage.steps_per_epoch
        if self.left() > allowed:
            share = max(allowed - self._rest_left(), 0.0) / max(self._training_left(), 1e-9)
            for stage in self.stages:
                if not stage.finished:
                    stage.total = stage.done + max(int((stage.total - stage.done) * share), 1)

    def _take_back(self, allowed: float) -> None:
        """Gives epochs back, first to the stage that keeps least: the machine was busy and is no longer."""
        while stages := [s for s in self.stages if not s.finished and s.total < s.epochs * s.steps_per_epoch]:
            stage = min(stages, key=_share_kept)
            before = stage.total
            stage.total = (before // stage.steps_per_epoch + 1) * stage.steps_per_epoch
            if self.left() > allowed:
                stage.total = before
                break


def _share_kept(stage: Stage) -> float:
    return stage.total / (stage.epochs * stage.steps_per_epoch)


def _can_drop(stage: Stage) -> bool:
    """True if a whole epoch can go and what was begun, or one epoch at least, stays."""
    begun = math.ceil(stage.done / stage.steps_per_epoch)
    return stage.epochs_planned > max(begun, 1)


def minutes(seconds: float) -> str:
    """`m:ss`."""
    whole = max(int(seconds + 0.5), 0)
    return f"{whole // 60}:{whole % 60:02d}"
