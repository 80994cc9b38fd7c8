# SPDX-License-Identifier: BSD-3-Clause
"""GPTQ as slow, obvious NumPy: one weight at a time, with a new inverse for each. Never imports the library."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def scale_of(row: Floats, bits: int) -> float:
    """max|w| / largest code, in float32; 1 for zeros."""
    largest = np.float32(np.abs(row).max())
    return float(largest / np.float32(2 ** (bits - 1) - 1)) if largest > 0 else 1.0


def code_of(value: float, scale: float, bits: int) -> int:
    """The nearest code, half to even, saturating."""
    limit = 2 ** (bits - 1) - 1
    return int(min(max(np.rint(value / scale), -limit), limit))


def output_error(row: Floats, codes: Codes, scale: float, hessian: Floats) -> float:
    """How far the layer's output is from the float one: eᵀ·H·e."""
    error = codes * scale - row
    return float(error @ hessian @ error)


def optimal_brain_quantiser(row: Floats, scale: float, hessian: Floats, bits: int) -> Codes:
    """Rounds the first, moves the others to where they are best given that, and goes on with the others."""
    w = row.copy()
    codes = np.zeros(len(w), dtype=np.int64)
    for i in range(len(w)):
        inverse = np.linalg.inv(hessian[i:, i:])
        codes[i] = code_of(w[i], scale, bits)
        w[i:] -= (w[i] - codes[i] * scale) / inverse[0, 0] * inverse[0]
    return codes


def toward_float(row: Floats, inputs: Floats, float_inputs: Floats, damping: float) -> Floats:
    """The weight that, before rounding, answers `inputs` most like `row` answers `float_inputs`: least squares."""
    missing = (float_inputs - inputs) @ row
    ridge = np.sqrt(len(inputs) * damping / 2) * np.eye(len(row))
    move = np.linalg.lstsq(np.vstack([inputs, ridge]), np.append(missing, np.zeros(len(row))), rcond=None)[0]
    return row + move


def gptq_codes(
    weight: Floats,
    hessian: Floats,
    bits: int,
    damping: float,
    act_order: bool,
    inputs: tuple[Floats, Floats] | None = None,
) -> Codes:
    """The codes of one group: weight (rows, K), hessian (K, K), and what has drifted: inputs, and those in float."""
    diagonal = np.where(hessian.diagonal() == 0, 1.0, hessian.diagonal())
    damped = hessian - np.diag(hessian.diagonal()) + np.diag(diagonal + damping * diagonal.mean())
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(len(diagonal))
    codes = np.zeros(weight.shape, dtype=np.int64)
    for row, out in zip(weight, codes, strict=True):
        scale = scale_of(row, bits)
        start = row if inputs is None else toward_float(row, *inputs, damping * diagonal.mean())
        out[order] = optimal_brain_quantiser(start[order], scale, damped[np.ix_(order, order)], bits)
        nearest = np.array([code_of(value, scale, bits) for value in row])
        if inputs is None:
            ours, its = (output_error(row, codes, scale, hessian) for codes in (out, nearest))
        else:
            wanted = inputs[1] @ row
            ours, its = (float(np.square(wanted - inputs[0] @ (codes * scale)).sum()) for codes in (out, nearest))
        if its < ours:
            out[:] = nearest
    return codes


def unfolded(
    x: Floats, kernel: tuple[int, int], stride: int, padding: int, dilation: int, groups: int
) -> NDArray[np.float64]:
    """The rows (groups, rows, K) that a convolution's weight is applied to, by loops over (N, C, H, W)."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, channels, height, width = x.shape
    reach = [dilation * (k - 1) for k in kernel]
    each = channels // groups
    found = [
        [
            x[
                i,
                g * each : (g + 1) * each,
                top : top + reach[0] + 1 : dilation,
                left : left + reach[1] + 1 : dilation,
            ].reshape(-1)
            for i in range(n)
            for top in range(0, height - reach[0], stride)
            for left in range(0, width - reach[1], stride)
        ]
        for g in range(groups)
    ]
    return np.array(found)
