# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from torch import Tensor

import torchslim as ts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_logits": torch.zeros(3, 4)}, r"must have the same shape, got \[3, 5\] and \[3, 4\]"),
        ({"student_logits": torch.zeros(5), "teacher_logits": torch.zeros(5)}, r"got shape \[5\]"),
        ({"student_logits": torch.zeros(3, 0), "teacher_logits": torch.zeros(3, 0)}, r"must not be empty.*\[3, 0\]"),
        ({"temperature": 0.0}, "temperature must be > 0 and finite, got 0"),
        ({"temperature": -1.0}, "temperature must be > 0 and finite, got -1"),
        ({"temperature": math.inf}, "temperature must be > 0 and finite, got inf"),
        ({"temperature": math.nan}, "temperature must be > 0 and finite, got nan"),
        ({"weight": math.nan}, "weight must be finite, got nan"),
        ({"reduction": "average"}, "reduction must be `none`, `sum`, `mean` or `batchmean`, got `average`"),
        (
            {"mask": torch.ones(4, dtype=torch.bool)},
            r"mask must have the logits' shape without the classes, \[3\], got \[4\]",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(change: dict[str, object], message: str) -> None:
    arguments = {"student_logits": torch.zeros(3, 5), "teacher_logits": torch.zeros(3, 5), **change}
    with pytest.raises(ValueError, match=f"torchslim::kd_loss: .*{message}"):
        ts.distill.kd_loss(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_logits": torch.zeros(3, 5, dtype=torch.int64)}, "student_logits must be float32, .* got Long"),
        ({"teacher_logits": torch.zeros(3, 5, dtype=torch.int32)}, "teacher_logits must be float32, .* got Int"),
        (
            {"teacher_logits": torch.zeros(3, 5, dtype=torch.float64)},
            "both be float64 or neither, got Float and Double",
        ),
        ({"mask": torch.ones(3)}, "mask must be Bool, got Float"),
    ],
)
def test_a_wrong_type_is_refused_by_name(change: dict[str, object], message: str) -> None:
    arguments = {"student_logits": torch.zeros(3, 5), "teacher_logits": torch.zeros(3, 5), **change}
    with pytest.raises(TypeError, match=f"torchslim::kd_loss: .*{message}"):
        ts.distill.kd_loss(**arguments)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.tensor([0, 5, 1]), ValueError, r"target\[1\] \(flattened\) must be in \[0, 5\) or ignore_index, got 5"),
        (torch.tensor([0, 1, -3]), ValueError, r"target\[2\] .* got -3"),
        (torch.tensor([0, 1]), ValueError, r"target must have the logits' shape without the classes, \[3\], got \[2\]"),
        (torch.zeros(3), TypeError, "target must be Long, got Float"),
    ],
)
def test_wrong_labels_are_refused_by_name(target: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"torchslim::kd_loss: .*{message}"):
        ts.distill.KDLoss()(torch.zeros(3, 5), torch.zeros(3, 5), target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0 and finite, got 0.0"),
        ({"ce_weight": -0.1}, "ce_weight must be >= 0 and finite, got -0.1"),
        ({"kd_weight": math.inf}, "kd_weight must be >= 0 and finite, got inf"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"reduction": "mean"}, "reduction must be `none`, `sum` or `batchmean`, got `mean`"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"torchslim.distill.KDLoss: {message}"):
        ts.distill.KDLoss(**options)
