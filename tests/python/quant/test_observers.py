# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_tools import DTYPES, OBSERVERS
from reference import observers as reference
from torch import Tensor

import torchslim as ts
from torchslim import _C
from torchslim.quant import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MseObserver,
    PercentileObserver,
)

HISTOGRAMS = OBSERVERS[2:]
GRANULARITIES: list[dict[str, int]] = [{}, {"axis": 0}, {"axis": -2}, {"axis": 1, "group_size": 3}]


def state_of(observer: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in observer.state_dict().items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def as_numpy(x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return x.detach().float().double().numpy()


def observing(kind: Any, *data: Tensor, **options: Any) -> Any:
    observer = kind(**options)
    for x in data:
        assert observer(x) is x
    return observer


def test_options_and_names_are_those_of_the_header() -> None:
    observer = HistogramObserver(axis=1, symmetric=True)
    assert (observer.quant_min, observer.quant_max, observer.bins) == (-127, 127, 2048)
    assert str(observer) == "HistogramObserver(bins=2048, symmetric=True, axis=1)"
    assert MinMaxObserver(bits=1).quant_min == -1 and MinMaxObserver(bits=1).quant_max == 0
    assert MinMaxObserver(quant_min=0, quant_max=255).quant_max == 255
    assert sorted(HistogramObserver().state_dict()) == ["histogram", "max_val", "min_val"]
    assert sorted(MinMaxObserver().state_dict()) == ["max_val", "min_val"]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [MinMaxObserver, MovingAverageObserver])
def test_ranges_equal_the_reference(kind: Any, dtype: torch.dtype, granularity: dict[str, int]) -> None:
    batches = [(torch.randn(4, 6, 17) * 3).to(dtype) for _ in range(3)]
    observer = observing(kind, *batches, **granularity)
    constant = 0.1 if kind is MovingAverageObserver else None
    axis, group = granularity.get("axis"), granularity.get("group_size")
    first = as_numpy(batches[0])
    assert observer.min_val.shape == reference.state_shape(first, axis, group)
    states = [(math.inf, -math.inf)] * observer.min_val.numel()
    for batch in batches:
        rows = reference.rows_of(as_numpy(batch), axis, group)
        states = [reference.moved_range(s, row, constant) for s, row in zip(states, rows, strict=True)]
    expected = torch.tensor(states, dtype=torch.float32)
    assert torch.equal(observer.min_val.flatten(), expected[:, 0])
    assert torch.equal(observer.max_val.flatten(), expected[:, 1])


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_histograms_equal_the_reference(dtype: torch.dtype, granularity: dict[str, int]) -> None:
    batches = [(torch.randn(4, 6, 17) * 3**i).to(dtype) for i in range(3)]
    observer = observing(HistogramObserver, *batches, bins=64, **granularity)
    axis, group = granularity.get("axis"), granularity.get("group_size")
    rows = [reference.rows_of(as_numpy(b), axis, group) for b in batches]
    expected = [reference.histogram_of(np.concatenate(parts), 64) for parts in zip(*rows, strict=True)]
    assert observer.histogram.shape == (*reference.state_shape(as_numpy(batches[0]), axis, group), 64)
    assert torch.equal(observer.histogram.reshape(-1, 64), torch.from_numpy(np.stack(expected)))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(2, 40),
    st.sampled_from(DTYPES),
)
def test_any_data_in_any_order_gives_the_reference_histogram(
    batches: list[list[float]], bins: int, dtype: torch.dtype
) -> None:
    data = [torch.tensor(batch, dtype=torch.float64).to(dtype) for batch in batches]
    observer = observing(HistogramObserver, *data, bins=bins, non_finite="skip")
    backwards = observing(HistogramObserver, *data[::-1], bins=bins, non_finite="skip")
    assert_same_state(state_of(observer), state_of(backwards))
    values = np.concatenate([as_numpy(x) for x in data])
    assert torch.equal(observer.histogram, torch.from_numpy(reference.histogram_of(values, bins)))
    assert observer.histogram.sum() == np.isfinite(values).sum()


def normal_with_outliers(count: int = 20000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(count, generator=generator), torch.tensor([-9.0, 14.0])])


DATA = {
    "normal": normal_with_outliers(),
    "relu": normal_with_outliers().relu(),
    "far from 0": torch.rand(3000, generator=torch.Generator().manual_seed(1)) + 5,
    "two values": torch.tensor([-1.0, 1.0]).repeat(20),
    "negative": -normal_with_outliers().abs(),
}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("data", DATA)
def test_chosen_ranges_equal_the_reference(data: str, symmetric: bool, bits: int) -> None:
    x = DATA[data]
    counts = reference.histogram_of(as_numpy(x), 128)
    extremes = float(x.min()), float(x.max())
    codes = (-(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1)
    expected = {
        HistogramObserver: reference.l2_range(counts, *extremes, codes[1] - codes[0] + 1),
        PercentileObserver: reference.percentile_range(counts, *extremes, 99.99),
        EntropyObserver: reference.entropy_range(counts, *extremes, *codes, symmetric),
    }
    for kind, range_ in expected.items():
        observer = observing(kind, x, bits=bits, symmetric=symmetric, bins=128)
        ours = [value.item() for value in observer.calculate_range()]
        assert ours == pytest.approx(range_, rel=1e-6), kind


@pytest.mark.parametrize(("bits", "symmetric"), [(2, False), (3, True), (4, False)])
@pytest.mark.parametrize("data", DATA)
def test_the_mse_range_equals_the_reference(data: str, symmetric: bool, bits: int) -> None:
    x = DATA[data]
    counts = reference.histogram_of(as_numpy(x), 32)
    codes = (-(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1)
    expected = reference.mse_range(counts, float(x.min()), float(x.max()), *codes, symmetric)
    observer = observing(MseObserver, x, bits=bits, symmetric=symmetric, bins=32)
    assert [value.item() for value in observer.calculate_range()] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_the_l2_search_ends_where_torch_ao_ends_on_the_same_histogram(bits: int) -> None:
    for x in DATA.values():
        ours = observing(HistogramObserver, x, bits=bits)
        exponent, first = reference.bin_layout(float(ours.min_val), float(ours.max_val), 2048)
        used = int(ours.histogram.nonzero()[-1]) + 1
        aos = torch.ao.quantization.HistogramObserver(bins=used)
        aos.dst_nbins = 2**bits
        aos.histogram = ours.histogram[:used].double()
        aos.min_val = torch.tensor(first * 2.0**exponent, dtype=torch.float64)
        aos.max_val = torch.tensor((first + used) * 2.0**exponent, dtype=torch.float64)
        low, high = aos._non_linear_param_search()
        expected = max(low.item(), float(ours.min_val)), min(high.item(), float(ours.max_val))
        assert [value.item() for value in ours.calculate_range()] == pytest.approx(expected, abs=2.0**exponent * 1.01)


def test_min_max_and_moving_average_see_what_torch_ao_sees() -> None:
    ao = torch.ao.quantization
    pairs = [
        (MinMaxObserver(), ao.MinMaxObserver()),
        (MovingAverageObserver(0.01), ao.MovingAverageMinMaxObserver()),
        (MinMaxObserver(axis=1), ao.PerChannelMinMaxObserver(ch_axis=1)),
        (MovingAverageObserver(0.01, axis=1), ao.MovingAveragePerChannelMinMaxObserver(ch_axis=1)),
    ]
    for _ in range(4):
        x = torch.randn(3, 5, 7)
        for ours, aos in pairs:
            ours(x), aos(x)
    for ours, aos in pairs:
        torch.testing.assert_close(ours.min_val, aos.min_val, rtol=1e-6, atol=0)
        torch.testing.assert_close(ours.max_val, aos.max_val, rtol=1e-6, atol=0)


def squared_error(x: Tensor, observer: Any) -> float:
    scale, zero_point = observer.calculate_qparams()
    return (
        (ts.quant.fake_quantize(x, scale, zero_point, observer.quant_min, observer.quant_max) - x).square().sum().item()
    )


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_no_observer_beats_the_mse_observer(bits: int) -> None:
    x = torch.cat([torch.distributions.Laplace(0.0, 1.0).sample((50000,)), torch.tensor([30.0])])
    errors = {kind: squared_error(x, observing(kind, x, bits=bits)) for kind in OBSERVERS}
    assert errors[MseObserver] <= 1.002 * min(errors.values()), errors
    assert errors[HistogramObserver] <= errors[MinMaxObserver]


@pytest.mark.parametrize("kind", OBSERVERS)
def test_threads_and_instruction_sets_do_not_matter(kind: Any, threads: int) -> None:
    x = torch.randn(3, 7, 30000, generator=torch.Generator().manual_seed(3))
    states = []
    for granularity in [{}, {"axis": 1}]:
        for capability in ["portable", None]:
            try:
                _C.force_cpu_capability(capability)
                observer = observing(kind, x, x * 1.5, **granularity)
                state = state_of(observer)
                states.append({**state, "scale": observer.calculate_qparams()[0]})
            finally:
                _C.force_cpu_capability(None)
    assert_same_state(states[0], states[1])
    assert_same_state(states[2], states[3])
    torch.set_num_threads(1)
    assert_same_state(state_of(observing(kind, x, x * 1.5)), {k: v for k, v in states[0].items() if k != "scale"})


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", OBSERVERS)
def test_layouts_do_not_matter(kind: Any, granularity: dict[str, int]) -> None:
    x = torch.randn(2, 6, 5, 7)
    expected = state_of(observing(kind, x, **granularity))
    wide = torch.randn(4, 6, 5, 14)
    wide[::2, :, :, ::2] = x
    for same in [
        x.to(memory_format=torch.channels_last),
        x.transpose(0, 3).contiguous().transpose(0, 3),
        wide[::2, :, :, ::2],
    ]:
        assert torch.equal(same, x)
        assert_same_state(state_of(observing(kind, same, **granularity)), expected)


@pytest.mark.parametrize("granularity", GRANULARITIES[:3])
@pytest.mark.parametrize("kind", OBSERVERS)
def test_an_empty_tensor_shows_nothing(kind: Any, granularity: dict[str, int]) -> None:
    x = torch.randn(2, 6, 5, 7)
    observer = observing(kind, x, x[..., :0], **granularity)
    assert_same_state(state_of(observer), state_of(observing(kind, x, **granularity)))


@pytest.mark.parametrize("kind", OBSERVERS)
def test_a_zero_dim_tensor_is_observed(kind: Any) -> None:
    observer = observing(kind, torch.tensor(3.0))
    assert [value.item() for value in observer.calculate_range()] == [3, 3]
    assert observer.calculate_qparams()[0] > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", OBSERVERS)
def test_what_is_not_finite_is_refused_or_skipped(kind: Any, granularity: dict[str, int], value: float) -> None:
    good, bad = torch.randn(4, 6, 5), torch.randn(4, 6, 5)
    bad[1, 2, 3] = value
    observer = kind(**granularity)
    for _ in range(2):  # before and after it has seen something
        before = state_of(observer)
        with pytest.raises(ValueError, match=r"holds NaN or infinity.*the observer is unchanged"):
            observer(bad)
        assert_same_state(state_of(observer), before)
        observer(good)
    skipping = observing(kind, good, bad, non_finite="skip", **granularity)
    low, high = skipping.min_val, skipping.max_val
    assert low.isfinite().all() and high.isfinite().all()
    if kind in HISTOGRAMS:
        assert skipping.histogram.sum() == good.numel() + bad.numel() - 1


def test_a_large_float64_is_not_finite_in_float32() -> None:
    with pytest.raises(ValueError, match=r"NaN or infinity \(in float32\)"):
        MinMaxObserver()(torch.tensor([1e300], dtype=torch.float64))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", OBSERVERS)
def test_state_goes_through_a_file_and_can_be_reset(kind: Any, granularity: dict[str, int]) -> None:
    observer = observing(kind, torch.randn(4, 6, 5), **granularity)
    file = io.BytesIO()
    torch.save(observer.state_dict(), file)
    file.seek(0)
    loaded = kind(**granularity)
    loaded.load_state_dict(torch.load(file))
    assert_same_state(state_of(loaded), state_of(observer))
    for one, other in zip(loaded.calculate_qparams(), copy.deepcopy(observer).calculate_qparams(), strict=True):
        assert torch.equal(one, other)
    observer.reset_state()
    assert_same_state(state_of(observer), state_of(kind(**granularity)))
    with pytest.raises(ValueError, match="observed yet"):
        observer.calculate_qparams()


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    observer = observing(HistogramObserver, torch.randn(100), bins=32)
    before = state_of(observer)
    for other in [
        observing(HistogramObserver, torch.ones(9), bins=64),
        observing(HistogramObserver, torch.ones(3), axis=0),
    ]:
        with pytest.raises(RuntimeError, match=r"must have shape .*its state is unchanged"):
            observer.load_state_dict(other.state_dict())
        assert_same_state(state_of(observer), before)
    observer.histogram.fill_(1)
    with pytest.raises(ValueError, match="the histogram does not fit min_val and max_val"):
        observer(torch.ones(3))
    observer.max_val.fill_(math.inf)
    for call in (observer.calculate_qparams, lambda: observer(torch.ones(3))):
        with pytest.raises(ValueError, match="must be finite where something was seen"):
            call()


@pytest.mark.parametrize("kind", OBSERVERS)
def test_compiles_whole_and_passes_gradients(kind: Any) -> None:
    observer, compiled = kind(axis=1), kind(axis=1)
    compiled(torch.ones(2, 3))
    observer(torch.ones(2, 3))
    run = torch.compile(lambda x: compiled(x) * 2, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x = torch.randn(5, 3, requires_grad=True)
        run(x).sum().backward()
        observer(x)
        assert x.grad is not None and torch.equal(x.grad, torch.full((5, 3), 2.0))
    assert_same_state(state_of(observer), state_of(compiled))


def test_autocast_observes_what_it_is_given() -> None:
    x = torch.randn(100)
    with torch.autocast("cpu", torch.bfloat16):
        observer = observing(HistogramObserver, x)
    assert_same_state(state_of(observer), state_of(observing(HistogramObserver, x)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MinMaxObserver(bits=0), ValueError, r"torchslim::MinMaxObserver: bits must be in \[1, 16\], got 0"),
        (lambda: MinMaxObserver(bits=1, symmetric=True), ValueError, "a symmetric grid of 1 bit has one point"),
        (lambda: MinMaxObserver(quant_max=3), ValueError, "quant_min and quant_max go together, got only quant_max"),
        (lambda: MinMaxObserver(quant_min=4, quant_max=3), ValueError, "the range is empty: quant_min 4 > quant_max 3"),
        (lambda: MinMaxObserver(quant_min=3, quant_max=3), ValueError, "the grid has one point"),
        (lambda: MinMaxObserver(non_finite="drop"), ValueError, "non_finite must be `refuse` or `skip`, got `drop`"),
        (lambda: MinMaxObserver(group_size=2), ValueError, "group_size 2 needs `axis`"),
        (lambda: MinMaxObserver(axis=0, group_size=0), ValueError, "group_size must be >= 1, got 0"),
        (lambda: MovingAverageObserver(1.5), ValueError, r"averaging_constant must be in \(0, 1\], got 1.5"),
        (lambda: HistogramObserver(1), ValueError, r"bins must be in \[2, 1048576\], got 1"),
        (lambda: PercentileObserver(101), ValueError, r"percentile must be in \(50, 100\], got 101"),
        (lambda: MseObserver(dims=3), TypeError, "unknown option 'dims'"),
        (lambda: MinMaxObserver()(torch.ones(3, dtype=torch.int32)), TypeError, "expected a float32, float64"),
        (lambda: MinMaxObserver(axis=2)(torch.ones(3, 4)), ValueError, r"axis must be in \[-2, 1\] for a tensor of 2"),
        (lambda: MinMaxObserver(axis=0)(torch.tensor(1.0)), ValueError, "axis must be in"),
        (
            lambda: HistogramObserver(axis=1, group_size=3)(torch.ones(2, 8)),
            ValueError,
            "torchslim::observe_histogram: group_size must divide dimension 1 of size 8, got 3",
        ),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("kind", OBSERVERS)
def test_a_tensor_with_other_channels_is_refused(kind: Any) -> None:
    observer = observing(kind, torch.randn(3, 4), axis=0)
    before = state_of(observer)
    with pytest.raises(ValueError, match=r"min_val must have shape \[5\], got shape \[3\]"):
        observer(torch.randn(5, 4))
    assert_same_state(state_of(observer), before)
