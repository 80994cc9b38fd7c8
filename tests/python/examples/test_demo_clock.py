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


def simulate(factor: float, slow_from: int | None = None) -> tuple[Clock, list[Stage]]:
    """5 + 10 epochs of 100 steps of 0.1 and 0.05 s, 5 s of pauses, 20 s of rest: 125 s at factor 1; 150 allowed."""
    machine = Machine(factor if slow_from is None else 1.0)
    stages = [Stage("teacher", 5, 100, 0.1), Stage("students", 10, 100, 0.05)]
    clock = Clock(150.0, stages, rest_seconds=20.0, now=machine.now)
    clock.start()
    steps = 0
    for stage in stages:
        clock.begin(stage)
        while not stage.finished:
            stage.advance()
            steps += 1
            if steps == slow_from:
                machine.factor = factor
            machine.spend(stage.step_seconds)
            clock.tick(stage)
            if stage.done % 100 == 0:
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
    clock, _ = simulate(2.5, slow_from)
    assert clock.used() <= 150 * 1.15


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
