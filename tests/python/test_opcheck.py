# SPDX-License-Identifier: BSD-3-Clause
"""`torch.library.opcheck` on every operator of ours: schema, autograd registration, fake tensors, AOT autograd."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torchslim as ts  # noqa: F401  registers the operators

Sample = tuple[Any, ...]


def _x(requires_grad: bool = True) -> Tensor:
    x = torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last)
    return x.requires_grad_(requires_grad)


def _channels() -> tuple[Tensor, Tensor]:
    return torch.rand(8) + 0.05, torch.arange(8, dtype=torch.int32) - 4


def _grid() -> tuple[Tensor, Tensor]:
    return torch.tensor(0.1), torch.tensor(3, dtype=torch.int32)


def _levels() -> tuple[Tensor, Tensor]:
    return torch.tensor([-1.0, -0.25, 0.0, 0.25, 1.0]), torch.tensor(1.5)


def _state(*shape: int) -> Sample:
    low, high = torch.full(shape, math.inf), torch.full(shape, -math.inf)
    return low, high, torch.ones(shape), torch.zeros(shape, dtype=torch.int32)


def _bins(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def _seen(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    histogram, low, high = _bins(*shape, 64), *_state(*shape)[:2]
    torch.ops.torchslim.observe_histogram(torch.randn(*shape, 500), histogram, low, high, 0 if shape else None)
    return histogram, low, high


def _cut() -> Tensor:
    return torch.randint(0, 256, (50,), dtype=torch.uint8)


def _learned(*shape: int, requires_grad: bool = True) -> tuple[Tensor, Tensor]:
    scale = (torch.rand(shape) + 0.05).requires_grad_(requires_grad)
    return scale, torch.full(shape, 1.5, requires_grad=requires_grad)


def _logits(requires_grad: bool = False) -> Tensor:
    return torch.randn(5, 7, requires_grad=requires_grad)


#: Arguments for each operator; more than one if it has more than one path. A new operator needs a line here.
SAMPLES: dict[str, Callable[[], list[Sample]]] = {
    "torchslim::fake_quantize": lambda: [(_x(), 0.1, 3, -8, 7), (_x(False), 0.1, 3, -8, 7)],
    "torchslim::fake_quantize.tensor_qparams": lambda: [
        (_x(), *_grid(), -8, 7),
        (_x(), *_channels(), -8, 7, 1),
        (_x(False).bfloat16(), *_channels(), -8, 7, -3),
    ],
    "torchslim::fake_quantize_passthrough": lambda: [(_x(), *_grid(), -8, 7), (_x(False), *_channels(), -8, 7, 1)],
    "torchslim::fake_quantize_stochastic": lambda: [
        (_x(), *_grid(), -8, 7, None, torch.tensor(5)),
        (_x(False).bfloat16(), *_channels(), -8, 7, 1, torch.tensor(5)),
    ],
    "torchslim::_fake_quantize_stochastic_cut": lambda: [(_x(False), *_channels(), -8, 7, 1, torch.tensor(5))],
    "torchslim::fake_quantize_group": lambda: [
        (_x(), torch.rand(2, 2, 5, 5) + 0.05, torch.zeros(2, 2, 5, 5), -8, 7, 4, 1),
        (_x(False).contiguous(), torch.rand(2, 8, 5, 1) + 0.05, torch.zeros(1, 1, 1, 1), -8, 7, 5),
    ],
    "torchslim::clamp_fake_quantize": lambda: [(_x(), *_grid(), -8, 7, 0.0, 6.0), (_x(False), *_grid(), -8, 7, 0.0)],
    "torchslim::binary_fake_quantize": lambda: [(_x(),), (_x(), 1, "passthrough"), (_x(False).bfloat16(), -3)],
    "torchslim::ternary_fake_quantize": lambda: [(_x(),), (_x(), 1, "clipped"), (_x(False).half(), 0)],
    "torchslim::_sign_fake_quantize_cut": lambda: [(_x(False), None, False), (_x(False), 1, True)],
    "torchslim::float_fake_quantize": lambda: [
        (_x(), 4, 3, 7, "nan", True),
        (_x(), 5, 2, 15, "ieee", False, _channels()[0], 1, "passthrough"),
        (_x(False).bfloat16(), 4, 3, 7, "nan", True, torch.tensor(0.5)),
    ],
    "torchslim::_float_fake_quantize_cut": lambda: [(_x(False), 4, 3, 7, "nan", True, _channels()[0], 1)],
    "torchslim::block_float_fake_quantize": lambda: [
        (_x(), 2, 1, 1, "none", 4, 1),
        (_x(), 4, 3, 7, "nan", 5, -1, "passthrough"),
        (_x(False).half(), 2, 1, 1, "none", 8, 1),
    ],
    "torchslim::_block_float_fake_quantize_cut": lambda: [(_x(False), 2, 1, 1, "none", 4, 1)],
    "torchslim::level_fake_quantize": lambda: [
        (_x(), *_levels()),
        (_x(), _levels()[0], _channels()[0], 1, "passthrough"),
        (_x(False).bfloat16(), _levels()[0], _channels()[0], -3),
    ],
    "torchslim::_level_fake_quantize_cut": lambda: [(_x(False), _levels()[0], _channels()[0], 1)],
    "torchslim::observe_fake_quantize": lambda: [
        (_x(), *_state(), 0.01, -128, 127, False, 0.0),
        (_x(False), *_state(), 0.01, -127, 127, True, None, None, True),
    ],
    "torchslim::observe_fake_quantize.channels": lambda: [
        (_x(), *_state(8), 1, 0.01, -128, 127, False),
        (_x(False).bfloat16(), *_state(5), -1, 0.01, -127, 127, True, True),
    ],
    "torchslim::_observe_fake_quantize_cut.channels": lambda: [(_x(False), *_state(8), 1, 0.01, -128, 127, False)],
    "torchslim::observe_channels": lambda: [(_x(False), *_state(8), 1, 0.01, -127, 127, True)],
    "torchslim::observe_range": lambda: [(_x(False), *_state()[:2]), (_x(False), *_state(2, 4, 5, 5)[:2], 1, 2, 0.1)],
    "torchslim::observe_histogram": lambda: [
        (_x(False), _bins(64), *_state()[:2]),
        (_x(False), _bins(8, 64), *_state(8)[:2], 1, None, True),
    ],
    "torchslim::l2_range": lambda: [(*_seen(), 256), (*_seen(3), 16)],
    "torchslim::percentile_range": lambda: [(*_seen(), 99.0), (*_seen(3), 99.9)],
    "torchslim::mse_range": lambda: [(*_seen(), -8, 7, False), (*_seen(3), -7, 7, True)],
    "torchslim::entropy_range": lambda: [(*_seen(), -8, 7, False), (*_seen(3), -7, 7, True)],
    "torchslim::update_qparams": lambda: [
        (*_state(), -8, 7, False, False),
        (*_seen(3)[1:], *_state(3)[2:], -7, 7, True, True),
    ],
    "torchslim::_fake_quantize_cut": lambda: [(_x(False), 0.1, 3, -8, 7)],
    "torchslim::_fake_quantize_cut.tensor_qparams": lambda: [(_x(False), *_channels(), -8, 7, 1)],
    "torchslim::_observe_fake_quantize_cut": lambda: [(_x(False), *_state(), 0.01, -128, 127, False, 0.0)],
    "torchslim::_fake_quantize_backward": lambda: [(_x(False), _cut(), [200, 1, 40, 8])],
    "torchslim::learned_fake_quantize": lambda: [
        (_x(), *_learned(), -8, 7),
        (_x(), *_learned(8), -8, 7, 1, "numel"),
        (_x(False), *_learned(8), -8, 7, -3, "features", "clip"),
        (_x(False).bfloat16(), *_learned(1, requires_grad=False), -8, 7),
    ],
    "torchslim::_learned_fake_quantize_backward": lambda: [
        (_x(False), _x(False), *_learned(8, requires_grad=False), -8, 7, 1, "numel", "rounded", [True, True, True]),
        (_x(False), _x(False), *_learned(requires_grad=False), -8, 7, None, "none", "clip", [False, True, False]),
    ],
    "torchslim::positive_scale": lambda: [(_learned(3)[0],)],
    "torchslim::pact_scale": lambda: [(_learned(3)[0], -8, 7)],
    "torchslim::trained_threshold_scale": lambda: [(_learned(3)[0], 7)],
    "torchslim::trainable_range_qparams": lambda: [(*_learned(3), -8, 7)],
    "torchslim::round_bias": lambda: [(torch.randn(4, requires_grad=True), torch.tensor(0.1), torch.rand(4) + 0.1)],
    "torchslim::round_average": lambda: [(torch.randn(2, 3, 1, 1, requires_grad=True), torch.tensor(0.1), 4)],
    "torchslim::kd_loss": lambda: [
        (_logits(True), _logits(), 4.0),
        (_logits(True), _logits(), 2.0, "batchmean", None, 0.9, torch.tensor([0, 3, -100, 6, 1]), 0.1),
        (_logits(), _logits(), 1.0, "sum", torch.tensor([1, 0, 1, 1, 0], dtype=torch.bool)),
    ],
    "torchslim::_kd_loss_and_gradient": lambda: [
        (_logits(), _logits(), 2.0, "batchmean", None, 0.9, torch.arange(5), 0.1, -100, 0.0)
    ],
    "torchslim::fake_quantize_weight": lambda: [
        (torch.randn(4, 3, 3, 3, requires_grad=True),),
        (torch.randn(4, 3, 3, 3), 4),
    ],
    "torchslim::weight_scale": lambda: [(torch.randn(4, 3, 3, 3), 4, "mse"), (torch.randn(4, 9), 8, "absmax")],
}

OPERATORS = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("torchslim::"))


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_keeps_the_rules(name: str) -> None:
    assert name in SAMPLES, f"{name} has no samples: add a line to SAMPLES in {__file__}"
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
    for arguments in SAMPLES[name]():
        torch.library.opcheck(operator, arguments)


def test_every_sample_has_its_operator() -> None:
    assert sorted(SAMPLES) == OPERATORS
