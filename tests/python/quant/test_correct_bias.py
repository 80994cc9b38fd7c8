# SPDX-License-Identifier: BSD-3-Clause
import copy
import math
from collections.abc import Callable

import pytest
import torch
from reference.quant_networks import NETWORKS, Depthwise, Residual, Vgg, example, shake
from torch import Tensor, nn
from trained_tools import assert_state, calibrated_and_data, in_float, prepared_and_data, smooth_images, state

import torchslim as ts
from torchslim.quant import PreparedModel


def outputs_before_activations(model: PreparedModel, data: list[Tensor]) -> dict[str, Tensor]:
    """The mean of each layer's channels over all data, behind the batch norm."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, ts.quant.QuantConv2d | ts.quant.QuantLinear):

            def keep(_: nn.Module, x: tuple[Tensor], name: str = name) -> None:
                seen[name] = x[0].double().transpose(0, 1).flatten(1).mean(1)

            handles.append(module.output_fake_quantize.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(torch.cat(data))
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("network", NETWORKS)
def test_each_layer_has_the_mean_it_has_in_float(network: type[nn.Module]) -> None:
    prepared, data = calibrated_and_data(network)
    ts.quant.disable_fake_quant(prepared)
    expected = outputs_before_activations(prepared, data)
    ts.quant.enable_fake_quant(prepared)
    before = outputs_before_activations(prepared, data)
    left = ts.quant.correct_bias(prepared, data)
    after = outputs_before_activations(prepared, data)
    assert left == (["7", "13"] if network is Depthwise else [])
    for name, wanted in expected.items():
        error = (after[name] - wanted).abs()
        if name in left:
            continue
        # A bias lies on the accumulator's grid, which is finer than this by far.
        torch.testing.assert_close(after[name], wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
        assert error.sum() < 0.2 * (before[name] - wanted).abs().sum()


@pytest.mark.parametrize("apply", [ts.quant.apply_gptq, ts.quant.apply_adaround])
def test_after_rounding_the_reference_is_the_float_model(apply: Callable[..., None]) -> None:
    """The model that was prepared, or a copy from before; batch norms that were estimated anew are not asked."""
    torch.manual_seed(0)
    model = Residual()
    shake(model)
    prepared, data = ts.quant.prepare(model, example()).eval(), [smooth_images() for _ in range(3)]
    ts.quant.calibrate(prepared, data)
    before = copy.deepcopy(prepared)
    ts.quant.disable_fake_quant(prepared)
    expected = outputs_before_activations(prepared, data)
    ts.quant.enable_fake_quant(prepared)
    apply(prepared, data, 3, **({"iterations": 20} if apply is ts.quant.apply_adaround else {}))
    ts.quant.reestimate_batch_norm(prepared, data)
    found = []
    for reference in (None, model, before):
        corrected = copy.deepcopy(prepared)
        assert ts.quant.correct_bias(corrected, data, reference=reference) == []
        assert torch.equal(corrected.stem_bn.running_mean, prepared.stem_bn.running_mean)
        assert torch.equal(corrected.stem.weight, prepared.stem.weight)
        found.append(outputs_before_activations(corrected, data))
    steps = {name: float(prepared.get_submodule(name).output_fake_quantize.scale) for name in expected}
    errors = [
        {name: float((means[name] - expected[name]).abs().max()) / steps[name] for name in steps} for means in found
    ]
    # In steps of the output's grid, to which eval rounds: half a step before the offset is added, half a step after.
    assert max(errors[1].values()) < 1 and max(errors[2].values()) < 1
    assert max(errors[0].values()) > 50


def test_refuses_another_reference() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = state(prepared)
    for reference, message in (
        (prepared, r"the reference shares 'stem.weight' with the model, so it is rounded too; pass a copy"),
        (Vgg(), r"the reference has no 'stem.weight' of shape \(8, 3, 3, 3\); pass the model that was prepared"),
    ):
        with pytest.raises(ValueError, match="torchslim.quant.correct_bias: " + message):
            ts.quant.correct_bias(prepared, data, reference=reference)
        assert_state(prepared, before)


def test_only_biases_change() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = state(prepared)
    expected = in_float(prepared, data[0])
    heard: list[tuple[int, int]] = []
    ts.quant.correct_bias(prepared.train(), data, progress=lambda *step: heard.append(step))
    assert prepared.training and heard == [(i, 5) for i in range(1, 6)]
    changed = {name for name, tensor in prepared.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {"stem_bn.bias", "bn1.bias", "bn2.bias", "shortcut.1.bias", "classifier.bias"}
    prepared.load_state_dict(before)
    assert torch.equal(in_float(prepared.eval(), data[0]), expected)


def test_after_an_error_the_model_is_as_it_was() -> None:
    prepared, data = calibrated_and_data(Vgg)
    before = state(prepared)

    def fail(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ts.quant.correct_bias(prepared, data, progress=fail)
    assert_state(prepared, before)
    for loader, message in (
        ([*data, data[0] * math.nan], r"batch 3 holds NaN or infinity"),
        ([], r"there is no batch"),
        (iter(data), r"the loader can be read once only, but each layer reads it; pass a DataLoader or list$"),
    ):
        with pytest.raises(ValueError, match="torchslim.quant.correct_bias: " + message):
            ts.quant.correct_bias(prepared, loader)
        assert_state(prepared, before)
        assert all(not module._forward_pre_hooks for module in prepared.modules())


def test_refuses_a_model_that_is_not_ready() -> None:
    prepared, data = prepared_and_data(Vgg)
    with pytest.raises(ValueError, match=r"layer 'conv1' has seen no data; call torchslim.quant.calibrate first$"):
        ts.quant.correct_bias(prepared, data)
    with pytest.raises(
        ValueError, match=r"expected a prepared model .*, got Vgg without; call torchslim.quant.prepare"
    ):
        ts.quant.correct_bias(Vgg(), data)
