# SPDX-License-Identifier: BSD-3-Clause
"""Observers as slow, obvious NumPy: what they remember, and the ranges they choose. Never imports the library."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from reference.fake_quantize import choose_qparams

Floats = NDArray[np.float64]
Range = tuple[float, float]


def rows_of(x: NDArray[np.generic], axis: int | None, group_size: int | None) -> list[Floats]:
    """The values that share a grid, in the order of the state's elements."""
    if axis is None:
        return [x.reshape(-1)]
    if group_size is None:
        return [x.take(c, axis).reshape(-1) for c in range(x.shape[axis])]
    axis %= x.ndim
    shape = [*x.shape]
    shape[axis] //= group_size
    rows = []
    for place in np.ndindex(*shape):
        part = [slice(i, i + 1) for i in place]
        part[axis] = slice(place[axis] * group_size, (place[axis] + 1) * group_size)
        rows.append(x[tuple(part)].reshape(-1))
    return rows


def state_shape(x: NDArray[np.generic], axis: int | None, group_size: int | None) -> tuple[int, ...]:
    """The shape of min_val and max_val."""
    if axis is None:
        return ()
    if group_size is None:
        return (x.shape[axis],)
    return tuple(n // group_size if d == axis % x.ndim else n for d, n in enumerate(x.shape))


def moved_range(state: Range, row: Floats, averaging_constant: float | None) -> Range:
    """The range after it has seen the finite values of `row`; it only widens if `averaging_constant` is None."""
    finite = row[np.isfinite(row)]
    if len(finite) == 0:
        return state
    low, high = float(finite.min()), float(finite.max())
    if state == (math.inf, -math.inf):
        return low, high
    if averaging_constant is None:
        return min(state[0], low), max(state[1], high)
    moved = (state[0] + averaging_constant * (low - state[0]), state[1] + averaging_constant * (high - state[1]))
    return float(np.float32(moved[0])), float(np.float32(moved[1]))


def bin_layout(low: float, high: float, bins: int) -> tuple[int, int]:
    """(e, first): the smallest e with which `bins` bins of width 2^e hold [low, high], and floor(low / 2^e)."""
    largest = max(abs(low), abs(high))
    exponent = max(-126, math.frexp(largest)[1] - 1 - 23 if largest > 0 else -126)
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= bins:
        exponent += 1
    return exponent, math.floor(low / 2.0**exponent)


def histogram_of(values: Floats, bins: int) -> NDArray[np.int64]:
    """The histogram of all values ever seen; those that are not finite are left out."""
    counts = np.zeros(bins, np.int64)
    finite = values[np.isfinite(values)]
    if len(finite):
        exponent, first = bin_layout(float(finite.min()), float(finite.max()), bins)
        for value in finite.tolist():
            counts[math.floor(value / 2.0**exponent) - first] += 1
    return counts


def _edges(counts: NDArray[np.int64], low: float, high: float) -> tuple[NDArray[np.int64], Floats, float]:
    """Counts without empty bins at the end, where each begins, and the width."""
    exponent, first = bin_layout(low, high, len(counts))
    used = int(np.flatnonzero(counts)[-1]) + 1
    width = 2.0**exponent
    return counts[:used], (first + np.arange(used)) * width, width


def squared_error(counts: NDArray[np.int64], begins: Floats, width: float, levels: Floats) -> float:
    """The squared error of rounding to the nearest of `levels`; values are spread evenly over their bin."""
    middles = (levels[:-1] + levels[1:]) / 2
    error = 0.0
    for count, begin in zip(counts.tolist(), begins.tolist(), strict=True):
        if count == 0:
            continue
        inside = middles[(middles > begin) & (middles < begin + width)]
        cuts = [begin, *inside.tolist(), begin + width]
        for a, b in itertools.pairwise(cuts):
            level = levels[np.abs(levels - (a + b) / 2).argmin()]
            error += count / width * ((b - level) ** 3 - (a - level) ** 3) / 3
    return error


def grid_levels(low: float, high: float, quant_min: int, quant_max: int, symmetric: bool) -> Floats:
    """The values of the grid of a range, without the lower limit of the scale."""
    shift = 2.0**40  # choose_qparams limits the scale from below
    scale, zero_point = choose_qparams(low * shift, high * shift, quant_min, quant_max, symmetric)
    return (np.arange(quant_min, quant_max + 1) - zero_point) * scale / shift


def l2_range(counts: NDArray[np.int64], low: float, high: float, levels: int) -> Range:
    """torch.ao's HistogramObserver, _non_linear_param_search."""
    counts, begins, width = _edges(counts, low, high)
    cumulative, total = np.cumsum(counts), int(counts.sum())
    alpha, beta, least = 0.0, 1.0, math.inf
    start, end = 0, len(counts) - 1
    while alpha < beta:
        left, right = start, end
        while left < end and cumulative[left] < (alpha + 1e-5) * total:
            left += 1
        while right > start and cumulative[right] > (beta - 1e-5) * total:
            right -= 1
        next_start, next_end = start, end
        if left - start > end - right:
            next_start, alpha = left, alpha + 1e-5
        else:
            next_end, beta = right, beta - 1e-5
        if (next_start, next_end) == (start, end):
            continue
        step = width * (next_end - next_start + 1) / levels
        centres = begins[next_start] + (np.arange(levels) + 0.5) * step
        error = squared_error(counts, begins, width, centres)
        if error > least:
            break
        least, start, end = error, next_start, next_end
    return max(begins[start], low), min(begins[end] + width, high)


def percentile_range(counts: NDArray[np.int64], low: float, high: float, percentile: float) -> Range:
    """The two percentiles, to a bin's linear interpolation."""
    counts, begins, width = _edges(counts, low, high)
    places, below = [*begins.tolist(), begins[-1] + width], [0, *np.cumsum(counts).tolist()]
    cut = below[-1] * (1 - percentile / 100)

    def place_of(count: float) -> float:
        j = next(j for j in range(len(counts)) if below[j + 1] >= count)
        return places[j] + (width * (count - below[j]) / counts[j] if counts[j] else 0)

    return min(max(place_of(cut), low), high), min(max(place_of(below[-1] - cut), low), high)


def mse_range(
    counts: NDArray[np.int64], low: float, high: float, quant_min: int, quant_max: int, symmetric: bool
) -> Range:
    """Limits in parts of 256: 16 parts at a time, then 4 and 1 around the best."""
    counts, begins, width = _edges(counts, low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    best, least = (256, 256), math.inf
    for step in (16, 4, 1):
        reach = 256 if step == 16 else 3 * step
        lows = range(best[0] + reach, best[0] - reach - 1, -step)
        highs = range(best[1] + reach, best[1] - reach - 1, -step)
        for a, b in zip(lows, lows, strict=True) if symmetric else itertools.product(lows, highs):
            if min(a, b) < 1 or max(a, b) > 256 or (low == 0 and a != 256) or (high == 0 and b != 256):
                continue
            levels = grid_levels(low * a / 256, high * b / 256, quant_min, quant_max, symmetric)
            error = squared_error(counts, begins, width, levels)
            if error < least:
                best, least = (a, b), error
    return low * best[0] / 256, high * best[1] / 256


def entropy_range(
    counts: NDArray[np.int64], low: float, high: float, quant_min: int, quant_max: int, symmetric: bool
) -> Range:
    """[-t, t] with the least KL(P ‖ Q), within [low, high]."""
    codes = quant_max - quant_min + 1
    steps = codes if (low >= 0 or high <= 0) and not symmetric else (codes + 1) // 2
    counts, begins, width = _edges(counts, low, high)
    folded: dict[int, int] = {}
    for count, begin in zip(counts.tolist(), begins.tolist(), strict=True):
        k = round(begin / width)
        folded[-k - 1 if k < 0 else k] = folded.get(-k - 1 if k < 0 else k, 0) + count
    whole = np.array([folded.get(k, 0) for k in range(max(folded) + 1)], np.float64)
    losses = {}
    for kept in range(steps, len(whole) + 1):
        p = whole[:kept].copy()
        p[-1] += whole[kept:].sum()
        q = np.zeros(kept)
        for step in range(steps):
            part = slice(step * kept // steps, (step + 1) * kept // steps)
            filled = p[part] > 0
            if filled.any():
                q[part] = np.where(filled, whole[part].sum() / filled.sum(), 0)
        filled = p > 0
        if whole[:kept].sum() == 0:
            continue
        q[filled & (q == 0)] = 1e-4
        ratio = (p[filled] / p.sum()) / (q[filled] / whole[:kept].sum())
        losses[kept] = float((p[filled] / p.sum() * np.log(ratio)).sum())
    kept = min(losses, key=lambda k: (losses[k], -k)) if losses else len(whole)
    return min(max(-kept * width, low), high), min(max(kept * width, low), high)
