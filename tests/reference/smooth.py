# SPDX-License-Identifier: BSD-3-Clause
"""The scale of SmoothQuant by loops over columns. Never imports the library."""

from torch import Tensor


def scale_of(input_max: Tensor, weights: list[Tensor], alpha: float) -> list[float]:
    """s_j = max|x_j|^alpha / max|w_j|^(1 − alpha), 1 where one of both is 0."""
    scales = []
    for j, x in enumerate(input_max.tolist()):
        w = max(abs(value) for weight in weights for value in weight[:, j].tolist())
        scales.append(x**alpha / w ** (1 - alpha) if x > 0 and w > 0 else 1.0)
    return scales
