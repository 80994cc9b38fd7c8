# SPDX-License-Identifier: BSD-3-Clause
from typing import Any

import pytest
import torch
from reference.quant_networks import Residual, Vgg, example
from torch import nn

import torchslim as ts
from torchslim.quant import PreparedModel, QuantizationSchedule


def prepared(network: type[nn.Module] = Residual) -> PreparedModel:
    torch.manual_seed(0)
    return ts.quant.prepare(network(), example())


def switches(model: PreparedModel) -> tuple[bool, bool, bool]:
    """(observes, rounds, batch norms are frozen)"""
    quantizer = model.input_fake_quantize
    return bool(quantizer.observer_enabled), bool(quantizer.fake_quant_enabled), not model.bn1.training


def test_switches_follow_the_number_of_steps() -> None:
    model = prepared()
    schedule = QuantizationSchedule(
        model, observe_from=1, quantize_from=2, freeze_observers_at=4, freeze_batch_norm_at=3
    )
    seen = [switches(model)]
    for _ in range(5):
        schedule.step()
        seen.append(switches(model))
    assert seen == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (False, True, True),
        (False, True, True),
    ]


def test_by_default_everything_is_on_and_stays() -> None:
    model = prepared()
    schedule = QuantizationSchedule(model)
    for _ in range(3):
        assert switches(model) == (True, True, False)
        schedule.step()


def test_a_switch_by_hand_holds_until_the_next_change() -> None:
    model = prepared()
    schedule = QuantizationSchedule(model, freeze_observers_at=3)
    ts.quant.disable_fake_quant(model)
    schedule.step()
    assert switches(model) == (True, False, False)
    schedule.step()
    schedule.step()
    assert switches(model) == (False, False, False)


def test_its_state_goes_on_where_it_was() -> None:
    model = prepared()
    schedule = QuantizationSchedule(model, quantize_from=2, freeze_batch_norm_at=3)
    for _ in range(3):
        schedule.step()
    fresh_model = prepared()
    fresh = QuantizationSchedule(fresh_model, quantize_from=2, freeze_batch_norm_at=3)
    fresh.load_state_dict(schedule.state_dict())
    assert switches(fresh_model) == switches(model) == (True, True, True)
    assert fresh.state_dict() == {"step": 3}
    with pytest.raises(ValueError, match="a number of steps"):
        fresh.load_state_dict({"steps": 3})


def test_a_model_without_batch_norms_takes_one_too() -> None:
    model = prepared(Vgg)
    schedule = QuantizationSchedule(model, freeze_batch_norm_at=1)
    schedule.step()
    assert bool(model.input_fake_quantize.observer_enabled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observe_from": -1}, "observe_from must be >= 0, got -1"),
        ({"observe_from": 5, "quantize_from": 4}, "must not be before observe_from"),
        ({"observe_from": 5, "quantize_from": 6, "freeze_observers_at": 5}, "must be after observe_from"),
        ({"freeze_batch_norm_at": -2}, "freeze_batch_norm_at must be >= 0"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizationSchedule(prepared(), **arguments)


def test_a_float_model_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a prepared model, got Residual"):
        QuantizationSchedule(Residual())  # type: ignore[arg-type]
