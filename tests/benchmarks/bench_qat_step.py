# SPDX-License-Identifier: BSD-3-Clause
"""One training step of the example's student on int8 grids, against the same step in float and torch.ao's."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import Case
from torch import nn

import torchslim as ts

_BATCH = 128


def _student() -> nn.Module:
    torch.manual_seed(0)
    model = ts.models.mobilenet_v1(10, in_channels=1, channels=(16, 32, 64, 80, 80, 80), strides=(2, 1, 2, 1, 1, 1))
    return model.train().to(memory_format=torch.channels_last)


def _step(model: nn.Module) -> Callable[[], object]:
    """A whole step: forward, loss, backward, SGD with momentum."""
    images = torch.randn(_BATCH, 1, 28, 28).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (_BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> object:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _torch_ao(model: nn.Module) -> nn.Module | None:
    """The same model prepared by torch.ao's FX quantisation, or None where torch lacks it."""
    try:
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
    except ImportError:
        return None
    mapping = get_default_qat_qconfig_mapping("qnnpack")
    return prepare_qat_fx(copy.deepcopy(model), mapping, (torch.zeros(1, 1, 28, 28),))


def cases(threads: int) -> list[Case]:
    """The QAT step; "clone" is the float step, and the promise is at most 1.3 times that."""
    model = _student()
    prepared = ts.quant.prepare(model, torch.zeros(1, 1, 28, 28))
    prepared = prepared.to(memory_format=torch.channels_last)
    ours, plain = _step(prepared), _step(copy.deepcopy(model))
    peer = _torch_ao(model)
    return [
        Case(
            "QAT step (clone: float step)",
            ours,
            "float" if peer is None else "torch.ao",
            plain if peer is None else _step(peer),
            plain,
            f"{_BATCH}x1x28x28",
            most_ratio_to_clone=1.3,
        )
    ]
