# SPDX-License-Identifier: BSD-3-Clause
"""Trains small, compresses, exports and runs in integers: the main job, whole, on real data.

A ResNet teacher learns the 60,000 images of Fashion-MNIST. A MobileNet of 25,000 weights then learns from it while half
of its weights are pruned away and all of it is rounded to 8 bits, in one loop. Beside it, on the same batches, the same
student learns alone. The student is written as a PyTorch Mobile file, which runs in integers and is compared, output by
output, with the integer reference and with the model that was trained.

    python examples/110_distill_fashion_mnist.py            # 12 minutes on two cores
    python examples/110_distill_fashion_mnist.py --quick    # under 2: fewer images, fewer epochs, smaller networks
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin collapse on a busy machine

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torchslim as ts
from fashion_mnist import checkpoint, data, results
from fashion_mnist.clock import Clock, Stage
from fashion_mnist.progress import Watch, watch
from fashion_mnist.recipe import FULL, QUICK, Recipe
from fashion_mnist.train import Loop, Loss, Trainee, predict


def main(arguments: list[str] | None = None) -> int:
    """Runs the job and returns the exit code: 0, or 1 with what is wrong, or 130 if it was interrupted."""
    options = parse(arguments)
    recipe = QUICK if options.quick else FULL
    display = watch()
    try:
        report = run(recipe, options, display)
    except KeyboardInterrupt:
        display.say("Interrupted; no file is torn. The same command goes on after the last finished epoch.")
        return 130
    except (data.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        display.close()
    failures = results.failures(report, recipe)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def run(
    recipe: Recipe, options: argparse.Namespace, display: Watch, now: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Trains the teacher, then both students; writes the files, tests them and returns the report."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    train_images, test_images = data.load(options.data)
    train_images, test_images = train_images.first(recipe.train_images), test_images.first(recipe.test_images)

    steps = data.batches_per_epoch(train_images, recipe.batch)
    teaching = Stage("teacher", recipe.teacher_epochs, steps, recipe.teacher_step_seconds)
    learning = Stage("students", recipe.student_epochs, steps, recipe.student_step_seconds)
    clock = Clock(60 * options.minutes, [teaching, learning], recipe.rest_seconds, now)

    teacher = make_teacher(recipe)
    distillation = Distillation(recipe)
    distilled, alone = make_students(recipe, distillation, learning)
    generator = torch.Generator().manual_seed(options.seed)

    display.say(results.headline(recipe, len(train_images), teacher.model, alone.model, options.minutes))
    run_file = checkpoint.RunFile(options.out / "checkpoint.pt", identity(recipe, options))
    run_file.resume(clock, generator, [teacher, distilled, alone], display)
    loop = Loop(
        train_images, test_images, recipe.batch, generator, clock, display,
        save=lambda: run_file.save(clock, generator, [teacher, distilled, alone]),
    )  # fmt: skip
    loop.train(teaching, [teacher])
    distillation.teacher_logits = predict(teacher.model, train_images)
    loop.train(learning, [distilled, alone])

    display.say("Writing the files and running them on the test images ...")
    networks = results.Networks(
        teacher.model.eval(), distilled.model.eval(), in_float(distilled.model, recipe), alone.model.eval()
    )
    measured = results.measure(networks, options.out, test_images, recipe.latency_runs)
    report = results.complete(measured, recipe, clock, options.seed)
    history = {trainee.name: trainee.history for trainee in (teacher, distilled, alone)}
    table = results.write(options.out, report, measured, history, results.notes(recipe, clock))
    run_file.remove()
    display.say(f"\n{table}More in {options.out / 'report.html'}")
    return report


def make_teacher(recipe: Recipe) -> Trainee:
    """A residual network in float, trained by SGD."""
    model = ts.models.resnet(10, in_channels=1, **recipe.teacher).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return Trainee("teacher", model, optimizer, recipe.teacher_lr, label_loss(recipe))


def make_students(recipe: Recipe, distillation: "Distillation", stage: Stage) -> tuple[Trainee, Trainee]:
    """The same network twice, both pruned and quantisation-aware: one learns from the teacher, one alone."""
    model = ts.models.mobilenet_v1(10, in_channels=1, **recipe.student)
    return (
        make_student("distilled", copy.deepcopy(model), recipe, distillation, stage),
        make_student("alone", model, recipe, label_loss(recipe), stage),
    )


def make_student(name: str, model: nn.Module, recipe: Recipe, loss: Loss, stage: Stage) -> Trainee:
    """Makes `model` quantisation-aware and puts a pruner beside its optimiser."""
    model = ts.quant.prepare(model, results.EXAMPLE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.student_lr, weight_decay=0.02)

    def schedule(step: int) -> float:  # by the stage's progress, so that it ends in time even if the clock drops epochs
        begin, end = (int(1000 * part) for part in recipe.prune_between)
        return ts.prune.polynomial_schedule(int(1000 * stage.progress), begin, end, 0.0, recipe.sparsity)

    pruner = ts.prune.MagnitudePruner(model, schedule, optimizer)
    return Trainee(name, model, optimizer, recipe.student_lr, loss, pruner)


def label_loss(recipe: Recipe) -> Loss:
    """Cross entropy, for those who learn from the labels alone."""
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    return lambda logits, batch: loss(logits, batch.labels)


class Distillation:
    """The teacher's answers, computed once per image and not shifted, as targets beside the labels."""

    teacher_logits: Tensor  # (images, 10), once the teacher is trained

    def __init__(self, recipe: Recipe) -> None:
        """Takes temperature and weights from `recipe`."""
        self.loss = ts.distill.KDLoss(recipe.temperature, recipe.ce_weight, recipe.kd_weight)

    def __call__(self, logits: Tensor, batch: data.Batch) -> Tensor:
        """Cross entropy with the labels and divergence from the teacher."""
        loss: Tensor = self.loss(logits, self.teacher_logits[batch.index], batch.labels)
        return loss


def in_float(student: nn.Module, recipe: Recipe) -> nn.Module:
    """The plain network with the student's weights, nothing rounded: what `float` means in the table."""
    model = ts.models.mobilenet_v1(10, in_channels=1, **recipe.student)
    state = student.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model.eval()


def identity(recipe: Recipe, options: argparse.Namespace) -> dict[str, str]:
    """What a checkpoint must have in common with the run that takes it up."""
    arguments = {name: str(getattr(options, name)) for name in ("threads", "data", "seed", "minutes")}
    return {"recipe": repr(recipe), **arguments, **results.versions()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer images, smaller networks: under 2 minutes")
    parser.add_argument("--data", type=Path, default=data.default_directory(), help="folder of idx files (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder to write to (%(default)s)")
    parser.add_argument("--minutes", type=float, help="allowed from first step to report (12; 2 with --quick)")
    parser.add_argument("--threads", type=int, default=min(cores(), 4), help="of this machine (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and shifts (%(default)s)")
    options = parser.parse_args(arguments)
    options.minutes = options.minutes or (QUICK if options.quick else FULL).minutes
    if options.minutes <= 0 or options.threads < 1:
        parser.error(f"--minutes must be > 0 and --threads >= 1, got {options.minutes} and {options.threads}")
    return options


if __name__ == "__main__":
    sys.exit(main())
