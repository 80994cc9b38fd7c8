# SPDX-License-Identifier: BSD-3-Clause
"""Cross-layer equalisation by loops over channels of two or three matrices. Never imports the library."""

import itertools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def equalized_chain(weights: list[Floats], rounds: int = 500) -> list[Floats]:
    """Weights (O, I) of a chain of layers, each reading the one before it, after `rounds` passes over its pairs."""
    weights = [w.copy() for w in weights]
    for _ in range(rounds):
        for first, second in itertools.pairwise(weights):
            for channel in range(first.shape[0]):
                before, after = np.abs(first[channel]).max(), np.abs(second[:, channel]).max()
                if before > 0 and after > 0:
                    scale = np.sqrt(before * after) / after
                    first[channel] /= scale
                    second[:, channel] *= scale
    return weights
