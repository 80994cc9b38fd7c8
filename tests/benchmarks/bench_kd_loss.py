# SPDX-License-Identifier: BSD-3-Clause
"""Knowledge distillation, forward and backward, against the chain of torch's functions that computes the same."""

import torch
import torch.nn.functional as F
from harness import Case
from torch import Tensor

import torchslim as ts

TEMPERATURE = 4.0


def chain(student: Tensor, teacher: Tensor) -> Tensor:
    """What `kd_loss` computes, as PyTorch's documentation writes it."""
    log_q = F.log_softmax(student / TEMPERATURE, dim=-1)
    p = F.softmax(teacher / TEMPERATURE, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * TEMPERATURE**2


def forward_backward(loss: Tensor, student: Tensor) -> Tensor:
    """The gradient with respect to the student, fresh each time as after `zero_grad(set_to_none=True)`."""
    return torch.autograd.grad(loss, student)[0]


def kd_case(rows: int, classes: int, least_ratio: float) -> Case:
    """The loss alone."""
    student, teacher = torch.randn(rows, classes, requires_grad=True), torch.randn(rows, classes)
    return Case(
        name="kd_loss, forward + backward",
        ours=lambda: forward_backward(ts.distill.kd_loss(student, teacher, TEMPERATURE), student),
        peer_name="F.kl_div chain",
        peer=lambda: forward_backward(chain(student, teacher), student),
        clone=student.detach().clone,
        shape=f"{rows} x {classes:,}",
        least_ratio_to_peer=least_ratio,
    )


def labelled_case(rows: int, classes: int) -> Case:
    """With the cross-entropy, as a training loop uses it."""
    student, teacher = torch.randn(rows, classes, requires_grad=True), torch.randn(rows, classes)
    target = torch.randint(classes, (rows,))
    loss = ts.distill.KDLoss(TEMPERATURE, ce_weight=0.1, kd_weight=0.9)
    return Case(
        name="KDLoss, forward + backward",
        ours=lambda: forward_backward(loss(student, teacher, target), student),
        peer_name="F.kl_div chain + F.cross_entropy",
        peer=lambda: forward_backward(0.1 * F.cross_entropy(student, target) + 0.9 * chain(student, teacher), student),
        clone=student.detach().clone,
        shape=f"{rows} x {classes:,}",
    )


def cases(threads: int) -> list[Case]:
    """From an image classifier's batch to a language model's."""
    torch.manual_seed(0)
    return [
        kd_case(64, 100, 1.5),
        kd_case(128, 32_000, 6.0),
        kd_case(512, 128_000, 8.0),
        labelled_case(128, 10),
        labelled_case(128, 32_000),
    ]
