# SPDX-License-Identifier: BSD-3-Clause
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torchslim as ts
from torchslim.quant import allocate_bits, allocate_bits_within, pareto_front

Layers = dict[str, list[tuple[int, float]]]

#: Few values, so that ties, dominated choices and exact fits are frequent.
CHOICE = st.tuples(st.integers(0, 12), st.integers(-3, 20).map(lambda n: n / 4))
LAYERS = st.lists(st.lists(CHOICE, min_size=1, max_size=4), min_size=1, max_size=5).map(
    lambda layers: {f"layer{i}": choices for i, choices in enumerate(layers)}
)


def every(layers: Layers) -> list[tuple[int, float]]:
    """Cost and damage of all combinations."""
    return [(sum(c for c, _ in taken), sum(d for _, d in taken)) for taken in itertools.product(*layers.values())]


def totals(layers: Layers, found: ts.quant.BitAllocation) -> tuple[int, float]:
    taken = [layers[layer][index] for layer, index in found.choice.items()]
    return sum(c for c, _ in taken), sum(d for _, d in taken)


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.integers(0, 50))
def test_nothing_within_the_budget_does_less_damage(layers: Layers, budget: int) -> None:
    fitting = [(damage, cost) for cost, damage in every(layers) if cost <= budget]
    if not fitting:
        least = min(cost for cost, _ in every(layers))
        with pytest.raises(ValueError, match=f"a budget of {budget} is too small: the cheapest choices cost {least}"):
            allocate_bits(layers, budget)
        return
    found = allocate_bits(layers, budget)
    assert (found.damage, found.cost) == min(fitting)
    assert totals(layers, found) == (found.cost, found.damage)
    assert found.bound <= found.damage + 1e-9
    greedy = allocate_bits(layers, budget, "greedy")
    assert greedy.cost <= budget and found.bound - 1e-9 <= found.damage <= greedy.damage


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.integers(-20, 100).map(lambda n: n / 4))
def test_nothing_within_the_damage_costs_less(layers: Layers, most_damage: float) -> None:
    fitting = [(cost, damage) for cost, damage in every(layers) if damage <= most_damage]
    if not fitting:
        with pytest.raises(ValueError, match="cannot be had: the best choices come to"):
            allocate_bits_within(layers, most_damage)
        return
    found = allocate_bits_within(layers, most_damage)
    assert (found.cost, found.damage) == min(fitting)
    assert totals(layers, found) == (found.cost, found.damage)
    assert found.bound <= found.cost + 1e-9
    assert allocate_bits_within(layers, most_damage, "greedy").damage <= most_damage


@settings(max_examples=100, deadline=None)
@given(LAYERS)
def test_the_front_is_beaten_by_nothing(layers: Layers) -> None:
    front = pareto_front(layers)
    everything = every(layers)
    for corner in front:
        own = corner.cost, corner.damage
        assert not any(cost <= own[0] and damage <= own[1] and (cost, damage) != own for cost, damage in everything)
    assert [f.cost for f in front] == sorted({f.cost for f in front})
    assert front[0].cost == min(c for c, _ in everything)
    assert front[-1].damage == min(d for _, d in everything)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1)), min_size=20, max_size=60), st.floats(0.05, 0.95))
def test_sums_of_floats_keep_to_the_limit(layers: list[tuple[int, float]], share: float) -> None:
    """Too many for every combination; the bound proves that what is found is near the best."""
    choices = {str(i): [(w * b, h * 4.0**-b) for b in (2, 3, 4, 6, 8)] for i, (w, h) in enumerate(layers)}
    least, most = (sum(w * b for w, _ in layers) for b in (2, 8))
    budget = int(least + share * (most - least))
    found = allocate_bits(choices, budget)
    assert totals(choices, found)[0] == found.cost <= budget
    step = max(h for _, h in layers) / 16  # the relaxation splits one layer's choice at most
    assert found.bound - 1e-9 <= found.damage <= found.bound + step
    within = allocate_bits_within(choices, found.damage)
    assert within.damage <= found.damage and within.cost <= found.cost


def test_the_greedy_search_can_miss_what_the_exact_one_finds() -> None:
    layers = {"a": [(0, 12.0), (3, 0.0)], "b": [(0, 9.0), (2, 2.0)], "c": [(0, 9.0), (2, 2.0)]}
    assert allocate_bits(layers, 4, "greedy").damage == 18.0
    assert allocate_bits(layers, 4).damage == 16.0


def test_refusals_name_the_layer() -> None:
    with pytest.raises(ValueError, match="layer `a`: damage must be finite, got nan"):
        allocate_bits({"a": [(1, math.nan)]}, 1)
    with pytest.raises(ValueError, match="layer `a` has no choice"):
        allocate_bits_within({"a": []}, 1)
    with pytest.raises(ValueError, match="search must be 'exact' or 'greedy', got 'fast'"):
        allocate_bits({"a": [(1, 0.0)]}, 1, "fast")
    with pytest.raises(ValueError, match="expected one layer or more"):
        pareto_front({})
