# SPDX-License-Identifier: BSD-3-Clause
"""The loop: one or more networks trained on the same batches, each pruned and quantisation-aware if it was made so."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import torchslim as ts
from fashion_mnist import data
from fashion_mnist.clock import Clock, Stage
from fashion_mnist.progress import Watch

Loss = Callable[[Tensor, data.Batch], Tensor]  # (logits, batch) -> scalar

_TEST_BATCH = 500


@dataclass
class Trainee:
    """A network in training: what it is, how it learns, and how it went."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    peak_lr: float
    loss: Loss
    pruner: ts.prune.MagnitudePruner | None = None
    history: list[dict[str, float]] = field(default_factory=list)  #: one row an epoch: loss, accuracy, sparsity

    def step(self, batch: data.Batch, learning_rate: float) -> float:
        """One step on one batch; returns the loss. Float, quantised, pruned, distilled: it is the same five lines."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self.loss(self.model(batch.inputs), batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.pruner is not None:
            self.pruner.step()
        return loss.item()

    def end_epoch(self, epoch: int, loss: float, test_images: data.Images) -> None:
        """Tests the network and writes the epoch's row of the history."""
        if not math.isfinite(loss):
            raise FloatingPointError(f"{self.name}: the loss is {loss} in epoch {epoch}: lower its learning rate")
        percent = accuracy(predict(self.model, test_images), test_images)
        self.history.append({"epoch": epoch, "loss": loss, "accuracy": percent, "sparsity": self.sparsity()})

    def last_row(self) -> dict[str, float]:
        """What the last epoch's test said; empty before the first."""
        return self.history[-1] if self.history else {}

    def sparsity(self) -> float:
        """Share of the prunable weights that are zero."""
        return 0.0 if self.pruner is None else float(self.pruner.sparsity())


@dataclass
class Loop:
    """What all stages share."""

    train_images: data.Images
    test_images: data.Images
    batch_size: int
    generator: torch.Generator  #: draws the order and the shifts
    clock: Clock
    watch: Watch
    save: Callable[[], None]  #: writes a checkpoint

    def train(self, stage: Stage, trainees: list[Trainee]) -> None:
        """Trains all `trainees` side by side, on the same batches, to the end of `stage`; tests and saves each epoch.

        The accuracy of an epoch is for the curves only: nothing is chosen by it, and the last epoch is what counts.
        """
        self.clock.begin(stage)
        self.watch.begin(stage)
        while not stage.finished:
            epoch = stage.epoch
            losses = self._train_epoch(stage, trainees)
            paused = self.clock.used()
            for trainee, loss in zip(trainees, losses, strict=True):
                trainee.end_epoch(epoch, loss, self.test_images)
            self.save()
            self.clock.pause(stage, self.clock.used() - paused)
            self.watch.epoch(stage, self.clock, epoch, {trainee.name: trainee.last_row() for trainee in trainees})

    def _train_epoch(self, stage: Stage, trainees: list[Trainee]) -> list[float]:
        """One epoch, or what the clock leaves of it; returns the mean loss of each trainee."""
        sums, steps = [0.0] * len(trainees), 0
        for batch in data.batches(self.train_images, self.batch_size, self.generator):
            progress = stage.advance()
            for i, trainee in enumerate(trainees):
                sums[i] += trainee.step(batch, trainee.peak_lr * one_cycle(progress))
            steps += 1
            self.clock.tick(stage)
            rows = {t.name: {**t.last_row(), "loss": s / steps} for t, s in zip(trainees, sums, strict=True)}
            self.watch.step(stage, self.clock, rows)
            if stage.finished:
                break
        return [total / steps for total in sums]


def one_cycle(progress: float, warm_up: float = 0.2) -> float:
    """Learning rate as a part of its peak: linear from 0 to 1 over `warm_up`, then linear to 0 at the end."""
    return progress / warm_up if progress < warm_up else (1.0 - progress) / (1.0 - warm_up)


@torch.no_grad()
def predict(model: nn.Module, images: data.Images) -> Tensor:
    """Logits (N, 10) of all images in evaluation mode: quantisers frozen, batch norm folded."""
    was_training = model.training
    model.eval()
    logits = [model(images.inputs(i, i + _TEST_BATCH)) for i in range(0, len(images), _TEST_BATCH)]
    model.train(was_training)
    return torch.cat(logits)


def accuracy(logits: Tensor, images: data.Images) -> float:
    """Percent of images whose largest logit is the right one."""
    return 100.0 * (logits.argmax(1) == images.labels).double().mean().item()
