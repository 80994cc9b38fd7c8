# SPDX-License-Identifier: BSD-3-Clause
"""Bits for each layer that meet a budget."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from torchslim import _C
from torchslim.quant.allocate_bits import BitSearch, _is_greedy
from torchslim.quant.sensitivity import Sensitivity, axis_scale


@dataclass(frozen=True)
class BitPlan:
    """Bits for the weights of each layer, and what they come to.

    Attributes:
        bits: for each layer.
        bytes: exact: Σ ⌈weights · bits / 8⌉ + 4 · channels, the codes and their scales.
        mac_bits: exact: Σ multiply-accumulates · bits · activation bits; 0 where they were not counted.
        predicted: of `evaluate`: the baseline less the layers' damages, as if they added up.
        bound: nothing within the limit can be predicted to be better (with `floor`: can cost less) than this.
    """

    bits: dict[str, int]
    bytes: int
    mac_bits: int
    predicted: float
    bound: float

    @property
    def config(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """For `torchslim.quant.prepare`: the bits of each layer's weights by its name."""
        return {"names": {layer: {"weight": {"bits": bits}} for layer, bits in self.bits.items()}}


@dataclass(frozen=True)
class SearchResult(BitPlan):
    """A plan, and the front it was chosen from.

    Attributes:
        front: plans from the fewest bytes on, each predicted to be better than those before it, none of which any plan
            beats in both: the corners of the convex front.
    """

    front: list[BitPlan] = field(default_factory=list)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Writes a picture of the front, with this plan marked, to `path` (.png, .svg, .pdf).

        Raises:
            ImportError: matplotlib is not installed.
        """
        from matplotlib.figure import Figure  # an extra: only a picture needs it

        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        predicted = [plan.predicted for plan in self.front]
        axes.plot([plan.bytes for plan in self.front], predicted, ".-", linewidth=1, label="front")
        axes.plot([self.bytes], [self.predicted], "o", markersize=8, label=f"chosen: {self.bytes:,} bytes")
        axes.set_yscale(axis_scale([*predicted, self.predicted]))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(linewidth=0.4)
        axes.set_axisbelow(True)
        axes.set_xlabel("bytes of weights")
        axes.set_ylabel("predicted value of evaluate")
        axes.legend(frameon=False)
        figure.savefig(path)


def search(
    sensitivity: Sensitivity,
    *,
    bytes: int | None = None,
    mac_bits: int | None = None,
    floor: float | None = None,
    method: BitSearch = "exact",
    activation_bits: int = 8,
) -> SearchResult:
    """Chooses bits for each layer's weights: the least predicted damage within a limit, or the fewest bytes.

    The prediction adds the layers' damages up; the choice among them is exact (`allocate_bits`), or greedy.

    Args:
        sensitivity: of `torchslim.quant.sensitivity`.
        bytes: at most so many bytes for the weights, as `BitPlan` counts them.
        mac_bits: at most so many multiply-accumulates × bits × activation bits; `sensitivity` must have counted them.
        floor: the prediction must not be worse than this; the fewest bytes are searched.
        method: "exact" or "greedy".
        activation_bits: of the activations, for `mac_bits`.

    Returns:
        the plan, with `config` for `prepare`, and the front it was chosen from.

    Raises:
        ValueError: not one limit of the three; one that cannot be met, naming what can be had.

    Example:
        >>> plan = search(found, bytes=40_000)
        >>> prepared = torchslim.quant.prepare(model, example, plan.config)
    """
    found = sensitivity._in_cpp()
    greedy = _is_greedy("search", method)
    chosen = _C.quant.search(found, bytes, mac_bits, floor, greedy, activation_bits)
    front = [_plan(plan) for plan in _C.quant.search_front(found, activation_bits)]
    return SearchResult(**vars(_plan(chosen)), front=front)


def _plan(plan: tuple[list[tuple[str, int]], int, int, float, float]) -> BitPlan:
    bits, total_bytes, mac_bits, predicted, bound = plan
    return BitPlan(dict(bits), total_bytes, mac_bits, predicted, bound)
