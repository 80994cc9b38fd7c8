# SPDX-License-Identifier: BSD-3-Clause
"""Knowledge distillation and cross-entropy of one row of logits after another, in plain float64 loops."""

import math
from collections.abc import Sequence


def softmax(logits: Sequence[float], temperature: float) -> list[float]:
    largest = max(logits)
    exponentials = [math.exp((x - largest) / temperature) for x in logits]
    return [e / sum(exponentials) for e in exponentials]


def log_softmax(logits: Sequence[float], temperature: float) -> list[float]:
    largest = max(logits)
    log_sum = math.log(sum(math.exp((x - largest) / temperature) for x in logits))
    return [(x - largest) / temperature - log_sum for x in logits]


def kd_row(student: Sequence[float], teacher: Sequence[float], temperature: float) -> tuple[float, list[float]]:
    """T² · KL(p‖q) and its gradient T · (q − p)."""
    p, log_p = softmax(teacher, temperature), log_softmax(teacher, temperature)
    q, log_q = softmax(student, temperature), log_softmax(student, temperature)
    divergence = sum(p[i] * (log_p[i] - log_q[i]) for i in range(len(p)) if p[i] > 0)
    return temperature**2 * divergence, [temperature * (q[i] - p[i]) for i in range(len(p))]


def ce_row(student: Sequence[float], label: int, label_smoothing: float) -> tuple[float, list[float]]:
    """Cross-entropy with a smoothed label, and its gradient softmax − target."""
    classes = len(student)
    target = [label_smoothing / classes + (1 - label_smoothing) * (i == label) for i in range(classes)]
    q, log_q = softmax(student, 1.0), log_softmax(student, 1.0)
    loss = -sum(target[i] * log_q[i] for i in range(classes) if target[i] > 0)
    return loss, [q[i] - target[i] for i in range(classes)]


def kd_loss(
    student: Sequence[Sequence[float]],
    teacher: Sequence[Sequence[float]],
    temperature: float,
    reduction: str = "batchmean",
    mask: Sequence[bool] | None = None,
    weight: float = 1.0,
    target: Sequence[int] | None = None,
    ce_weight: float = 0.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[list[float], list[list[float]]]:
    """The losses (one, or one a row for `none`) and the gradient with respect to the student."""
    classes = len(student[0]) if student else 1
    losses: list[float] = []
    gradients: list[list[float]] = []
    kept = 0
    for row in range(len(student)):
        loss, gradient = 0.0, [0.0] * classes
        if (mask is None or mask[row]) and (target is None or target[row] != ignore_index):
            kept += 1
            kd, kd_gradient = kd_row(student[row], teacher[row], temperature)
            loss = weight * kd
            gradient = [weight * g for g in kd_gradient]
            if target is not None:
                ce, ce_gradient = ce_row(student[row], target[row], label_smoothing)
                loss += ce_weight * ce
                gradient = [g + ce_weight * h for g, h in zip(gradient, ce_gradient, strict=True)]
        losses.append(loss)
        gradients.append(gradient)
    divisor = {"none": 1, "sum": 1, "batchmean": max(kept, 1), "mean": max(kept, 1) * classes}[reduction]
    gradients = [[g / divisor for g in gradient] for gradient in gradients]
    return losses if reduction == "none" else [sum(losses) / divisor], gradients
