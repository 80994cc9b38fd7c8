# SPDX-License-Identifier: BSD-3-Clause
"""The clock keeps the run inside its minutes on a machine of any speed."""

import pytest
from demo_job import TINY  # noqa: F401 (puts the examples on the path)

from fashion_mnist.clock import Clock, Stage, minutes


class Machine:
    """A clock that the steps move: each step of each stage takes `step_seconds`, each rest `rest_seconds`."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def spend(self, seconds: float) -> None:
        self.time += seconds * self.factor


def simulate(factor: float, slow: range | None = None, steps: int = 100) -> tuple[Clock, list[Stage]]:
    """5 + 10 epochs of 10 and 5 s, 5 s of pauses, 20 s of rest: 125 s at factor 1; 150 allowed.

    An epoch has `steps` steps. If `slow` is given, the machine has its factor in those steps only, and 1 elsewhere.
    """
    machine = Machine(factor)
    stages = [Stage("teacher", 5, steps, 10 / steps), Stage("students", 10, steps, 5 / steps)]
    clock = Clock(150.0, stages, rest_seconds=20.0, now=machine.now)
    clock.start()
    made = 0
    for stage in stages:
        clock.begin(stage)
        while not stage.finished:
            stage.advance()
            made += 1
            machine.factor = factor if slow is None or made in slow else 1.0
            machine.spend(stage.step_seconds)
            clock.tick(stage)
            if stage.done % steps == 0:
                machine.spend(1 / 3)
                clock.pause(stage, machine.factor / 3)
    machine.spend(20.0)
    return clock, stages


def test_quick_machine_trains_everything() -> None:
    clock, stages = simulate(1.0)
    assert clock.epochs_dropped == 0
    assert [stage.done for stage in stages] == [500, 1000]
    assert clock.used() == pytest.approx(125.0)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 4.0])
def test_slow_machine_drops_whole_epochs_of_both_stages_and_keeps_the_minutes(factor: float) -> None:
    clock, stages = simulate(factor)
    teacher, students = (stage.done / 100 for stage in stages)
    assert teacher == int(teacher) and students == int(students)
    assert clock.epochs_dropped == 15 - teacher - students > 0
    assert abs(teacher / 5 - students / 10) < 0.25
    assert 100 < clock.used() <= 150


@pytest.mark.parametrize("factor", [5.0, 6.5])
def test_hopelessly_slow_machine_drops_steps_too(factor: float) -> None:
    clock, stages = simulate(factor)
    assert all(0 < stage.done <= 200 for stage in stages)
    assert clock.used() <= 150 * 1.1


@pytest.mark.parametrize("slow_from", [120, 480, 900, 1300])
def test_machine_that_becomes_slow_on_the_way_still_keeps_the_minutes(slow_from: int) -> None:
    clock, _ = simulate(2.5, range(slow_from, 10_000))
    assert clock.used() <= 150 * 1.15


@pytest.mark.parametrize("begin", [1, 150, 2600])
def test_burst_of_other_work_costs_no_epochs_that_there_is_time_for(begin: int) -> None:
    clock, _ = simulate(4.0, range(begin, begin + 150), steps=400)
    assert clock.epochs_dropped <= 1
    assert clock.used() <= 150


@pytest.mark.parametrize("factor", [1.0, 2.0, 6.5])
def test_progress_ends_at_one_whatever_was_dropped(factor: float) -> None:
    for stage in simulate(factor)[1]:
        assert stage.progress == pytest.approx(1.0)


def test_progress_is_even_without_drops() -> None:
    stage = Stage("teacher", 2, 50, 0.1)
    middles = [stage.advance() for _ in range(100)]
    assert middles == pytest.approx([(step + 0.5) / 100 for step in range(100)])


def test_minutes_are_rounded_to_seconds() -> None:
    assert [minutes(s) for s in (0, 59.4, 59.6, 725, -3)] == ["0:00", "0:59", "1:00", "12:05", "0:00"]
