# SPDX-License-Identifier: BSD-3-Clause
"""Shows the training: bars on a terminal, one line an epoch everywhere else."""

import sys
from typing import TextIO

from fashion_mnist.clock import Clock, Stage, minutes

Rows = dict[str, dict[str, float]]  # name of the network -> its last row of history


class Watch:
    """One line an epoch; also what the bars build on."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        """Writes to `stream`."""
        self.stream = stream
        self._told_speed = False
        self._dropped = 0

    def say(self, text: str) -> None:
        """Prints one line, above the bars if there are any."""
        print(text, file=self.stream, flush=True)

    def begin(self, stage: Stage) -> None:
        """A stage begins or is taken up."""

    def step(self, stage: Stage, clock: Clock, rows: Rows) -> None:
        """One step was made; `rows` hold the loss so far, and what the last epoch's test said."""
        if clock.timed and not self._told_speed:
            self._told_speed = True
            self._tell_speed(stage, clock)
        self._tell_plan(clock)

    def epoch(self, stage: Stage, clock: Clock, epoch: int, rows: Rows) -> None:
        """An epoch ended and was tested."""
        self._tell_plan(clock)
        head = f"{stage.name:8} {epoch:2}/{stage.epochs_planned:<2}"
        numbers = " | ".join(f"{name}: {row_text(row)}" for name, row in rows.items())
        self.say(f"{head} {numbers} | {minutes(clock.used())} gone, {minutes(clock.left())} to go")

    def close(self) -> None:
        """Takes the bars away."""

    def _tell_plan(self, clock: Clock) -> None:
        """Says what is trained of what was wanted, whenever that changes."""
        if clock.epochs_dropped != self._dropped:
            reason = "Too slow for" if clock.epochs_dropped > self._dropped else "Time to spare before"
            self._dropped = clock.epochs_dropped
            self.say(f"{reason} {minutes(clock.budget_seconds)}: {plan(clock)}.")

    def _tell_speed(self, stage: Stage, clock: Clock) -> None:
        milliseconds = 1000 * stage.step_seconds * clock.slowdown
        total = clock.used() + clock.left()
        slow = f", {clock.slowdown:.1f} times slower than two idle cores" if clock.slowdown > 1.2 else ""
        self.say(
            f"One step of the {stage.name} takes {milliseconds:.0f} ms{slow}: about {minutes(total)} to the report."
        )


class Bars(Watch):
    """A bar for each stage, with losses and the time left; the lines of finished epochs stay above it."""

    def __init__(self) -> None:
        """Draws on the terminal with rich."""
        super().__init__()
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        self._bars = Progress(TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[state]}"))
        self._bars.start()
        self._task = TaskID(0)

    def say(self, text: str) -> None:
        """Prints above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, stage: Stage) -> None:
        """Adds the bar of this stage."""
        self._task = self._bars.add_task(stage.name, total=stage.total, completed=stage.done, state="")

    def step(self, stage: Stage, clock: Clock, rows: Rows) -> None:
        """Moves the bar."""
        super().step(stage, clock, rows)
        state = f"{min(stage.epoch, stage.epochs_planned)}/{stage.epochs_planned}"
        for name, form in (("loss", "{:.2f}"), ("accuracy", "{:.1f}"), ("sparsity", "{:.0%}")):
            values = [form.format(row[name]) for row in rows.values() if row.get(name)]
            state += f" {name} {' '.join(values)}" if values else ""
        state += f" {minutes(clock.used())} gone, {minutes(clock.left()) if clock.timed else '?'} to go"
        self._bars.update(self._task, total=stage.total, completed=stage.done, state=state)

    def close(self) -> None:
        """Leaves the finished bars on the screen."""
        self._bars.stop()


def watch() -> Watch:
    """Bars if there is a terminal to draw on (and rich to draw with), plain lines otherwise."""
    if not sys.stdout.isatty():
        return Watch()
    try:
        return Bars()
    except ImportError:
        return Watch()


def plan(clock: Clock) -> str:
    """What is trained of what was wanted, such as "teacher 3 of 5 epochs, students 7 of 10"."""
    return ", ".join(
        f"{stage.name} {_epochs(stage.total / stage.steps_per_epoch)} of {stage.epochs} epochs"
        for stage in clock.stages
    )


def row_text(row: dict[str, float]) -> str:
    """Loss, test accuracy and, where there is pruning, sparsity."""
    text = f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.2f} %"
    return text + (f", {100 * row['sparsity']:.1f} % zeros" if row["sparsity"] else "")


def _epochs(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
