# SPDX-License-Identifier: BSD-3-Clause
"""The mean and variance of a clipped normal variable by summing over a fine grid. Never imports the library."""

import numpy as np


def clipped_moments(mean: float, deviation: float, low: float, high: float) -> tuple[float, float]:
    """By midpoints of a million slices within ten deviations."""
    edges = np.linspace(-10, 10, 1_000_001)
    z = (edges[1:] + edges[:-1]) / 2
    weight = np.exp(-z * z / 2)
    weight /= weight.sum()
    x = np.clip(mean + deviation * z, low, high)
    first = float((weight * x).sum())
    return first, float((weight * (x - first) ** 2).sum())
