# SPDX-License-Identifier: BSD-3-Clause
"""Knowledge distillation: the student learns the teacher's softened probabilities."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["none", "sum", "mean", "batchmean"]


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    reduction: Reduction = "batchmean",
    mask: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """weight · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) over the last dimension (Hinton et al. 2015).

    Args:
        student_logits: `(..., C)`, at least 2 dimensions, float32, bfloat16, float16 or float64. −inf is probability 0.
        teacher_logits: the same shape; it gets no gradient.
        temperature: T > 0. T² keeps the size of the gradient when T changes.
        reduction: `batchmean` (sum / kept rows, whatever comes before the last dimension), `mean` (sum / kept
            elements), `sum`, or `none` (one loss per row).
        mask: bool, the logits' shape without C; true keeps the row. Nothing kept gives 0 and a gradient of zeros.
        weight: a factor of the loss and its gradient.

    Returns:
        float32 (float64 for float64 logits), whatever the logits' type. The gradient is exact, costs no pass of its
        own, and can be taken once: double backward is refused.

    Raises:
        ValueError: shapes that differ, a temperature that is not positive, an unknown reduction.
        TypeError: a dtype that is not a floating-point type, or a mask that is not bool.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
        >>> round(kd_loss(student, teacher, temperature=2.0).item(), 4)
        0.361
    """
    loss: Tensor = torch.ops.torchslim.kd_loss(student_logits, teacher_logits, temperature, reduction, mask, weight)
    return loss


class KDLoss(nn.Module):
    """ce_weight · CE(student, target) + kd_weight · T² · KL(teacher ‖ student), both over the same rows, in one op.

    Args:
        temperature: softens both distributions of the second term; > 0.
        ce_weight: factor of the cross-entropy with the labels; ≥ 0.
        kd_weight: factor of the distillation term; ≥ 0.
        ignore_index: rows with this label count in neither term.
        label_smoothing: share of the label that is spread evenly over all classes in the cross-entropy; in [0, 1).
        reduction: `batchmean` (mean over the rows kept), `sum` or `none`.

    Raises:
        ValueError: an option out of its range.

    Example:
        >>> loss = KDLoss(temperature=4.0, ce_weight=0.1, kd_weight=0.9)
        >>> student, teacher = torch.zeros(2, 3), torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
        >>> round(loss(student, teacher, torch.tensor([0, 1])).item(), 4)
        1.1055
    """

    def __init__(
        self,
        temperature: float = 4.0,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Literal["none", "sum", "batchmean"] = "batchmean",
    ) -> None:
        """Checks the options."""
        super().__init__()
        _check("temperature", temperature, temperature > 0.0, "> 0 and finite")
        _check("ce_weight", ce_weight, ce_weight >= 0.0, ">= 0 and finite")
        _check("kd_weight", kd_weight, kd_weight >= 0.0, ">= 0 and finite")
        _check("label_smoothing", label_smoothing, 0.0 <= label_smoothing < 1.0, "in [0, 1)")
        if reduction not in ("none", "sum", "batchmean"):
            raise ValueError(
                f"torchslim.distill.KDLoss: reduction must be `none`, `sum` or `batchmean`, got `{reduction}`"
            )
        self.temperature = temperature
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of logits `(..., C)` and int64 labels `(...)`; the teacher gets no gradient."""
        loss: Tensor = torch.ops.torchslim.kd_loss(
            student_logits,
            teacher_logits,
            self.temperature,
            self.reduction,
            None,
            self.kd_weight,
            target,
            self.ce_weight,
            self.ignore_index,
            self.label_smoothing,
        )
        return loss

    def extra_repr(self) -> str:
        """The options, as the constructor takes them."""
        return (
            f"temperature={self.temperature}, ce_weight={self.ce_weight}, kd_weight={self.kd_weight}, "
            f"ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}, "
            f"reduction='{self.reduction}'"
        )


def _check(name: str, value: float, allowed: bool, range_: str) -> None:
    if not (allowed and math.isfinite(value)):
        raise ValueError(f"torchslim.distill.KDLoss: {name} must be {range_}, got {value}")
