# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import FakeQuantize, MinMaxObserver, MovingAverageObserver

ACTIVATIONS = {"none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}


def trained(x: Tensor, **options: Any) -> FakeQuantize:
    quantiser = FakeQuantize(**options)
    quantiser(x)
    return quantiser


def state_of(quantiser: FakeQuantize) -> list[Tensor]:
    return [tensor.clone() for tensor in quantiser.state_dict().values()]


def assert_same_state(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_and_eval_round_the_activation_on_the_grid(activation: str) -> None:
    x = (torch.randn(2, 3, 8, 8) * 4).requires_grad_()
    quantiser = trained(x.detach(), activation=activation)
    for mode in (True, False):
        y = quantiser.train(mode)(x)
        expected = ts.quant.fake_quantize(
            ACTIVATIONS[activation](x), quantiser.scale, quantiser.zero_point, quantiser.quant_min, quantiser.quant_max
        )
        assert torch.equal(y, expected)
        assert torch.equal(*(torch.autograd.grad(value.sum(), x)[0] for value in (y, expected)))


def test_only_training_moves_the_range() -> None:
    quantiser = trained(torch.randn(100))
    before = state_of(quantiser)
    quantiser.eval()(torch.randn(100) * 10)
    assert_same_state(state_of(quantiser), before)
    quantiser.train().disable_observer()(torch.randn(100) * 10)
    assert_same_state(state_of(quantiser)[:4], before[:4])
    quantiser.enable_observer()(torch.randn(100) * 10)
    assert quantiser.max_val > before[1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_fake_quant_it_observes_and_passes_the_activation(activation: str) -> None:
    x = torch.randn(100, requires_grad=True)
    quantiser = FakeQuantize(activation=activation).disable_fake_quant()
    y = quantiser(x)
    assert torch.equal(y, ACTIVATIONS[activation](x)) and y.requires_grad
    assert quantiser.max_val == ACTIVATIONS[activation](x).max()
    assert torch.equal(quantiser.eval()(x), y)
    assert not torch.equal(quantiser.enable_fake_quant()(x), y)


@pytest.mark.parametrize(
    ("observer", "expected"),
    [
        ("moving_average", (-1.0, 1.1)),
        (MovingAverageObserver(0.5), (-1.0, 1.5)),
        ("min_max", (-1.0, 2.0)),
        (MinMaxObserver(), (-1.0, 2.0)),
    ],
)
def test_the_observer_moves_the_range(observer: Any, expected: tuple[float, float]) -> None:
    quantiser = FakeQuantize(observer)
    for x in ([-1.0, 1.0], [-1.0, 2.0]):
        quantiser(torch.tensor(x))
    torch.testing.assert_close((quantiser.min_val.item(), quantiser.max_val.item()), expected)
    scale, zero_point = quantiser.calculate_qparams()
    assert torch.equal(scale, quantiser.scale) and torch.equal(zero_point, quantiser.zero_point)


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, (-128, 127)),
        ({"symmetric": True}, (-127, 127)),
        ({"bits": 4}, (-8, 7)),
        ({"bits": 1}, (-1, 0)),
        ({"bits": 2, "symmetric": True}, (-1, 1)),
        ({"bits": 16}, (-32768, 32767)),
    ],
)
def test_bits_and_symmetry_give_the_grid(options: Any, grid: tuple[int, int]) -> None:
    quantiser = trained(torch.tensor([-1.0, 3.0]), **options)
    assert (quantiser.quant_min, quantiser.quant_max) == grid
    if "symmetric" in options:
        assert quantiser.zero_point == 0 and quantiser.scale == torch.tensor(3.0) / grid[1]


@pytest.mark.parametrize("observer", ["moving_average", "min_max"])
def test_with_an_axis_each_channel_has_its_grid(observer: str) -> None:
    weight = torch.randn(4, 3, 2, 2, requires_grad=True)
    quantiser = FakeQuantize(observer, axis=0, symmetric=True)
    y = quantiser(weight)
    scale, zero_point = ts.quant.weight_qparams(weight)
    assert torch.equal(quantiser.scale, scale)
    assert torch.equal(y, ts.quant.fake_quantize(weight, scale, zero_point, -127, 127, axis=0))
    assert torch.equal(quantiser.eval()(weight), y)


def test_state_dict_carries_everything() -> None:
    for options, x in [({}, torch.randn(50)), ({"axis": 1}, torch.randn(3, 7))]:
        quantiser = trained(x, **options).disable_observer()
        loaded = FakeQuantize(**options)
        loaded.load_state_dict(quantiser.state_dict())
        assert_same_state(state_of(loaded), state_of(quantiser))
        before = state_of(loaded)
        assert torch.equal(loaded(x), quantiser(x))
        assert_same_state(state_of(loaded), before)  # the observer is off here too
        buffer = io.BytesIO()
        torch.save(quantiser.state_dict(), buffer)
        buffer.seek(0)
        assigned = FakeQuantize(**options)
        assigned.load_state_dict(torch.load(buffer, weights_only=True), assign=True)
        assert torch.equal(assigned.eval()(x), quantiser.eval()(x))


def test_flags_written_in_place_count() -> None:
    quantiser = trained(torch.randn(50))
    before = state_of(quantiser)
    quantiser.observer_enabled.zero_()
    quantiser(torch.randn(50) * 9)
    assert_same_state(state_of(quantiser)[:4], before[:4])


def test_copies_are_independent() -> None:
    quantiser = trained(torch.randn(50))
    twin = copy.deepcopy(quantiser)
    before = state_of(twin)
    quantiser(torch.randn(50) * 10)
    assert_same_state(state_of(twin), before)


def test_what_is_not_finite_is_refused_and_changes_nothing() -> None:
    quantiser = trained(torch.randn(50))
    before = state_of(quantiser)
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantiser(torch.tensor([0.0, math.nan]))
    assert_same_state(state_of(quantiser), before)


@pytest.mark.parametrize("observer", ["moving_average", "min_max", "histogram", "percentile", "mse", "entropy"])
@pytest.mark.parametrize(("axis", "shape"), [(1, (4, 2, 3)), (-1, (4, 6, 1)), (0, (2, 6, 3))])
def test_groups_have_grids_of_their_own(observer: str, axis: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(4, 6, 3, requires_grad=True)
    group_size = x.shape[axis] // shape[axis]
    quantiser = trained(x.detach(), observer=observer, bits=4, axis=axis, group_size=group_size)
    assert quantiser.scale.shape == quantiser.zero_point.shape == shape
    moved = x.detach().movedim(axis, -1)
    for index in (0, -1):  # the first and the last group see only their own values
        group = moved[0, 0, :group_size] if index == 0 else moved[-1, -1, -group_size:]
        scale = quantiser.scale.movedim(axis, -1).flatten()[index]
        alone = trained(group, observer=observer, bits=4, axis=0, group_size=group_size)
        torch.testing.assert_close(scale, alone.scale[0])
    expected = ts.quant.fake_quantize_group(x, quantiser.scale, quantiser.zero_point, -8, 7, group_size, axis)
    for mode in (False, True):
        y = quantiser.train(mode)(x)
        if not mode:
            assert torch.equal(y, expected)
        assert torch.autograd.grad(y.sum(), x)[0].sum() > 0
    loaded = FakeQuantize(observer, bits=4, axis=axis, group_size=group_size).eval()
    loaded.load_state_dict(quantiser.state_dict())
    assert torch.equal(loaded(x), quantiser.eval()(x))


def test_a_group_that_does_not_divide_is_refused_and_nothing_changes() -> None:
    quantiser = FakeQuantize(axis=1, group_size=4)
    before = state_of(quantiser)
    with pytest.raises(ValueError, match="group_size must divide dimension 1 of size 6, got 4"):
        quantiser(torch.randn(2, 6))
    assert_same_state(state_of(quantiser), before)


@pytest.mark.parametrize("observer", ["moving_average", "min_max", "mse"])
@pytest.mark.parametrize("rounds", [True, False])
def test_a_first_tensor_that_is_refused_leaves_the_channels_uncounted(observer: str, rounds: bool) -> None:
    quantiser = FakeQuantize(observer, axis=-1).enable_fake_quant(rounds)
    before = state_of(quantiser)
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantiser(torch.full((2, 5), math.nan))
    assert_same_state(state_of(quantiser), before)
    x = torch.randn(2, 3, requires_grad=True)
    y = quantiser(x)
    assert quantiser.scale.shape == (3,) and not quantiser.scale.requires_grad
    assert torch.equal(y, quantiser.eval()(x))


@pytest.mark.parametrize("rounds", [True, False])
def test_a_first_compiled_forward_counts_the_channels(rounds: bool) -> None:
    torch.compiler.reset()  # what earlier tests compiled counts towards the limit
    eager, twin = (FakeQuantize(axis=1).enable_fake_quant(rounds) for _ in range(2))
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in torch.randn(3, 4, 5):
        assert torch.equal(compiled(batch), eager(batch))
    assert_same_state(state_of(eager), state_of(twin))


@pytest.mark.parametrize("observer", ["min_max", "histogram"])
@pytest.mark.parametrize("axis", [None, 0])
def test_a_range_as_wide_as_float32_has_a_grid(observer: str, axis: int | None) -> None:
    x = torch.tensor([[-3.4e38, 3.4e38]])
    for bits in (1, 2, 8):
        quantiser = trained(x, observer=observer, bits=bits, axis=axis)
        assert quantiser.scale.isfinite().all()


def test_nothing_observed_has_no_qparams() -> None:
    with pytest.raises(ValueError, match="no range has been observed yet"):
        FakeQuantize().calculate_qparams()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"observer": "median"}, ValueError, "observer must be one of moving_average, min_max, .*, got 'median'"),
        ({"observer": 3}, TypeError, "observer must be a name or an observer, got 3"),
        ({"bits": 0}, ValueError, r"bits must be in \[1, 16\], got 0"),
        ({"bits": 17}, ValueError, r"bits must be in \[1, 16\], got 17"),
        ({"bits": 1, "symmetric": True}, ValueError, "a symmetric grid of 1 bit has one point; choose bits >= 2"),
        ({"group_size": 4}, ValueError, "group_size 4 needs `axis`"),
        ({"group_size": 0, "axis": 0}, ValueError, "group_size must be >= 1, got 0"),
        ({"activation": "gelu"}, ValueError, "activation must be one of none, relu, relu6, got 'gelu'"),
        ({"activation": "relu", "axis": 0}, ValueError, "activation 'relu' needs one grid for the tensor, got axis 0"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"FakeQuantize: {message}"):
        FakeQuantize(**options)


def test_bad_averaging_constant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"averaging_constant must be in \(0, 1\], got 0"):
        MovingAverageObserver(0)


@pytest.mark.parametrize("options", [{}, {"activation": "relu6"}, {"axis": 1}])
def test_compiles_whole_and_trains_the_same(options: Any) -> None:
    torch.compiler.reset()  # what earlier tests compiled counts towards the limit
    batches = [torch.randn(4, 5) for _ in range(3)]
    eager = trained(batches[0], **options)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in batches:
        results = []
        for model in (eager, compiled):
            x = batch.clone().requires_grad_()
            y = model(x)
            y.sum().backward()
            results.append((y.detach(), x.grad))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert_same_state(state_of(eager), state_of(twin))
    assert torch.equal(
        torch.compile(twin.eval(), fullgraph=True, backend="aot_eager")(batches[0]), eager.eval()(batches[0])
    )


@pytest.mark.parametrize(
    ("activation", "op"),
    [
        ("none", torch.ops.torchslim.fake_quantize.tensor_qparams),
        ("relu", torch.ops.torchslim.clamp_fake_quantize.default),
    ],
)
def test_exports_as_one_node(activation: str, op: object) -> None:
    quantiser = trained(torch.randn(50), activation=activation).eval()
    exported = torch.export.export(quantiser, (torch.randn(50),))
    assert [node.target for node in exported.graph.nodes if node.op == "call_function"] == [op]
    x = torch.randn(50)
    assert torch.equal(exported.module()(x), quantiser(x))


@pytest.mark.parametrize(
    ("activation", "kinds"),
    [("none", []), ("relu", ["aten::relu"]), ("relu6", ["aten::relu6"])],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_trace_holds_the_activation_and_one_node(activation: str, kinds: list[str], training: bool) -> None:
    quantiser = trained(torch.randn(50), activation=activation).train(training)
    before = state_of(quantiser)
    traced = torch.jit.trace(quantiser, torch.randn(50), check_trace=False)
    nodes = [node.kind() for node in traced.inlined_graph.nodes() if not node.kind().startswith("prim::")]
    assert nodes == [*kinds, "torchslim::fake_quantize"]
    assert_same_state(state_of(quantiser), before)
    x = torch.randn(50)
    assert torch.equal(traced(x), quantiser.eval()(x))


def test_trains_under_autocast() -> None:
    model = nn.Sequential(nn.Linear(8, 8), FakeQuantize(activation="relu"))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(4, 8))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert model[0].weight.grad.dtype == torch.float32
    assert model[1].scale.dtype == torch.float32


@pytest.mark.parametrize("name", ["histogram", "percentile", "mse", "entropy"])
def test_an_observer_with_a_histogram_cuts_outliers(name: str) -> None:
    x = torch.cat([torch.randn(20000), torch.tensor([60.0])]).requires_grad_()
    quantiser = FakeQuantize(name, bits=4, activation="relu")
    y = quantiser(x)
    assert quantiser.max_val < 60 if name != "percentile" else quantiser.observer.max_val == 60
    assert torch.equal(y, ts.quant.fake_quantize(x.relu(), quantiser.scale, quantiser.zero_point, -8, 7))
    assert torch.autograd.grad(y.sum(), x)[0].any()
    assert quantiser.state_dict()["observer.histogram"].sum() == 20001
    loaded = FakeQuantize(name, bits=4, activation="relu").eval()
    loaded.load_state_dict(quantiser.state_dict())
    assert torch.equal(loaded(x), y)
    before = loaded.scale.clone()
    loaded(100 * x)
    assert torch.equal(loaded.scale, before)


def test_an_observer_gives_its_settings_and_takes_the_grid() -> None:
    template = ts.quant.PercentileObserver(99.0, bins=512, axis=1)
    quantisers = [FakeQuantize(template, bits=3, symmetric=True) for _ in range(2)]
    quantisers[0](torch.randn(100))
    assert (quantisers[0].observer.quant_min, quantisers[0].observer.axis) == (-3, None)
    assert quantisers[0].state_dict()["observer.histogram"].shape == (512,)
    assert quantisers[1].state_dict()["observer.histogram"].sum() == 0
    channels = FakeQuantize("mse", axis=1, symmetric=True)
    channels(torch.randn(300, 3) * torch.tensor([1.0, 10.0, 0.0]))
    assert channels.scale.shape == (3,) and channels.scale[2] == 1
    skipping = FakeQuantize(ts.quant.MinMaxObserver(non_finite="skip"))
    assert skipping(torch.tensor([1.0, math.nan])).isnan().tolist() == [False, True]
    assert skipping.max_val == 1
    with pytest.raises(
        ValueError, match="the observer has group_size 4, the quantiser None; give group_size to the quantiser"
    ):
        FakeQuantize(ts.quant.MinMaxObserver(axis=0, group_size=4))
