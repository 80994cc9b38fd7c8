# SPDX-License-Identifier: BSD-3-Clause
import math

import pytest
import torch
from reference.quant_networks import Depthwise, Residual, Vgg
from torch import Tensor, nn
from trained_tools import assert_state, calibrated_and_data, state

import torchslim as ts


@pytest.mark.parametrize("network", [Residual, Depthwise])
@pytest.mark.parametrize("rounds", [True, False])
def test_statistics_are_the_mean_over_batches(network: type[nn.Module], rounds: bool) -> None:
    """Of what the batch norm is given: in a prepared model, of rounded weights."""
    prepared, data = calibrated_and_data(network)
    (ts.quant.enable_fake_quant if rounds else ts.quant.disable_fake_quant)(prepared)
    seen: dict[str, list[Tensor]] = {}
    for name, module in prepared.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            seen[name] = []
            module.register_forward_pre_hook(lambda _, x, name=name: seen[name].append(x[0].detach().double()))
    before = state(prepared)
    ts.quant.reestimate_batch_norm(prepared, data)
    for name, inputs in seen.items():
        norm = prepared.get_submodule(name)
        assert len(inputs) == 3
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        var = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=1e-6)
        assert norm.num_batches_tracked == 3 and norm.momentum == 0.1
    for name, tensor in prepared.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(before[name], tensor), name


def test_the_weights_are_rounded() -> None:
    prepared, data = calibrated_and_data(Residual)
    ts.quant.reestimate_batch_norm(prepared, data)
    rounded, _ = torch.ops.torchslim.fake_quantize_weight(prepared.stem.weight.detach())
    outputs = [
        nn.functional.conv2d(prepared.input_fake_quantize(batch), rounded, padding=1).mean((0, 2, 3)) for batch in data
    ]
    torch.testing.assert_close(prepared.stem_bn.running_mean, torch.stack(outputs).mean(0), rtol=1e-5, atol=1e-6)


def test_frozen_batch_norms_and_modes_stay() -> None:
    prepared, data = calibrated_and_data(Residual)
    ts.quant.freeze_batch_norm(prepared.train())
    modes = [module.training for module in prepared.modules()]
    old = prepared.stem_bn.running_mean.clone()
    heard: list[tuple[int, int]] = []
    ts.quant.reestimate_batch_norm(prepared, data, progress=lambda *step: heard.append(step))
    assert [module.training for module in prepared.modules()] == modes
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert not torch.equal(prepared.stem_bn.running_mean, old)


def test_a_float_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.9))
    x = torch.randn(8, 3)
    ts.quant.reestimate_batch_norm(model, [x])
    torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0).detach())
    assert model.training


def test_after_an_error_the_model_is_as_it_was() -> None:
    prepared, data = calibrated_and_data(Residual)
    before = state(prepared)
    for loader, message in (
        ([*data, data[0] * math.inf], r"batch 3 holds NaN or infinity"),
        ([], r"there is no batch"),
    ):
        with pytest.raises(ValueError, match="torchslim.quant.reestimate_batch_norm: " + message):
            ts.quant.reestimate_batch_norm(prepared, loader)
        assert_state(prepared, before)
        assert prepared.stem_bn.momentum == 0.1
    with pytest.raises(ValueError, match=r"Expected more than 1 value per channel"):
        ts.quant.reestimate_batch_norm(nn.BatchNorm1d(2), [torch.ones(1, 2)])
    with pytest.raises(ValueError, match=r"the model has no batch norm with running statistics$"):
        ts.quant.reestimate_batch_norm(Vgg(), data)
