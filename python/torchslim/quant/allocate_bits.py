# SPDX-License-Identifier: BSD-3-Clause
"""One choice for each layer, within a limit: a multiple-choice knapsack, solved exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torchslim import _C

#: "exact" gives the best there is; "greedy" takes what helps most for its cost while it fits, in no time.
BitSearch = Literal["exact", "greedy"]
#: For each layer, the ways to store it: (cost, damage) each.
Choices = Mapping[str, Sequence[tuple[int, float]]]


class BitAllocation(NamedTuple):
    """What was taken for each layer."""

    #: For each layer, an index into its choices.
    choice: dict[str, int]
    #: Sum over layers.
    cost: int
    #: Sum over layers, in their order.
    damage: float
    #: A proof: nothing within the limit can do better (the linear relaxation). A bound on the damage for
    #: `allocate_bits`, on the cost for `allocate_bits_within`.
    bound: float


def allocate_bits(layers: Choices, budget: int, search: BitSearch = "exact") -> BitAllocation:
    """Takes one choice for each layer so that Σ cost ≤ budget and Σ damage is least; of equals the cheapest.

    Exact: dynamic programming over the layers, which keeps of all partial sums those that no other beats in both, and
    drops those whose linear relaxation cannot reach what greedy found (Sinha and Zoltners 1979, Dyer 1984).

    Args:
        layers: for each layer one choice (cost, damage) or more; costs ≥ 0, their sum below 2^53; damages finite,
            negative ones too.
        budget: ≥ Σ of the least costs.
        search: "exact" or "greedy".

    Raises:
        ValueError: what does not hold, naming the layer, or 2^24 partial sums do not suffice.

    Example:
        >>> allocate_bits({"a": [(2, 5.0), (8, 0.0)], "b": [(20, 6.0), (80, 0.5)]}, 30).choice
        {'a': 1, 'b': 0}
    """
    return _named(layers, _C.quant.allocate_bits(_listed(layers), budget, _is_greedy("allocate_bits", search)))


def allocate_bits_within(layers: Choices, most_damage: float, search: BitSearch = "exact") -> BitAllocation:
    """Takes one choice for each layer so that Σ damage ≤ most_damage and Σ cost is least; of equals the least damage.

    Args:
        layers: as for `allocate_bits`.
        most_damage: ≥ Σ of the least damages.
        search: "exact" or "greedy".

    Raises:
        ValueError: what does not hold, naming the layer, or 2^24 partial sums do not suffice.
    """
    greedy = _is_greedy("allocate_bits_within", search)
    return _named(layers, _C.quant.allocate_bits_within(_listed(layers), most_damage, greedy))


def pareto_front(layers: Choices) -> list[BitAllocation]:
    """Returns allocations from the cheapest on, each with less damage than those before it.

    None of them is beaten in both by any allocation: they are the corners of the convex front.

    Args:
        layers: as for `allocate_bits`.
    """
    return [_named(layers, found) for found in _C.quant.pareto_front(_listed(layers))]


def _is_greedy(who: str, search: str) -> bool:
    if search not in ("exact", "greedy"):
        raise ValueError(f"torchslim.quant.{who}: search must be 'exact' or 'greedy', got {search!r}")
    return search == "greedy"


def _listed(layers: Choices) -> list[tuple[str, list[tuple[int, float]]]]:
    return [(layer, [(int(cost), float(damage)) for cost, damage in choices]) for layer, choices in layers.items()]


def _named(layers: Choices, found: tuple[list[int], int, float, float]) -> BitAllocation:
    choice, cost, damage, bound = found
    return BitAllocation(dict(zip(layers, choice, strict=True)), cost, damage, bound)
