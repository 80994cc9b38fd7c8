# SPDX-License-Identifier: BSD-3-Clause
"""Saves a run after each epoch and takes it up again, bit for bit. It loads only tensors, numbers and strings."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from fashion_mnist.clock import Clock, minutes
from fashion_mnist.progress import Watch
from fashion_mnist.train import Trainee

State = dict[str, Any]


class RunFile:
    """The checkpoint of one run, in one file that is always whole.

    Args:
        path: the file.
        identity: what makes a run this run and no other: arguments and versions. Another run's file is not taken up.
    """

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        """Touches nothing yet."""
        self.path = path
        self.identity = identity

    def resume(self, clock: Clock, generator: torch.Generator, trainees: list[Trainee], display: Watch) -> None:
        """Takes up an interrupted run, if there is one with this identity, and starts the clock."""
        state, reason = self._load()
        if reason:
            display.say(reason)
        if state is None:
            clock.start()
            return
        _restore(state, clock, generator, trainees)
        clock.start(state["seconds"])
        done = ", ".join(f"{s.name} {s.done // s.steps_per_epoch}/{s.epochs_planned}" for s in clock.stages)
        display.say(f"Going on from {self.path}: {done} epochs done in {minutes(state['seconds'])}.")

    def save(self, clock: Clock, generator: torch.Generator, trainees: list[Trainee]) -> None:
        """Writes everything that the rest of the run depends on."""
        content = io.BytesIO()
        torch.save({"identity": self.identity, **_capture(clock, generator, trainees)}, content)
        write_whole(self.path, content.getvalue())

    def remove(self) -> None:
        """Called when the run is finished: the next one starts anew."""
        self.path.unlink(missing_ok=True)

    def _load(self) -> tuple[State | None, str]:
        """The state in the file, or None and the reason, if there is anything to say."""
        if not self.path.is_file():
            return None, ""
        try:
            state: State = torch.load(self.path, weights_only=True)
            saved: dict[str, str] = state["identity"]
        except Exception as error:  # whatever lies there is no checkpoint of ours; the new run replaces it
            return None, f"{self.path} cannot be read ({type(error).__name__}): starting anew."
        changed = [name for name, value in self.identity.items() if saved.get(name) != value]
        if changed:
            return None, f"{self.path} is of a run with another {', '.join(changed)}: starting anew."
        return state, ""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that `path` holds either the old or the new content, whole, whenever the run is cut."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; what was there before is whole", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _capture(clock: Clock, generator: torch.Generator, trainees: list[Trainee]) -> State:
    return {
        "seconds": clock.used(),
        "slowdown": clock.slowdown,
        "stages": [
            {"total": s.total, "done": s.done, "progress": s.progress, "pause_seconds": s.pause_seconds}
            for s in clock.stages
        ],
        "batches": generator.get_state(),
        "random": torch.get_rng_state(),
        "trainees": {trainee.name: _capture_trainee(trainee) for trainee in trainees},
    }


def _capture_trainee(trainee: Trainee) -> State:
    return {
        "model": trainee.model.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "pruner": None if trainee.pruner is None else trainee.pruner.state_dict(),
        "history": trainee.history,
    }


def _restore(state: State, clock: Clock, generator: torch.Generator, trainees: list[Trainee]) -> None:
    clock.slowdown = state["slowdown"]
    for stage, saved in zip(clock.stages, state["stages"], strict=True):
        for name, value in saved.items():
            setattr(stage, name, value)
    generator.set_state(state["batches"])
    torch.set_rng_state(state["random"])
    for trainee in trainees:
        saved = state["trainees"][trainee.name]
        trainee.model.load_state_dict(saved["model"])
        trainee.optimizer.load_state_dict(saved["optimizer"])
        if trainee.pruner is not None:
            trainee.pruner.load_state_dict(saved["pruner"])
        trainee.history[:] = saved["history"]
