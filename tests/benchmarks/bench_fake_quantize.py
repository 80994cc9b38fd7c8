# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation against ATen's operators, and the fused observer against torch.ao's module."""

from collections.abc import Callable

import torch
from harness import Case
from torch import Tensor

import torchslim as ts

SHAPES = {"16 elements": (16,), "1 MB": (1 << 18,), "16 MB": (4 << 20,), "64 MB": (16 << 20,)}

ATEN = torch.fake_quantize_per_tensor_affine


def forward_backward(quantise: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of x, fresh each time."""
    return torch.autograd.grad(quantise(x), x, grad)[0]


def forward_case(name: str, shape: tuple[int, ...]) -> Case:
    """Without a gradient, as in evaluation."""
    x = torch.randn(shape)
    large = name == "16 MB"
    return Case(
        name="fake_quantize, forward",
        ours=lambda: ts.quant.fake_quantize(x, 0.02, 3, -128, 127),
        peer_name="torch.fake_quantize_per_tensor_affine",
        peer=lambda: ATEN(x, 0.02, 3, -128, 127),
        clone=x.clone,
        shape=name,
        least_ratio_to_peer=8.0 if large else None,
        most_ratio_to_clone=1.4 if large else None,
    )


def forward_backward_case(name: str, shape: tuple[int, ...]) -> Case:
    """As in training."""
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    return Case(
        name="fake_quantize, forward + backward",
        ours=lambda: forward_backward(lambda x: ts.quant.fake_quantize(x, 0.02, 3, -128, 127), x, grad),
        peer_name="torch.fake_quantize_per_tensor_affine",
        peer=lambda: forward_backward(lambda x: ATEN(x, 0.02, 3, -128, 127), x, grad),
        clone=x.detach().clone,
        shape=name,
        least_ratio_to_peer=6.0 if name == "16 MB" else None,
    )


def channel_case() -> Case:
    """The weights of a large convolution, one grid for each output channel."""
    weight = torch.randn(512, 512, 3, 3)
    scale, zero_point = ts.quant.weight_qparams(weight)
    return Case(
        name="fake_quantize per channel, forward",
        ours=lambda: ts.quant.fake_quantize(weight, scale, zero_point, -127, 127, axis=0),
        peer_name="torch.fake_quantize_per_channel_affine",
        peer=lambda: torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -127, 127),
        clone=weight.clone,
        shape="512 x 512 x 3 x 3",
    )


def observe_case() -> Case:
    """ReLU, observer and fake-quantise of one activation in training."""
    ao = torch.ao.quantization
    x, grad = torch.randn(64, 64, 28, 28, requires_grad=True), torch.randn(64, 64, 28, 28)
    ours = ts.quant.FakeQuantize(activation="relu")
    peer = ao.FusedMovingAvgObsFakeQuantize(
        ao.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
    )
    return Case(
        name="relu + FakeQuantize in training, forward + backward",
        ours=lambda: forward_backward(ours, x, grad),
        peer_name="relu + torch.ao FusedMovingAvgObsFakeQuantize",
        peer=lambda: forward_backward(lambda x: peer(torch.relu(x)), x, grad),
        clone=x.detach().clone,
        shape="64 x 64 x 28 x 28",
    )


def cases(threads: int) -> list[Case]:
    """From a few elements, where calls cost, to what no longer fits a cache."""
    torch.manual_seed(0)
    return [
        *(forward_case(*item) for item in SHAPES.items()),
        *(forward_backward_case(*item) for item in SHAPES.items()),
        channel_case(),
        observe_case(),
    ]
