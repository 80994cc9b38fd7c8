# SPDX-License-Identifier: BSD-3-Clause
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import torchslim as ts


def test_worked_cases() -> None:
    # TensorFlow Model Optimization's test vector: 0.2 to 0.8 over steps 100 to 110, cubic.
    expected = {99: 0.2, 100: 0.2, 102: 0.4928, 105: 0.725, 110: 0.8, 111: 0.8}
    for step, sparsity in expected.items():
        assert ts.prune.polynomial_schedule(step, 100, 110, 0.2, 0.8) == pytest.approx(sparsity)
    assert ts.prune.polynomial_schedule(5, 0, 10, 0.0, 0.8, power=1) == pytest.approx(0.4)


@given(
    st.integers(0, 10**6),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.1, 9),
    st.integers(0, 1100),
)
def test_rises_from_one_end_to_the_other(begin: int, length: int, a: float, b: float, power: float, step: int) -> None:
    initial, final = min(a, b), max(a, b)

    def at(offset: int) -> float:
        return ts.prune.polynomial_schedule(max(begin + offset, 0), begin, begin + length, initial, final, power)

    assert at(length) == at(length + 1) == final
    if length > 0:
        assert at(0) == at(-1) == initial
    assert at(step) <= at(step + 1) + 1e-15
    assert initial - 1e-15 <= at(step) <= final + 1e-15


@pytest.mark.parametrize("frequency", [1, 3, 7, 1000])
def test_object_ends_on_target_whatever_its_frequency(frequency: int) -> None:
    schedule = ts.prune.PolynomialSchedule(10, 20, final_sparsity=0.7, initial_sparsity=0.1, frequency=frequency)
    assert schedule(9) == 0.0
    assert schedule(10) == 0.1
    assert schedule(19) == ts.prune.polynomial_schedule(19 - 9 % frequency, 10, 20, 0.1, 0.7)
    assert schedule(20) == schedule(10**9) == 0.7


def test_constant_and_one_shot() -> None:
    assert ts.prune.constant_schedule(0, 0.3) == ts.prune.ConstantSchedule(0.3)(99) == 0.3
    assert [ts.prune.one_shot_schedule(step, 2, 0.3) for step in range(4)] == [0.0, 0.0, 0.3, 0.3]
    assert [ts.prune.OneShotSchedule(2, 0.3)(step) for step in range(4)] == [0.0, 0.0, 0.3, 0.3]


def test_objects_are_values() -> None:
    schedule = ts.prune.PolynomialSchedule(0, 20, final_sparsity=0.5)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert "final_sparsity=0.5" in repr(schedule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 1, 0.0, 0.5), "polynomial_schedule: step must be >= 0, got -1"),
        ((0, -2, 1, 0.0, 0.5), "begin_step must be >= 0, got -2"),
        ((0, 5, 4, 0.0, 0.5), "end_step must be >= begin_step, got end_step 4 and begin_step 5"),
        ((0, 0, 1, -0.5, 0.5), r"initial_sparsity must be in \[0, 1\], got -0.5"),
        ((0, 0, 1, 0.0, 1.5), r"final_sparsity must be in \[0, 1\], got 1.5"),
        ((0, 0, 1, 0.0, float("nan")), "final_sparsity must be in"),
        ((0, 0, 1, 0.6, 0.5), "final_sparsity must be >= initial_sparsity .*got 0.5 after 0.6"),
        ((0, 0, 1, 0.0, 0.5, 0.0), "power must be > 0 and finite, got 0"),
    ],
)
def test_bad_arguments(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ts.prune.polynomial_schedule(*arguments)  # type: ignore[arg-type]


def test_bad_schedules_fail_when_made() -> None:
    with pytest.raises(ValueError, match="PolynomialSchedule: frequency must be >= 1, got 0"):
        ts.prune.PolynomialSchedule(0, 10, 0.5, frequency=0)
    with pytest.raises(ValueError, match="end_step must be >= begin_step"):
        ts.prune.PolynomialSchedule(10, 0, 0.5)
    with pytest.raises(ValueError, match="sparsity must be in"):
        ts.prune.ConstantSchedule(2.0)
    with pytest.raises(ValueError, match="at_step must be >= 0, got -1"):
        ts.prune.OneShotSchedule(-1, 0.5)
