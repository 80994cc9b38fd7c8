# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of methods for trained models share."""

import torch
from reference.quant_networks import example, shake
from torch import Tensor, nn

import torchslim as ts
from torchslim.quant import PreparedModel


def smooth_images(count: int = 8) -> Tensor:
    """Images of which near pixels are alike."""
    return nn.functional.avg_pool2d(torch.randn(count, 3, 18, 18), 3, 1) * 2


def prepared_and_data(network: type[nn.Module], batches: int = 3) -> tuple[PreparedModel, list[Tensor]]:
    """A prepared model in eval that has seen no data, its batch norms far from the identity; and data."""
    torch.manual_seed(0)
    model = network()
    shake(model)
    return ts.quant.prepare(model, example()).eval(), [smooth_images() for _ in range(batches)]


def calibrated_and_data(network: type[nn.Module], batches: int = 3) -> tuple[PreparedModel, list[Tensor]]:
    """The same after calibration."""
    prepared, data = prepared_and_data(network, batches)
    ts.quant.calibrate(prepared, data)
    return prepared, data


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_state(model: nn.Module, before: dict[str, Tensor]) -> None:
    now = model.state_dict()
    assert now.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(now[name], tensor), name


def in_float(model: PreparedModel, images: Tensor) -> Tensor:
    ts.quant.disable_fake_quant(model)
    with torch.no_grad():
        y: Tensor = model(images)
    ts.quant.enable_fake_quant(model)
    return y
