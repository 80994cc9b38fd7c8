# SPDX-License-Identifier: BSD-3-Clause
import math
from collections.abc import Callable

import pytest
import torch
from reference.quant_networks import NETWORKS, Residual, Vgg, example
from torch import Tensor, nn
from trained_tools import assert_state, prepared_and_data, state

import torchslim as ts
from torchslim.quant import FakeQuantize


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_moves_ranges_and_nothing_else(network: type[nn.Module], training: bool) -> None:
    prepared, data = prepared_and_data(network)
    prepared.train(training)
    modes = [module.training for module in prepared.modules()]
    before = state(prepared)
    ts.quant.calibrate(prepared, data)
    assert [module.training for module in prepared.modules()] == modes
    quantizers = {name: m for name, m in prepared.named_modules() if isinstance(m, FakeQuantize)}
    assert all(quantizer.min_val.isfinite() for quantizer in quantizers.values())
    for name, tensor in prepared.state_dict().items():
        if name.rpartition(".")[0] not in quantizers:
            assert torch.equal(before[name], tensor), name
    assert all(p.grad is None for p in prepared.parameters())


def test_the_ranges_are_those_of_eval() -> None:
    prepared, data = prepared_and_data(Residual, batches=1)
    ts.quant.calibrate(prepared, data)
    quantizer = prepared.input_fake_quantize
    assert quantizer.min_val == data[0].min() and quantizer.max_val == data[0].max()
    seen: list[Tensor] = []
    prepared.stem.output_fake_quantize.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        prepared.eval()(data[0])
    assert prepared.stem.output_fake_quantize.max_val == seen[0].max()


def test_goes_on_from_what_was_seen() -> None:
    whole, data = prepared_and_data(Vgg)
    parts, _ = prepared_and_data(Vgg)
    ts.quant.calibrate(whole, data)
    for batch in data:
        ts.quant.calibrate(parts, [batch])
    assert_state(parts, state(whole))


def test_reads_tuples_and_streams_and_tells_how_far_it_is() -> None:
    plain, data = prepared_and_data(Vgg)
    streamed, _ = prepared_and_data(Vgg)
    heard: list[tuple[int, int]] = []
    ts.quant.calibrate(plain, data, progress=lambda *step: heard.append(step))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    heard.clear()
    ts.quant.calibrate(streamed, ((x, torch.zeros(8)) for x in data), progress=lambda *step: heard.append(step))
    assert heard == [(1, 0), (2, 0), (3, 0)]
    assert_state(streamed, state(plain))


def test_only_enabled_observers_move() -> None:
    prepared, data = prepared_and_data(Vgg)
    prepared.conv1.output_fake_quantize.disable_observer()
    ts.quant.calibrate(prepared, data)
    assert prepared.conv1.output_fake_quantize.min_val == math.inf
    assert prepared.conv2.output_fake_quantize.min_val.isfinite()


@pytest.mark.parametrize("seen_before", [True, False])
@pytest.mark.parametrize("observer", ["moving_average", "histogram"])
def test_after_an_error_the_model_is_as_it_was(seen_before: bool, observer: str) -> None:
    torch.manual_seed(0)
    prepared = ts.quant.prepare(Vgg(), example(), {"observer": observer})
    if seen_before:
        ts.quant.calibrate(prepared, [example()])
    before = state(prepared)
    broken = example()
    broken[1, 2, 3, 4] = math.nan

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    cases: list[tuple[object, Callable[[int, int], None] | None, type[BaseException], str]] = [
        ([example(), broken], None, ValueError, r"batch 1 holds NaN or infinity"),
        ([], None, ValueError, r"there is no batch"),
        ([example()[:0]], None, ValueError, r"batch 0 is empty"),
        ([example(), "x"], None, TypeError, r"batch 1 must be a tensor, or a tuple that begins with one, got str$"),
        ([example()], fail, KeyboardInterrupt, ""),
    ]
    for loader, progress, error, message in cases:
        with pytest.raises(error, match="torchslim.quant.calibrate: " + message if message else None):
            ts.quant.calibrate(prepared, loader, progress=progress)  # type: ignore[arg-type]
        assert_state(prepared, before)
        assert all(module.training for module in prepared.modules())


def test_channels_seen_before_an_error_are_forgotten() -> None:
    """The first forward gives a quantiser per channel its shape."""
    quantizer = FakeQuantize(axis=1).eval()
    with pytest.raises(ValueError, match=r"batch 1 holds NaN"):
        ts.quant.calibrate(quantizer, [torch.randn(2, 3), torch.full((2, 3), math.nan)])
    assert quantizer.min_val.shape == (0,)
    ts.quant.calibrate(quantizer, [torch.randn(2, 4)])
    assert quantizer.min_val.shape == (4,)


def test_refuses_a_model_that_observes_nothing() -> None:
    prepared, data = prepared_and_data(Vgg)
    ts.quant.disable_observer(prepared)
    for model in (prepared, nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=r"no quantiser of the model observes; call torchslim.quant.prepare"):
            ts.quant.calibrate(model, data)
