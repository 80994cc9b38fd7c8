# SPDX-License-Identifier: BSD-3-Clause
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.quant_networks import Residual, example

import torchslim as ts
from torchslim.quant import LayerSensitivity, Sensitivity, search

BITS = (2, 4, 8)


@st.composite
def sensitivities(draw: st.DrawFn) -> Sensitivity:
    higher = draw(st.booleans())
    rows = []
    for i in range(draw(st.integers(1, 4))):
        weights, channels, macs = (draw(st.integers(1, 50)) for _ in range(3))
        values = {bits: draw(st.integers(0, 16)) / 16 for bits in BITS}
        rows.append(LayerSensitivity(f"layer{i}", weights, channels, macs, values))
    return Sensitivity(BITS, higher, draw(st.integers(0, 16)) / 16, tuple(rows))


def every(found: Sensitivity) -> list[tuple[dict[str, int], int, int, float]]:
    """Bits, bytes, multiplications × bits × 8 and prediction of all combinations."""
    result = []
    for taken in itertools.product(BITS, repeat=len(found.rows)):
        pairs = list(zip(found.rows, taken, strict=True))
        size = sum(-(-row.weights * bits // 8) + 4 * row.channels for row, bits in pairs)
        macs = sum(row.macs * bits * 8 for row, bits in pairs)
        predicted = found.baseline + sum(row.values[bits] - found.baseline for row, bits in pairs)
        result.append(({row.layer: bits for row, bits in pairs}, size, macs, predicted))
    return result


@settings(max_examples=100, deadline=None)
@given(sensitivities(), st.floats(0, 1))
def test_no_other_plan_within_the_limit_is_predicted_to_be_better(found: Sensitivity, share: float) -> None:
    better = max if found.higher_is_better else min
    for place, limit in ((1, "bytes"), (2, "mac_bits")):
        costs = [plan[place] for plan in every(found)]
        budget = int(min(costs) + share * (max(costs) - min(costs)))
        plan = search(found, **{limit: budget})
        assert getattr(plan, limit) <= budget
        assert plan.predicted == pytest.approx(better(p[3] for p in every(found) if p[place] <= budget))
        [(_, size, macs, predicted)] = [p for p in every(found) if p[0] == plan.bits]
        assert (plan.bytes, plan.mac_bits) == (size, macs) and plan.predicted == pytest.approx(predicted)


@settings(max_examples=100, deadline=None)
@given(sensitivities(), st.floats(0, 1))
def test_no_other_plan_above_the_floor_is_smaller(found: Sensitivity, share: float) -> None:
    sign = 1 if found.higher_is_better else -1
    best, worst = (pick(sign * p[3] for p in every(found)) for pick in (max, min))
    floor = sign * (worst + share * (best - worst)) - sign * 1e-6  # no tie on the floor itself
    plan = search(found, floor=floor)
    assert sign * plan.predicted >= sign * floor
    assert plan.bytes == min(p[1] for p in every(found) if sign * p[3] >= sign * floor)


def measured() -> tuple[Residual, Sensitivity]:
    torch.manual_seed(0)
    model = Residual().eval()
    x = example()
    expected = model(x).detach()
    error = lambda model: (model(x) - expected).square().mean().item()  # noqa: E731
    return model, ts.quant.sensitivity(model, error, BITS, higher_is_better=False, example_inputs=x)


def test_a_plan_of_a_model() -> None:
    _, found = measured()
    all_four = sum(-(-row.weights // 2) + 4 * row.channels for row in found.rows)
    plan = search(found, bytes=all_four)
    same = found.baseline + sum(found.damage(row.layer, 4) for row in found.rows)
    assert plan.predicted <= same and plan.bound <= plan.predicted and plan.bytes <= all_four
    assert plan.config == {"names": {name: {"weight": {"bits": bits}} for name, bits in plan.bits.items()}}
    assert search(found, bytes=all_four, method="greedy").predicted >= plan.predicted
    assert search(found, mac_bits=10**9).bits == dict.fromkeys(plan.bits, 8)


def test_the_front_and_its_picture(tmp_path: Path) -> None:
    _, found = measured()
    plan = search(found, floor=0.01)
    assert plan.front[0].bits == dict.fromkeys(plan.bits, 2)
    sizes, predictions = ([getattr(p, name) for p in plan.front] for name in ("bytes", "predicted"))
    assert sizes == sorted(set(sizes)) and predictions == sorted(set(predictions), reverse=True)
    pytest.importorskip("matplotlib", reason="an extra of the examples")
    plan.plot(tmp_path / "front.svg")
    assert b"<svg" in (tmp_path / "front.svg").read_bytes()


def test_refusals() -> None:
    _, found = measured()
    with pytest.raises(ValueError, match="expected one limit of bytes, mac_bits and floor, got 0"):
        search(found)
    with pytest.raises(ValueError, match="got 2"):
        search(found, bytes=1, floor=1.0)
    with pytest.raises(ValueError, match="a budget of 1 is too small: the cheapest choices cost"):
        search(found, bytes=1)
    with pytest.raises(ValueError, match="search must be 'exact' or 'greedy', got 'fast'"):
        search(found, bytes=10**6, method="fast")
    uncounted = ts.quant.sensitivity(Residual(), lambda model: 1.0, (8,))
    with pytest.raises(ValueError, match="the multiplications of layer `stem` were not counted"):
        search(uncounted, mac_bits=1)
