# SPDX-License-Identifier: BSD-3-Clause
"""Fake-quantisation against ATen's operators, and the fused observer against torch.ao's module."""

import ctypes
from collections.abc import Callable

import torch
from harness import Case
from torch import Tensor

import torchslim as ts

ATEN = torch.fake_quantize_per_tensor_affine
MB = 1 << 20
#: Elements of float32 tensors: where calls cost, where the cache holds them, where it does not.
SMALL = {"64 x 10": (64, 10), "1 x 16": (1, 16)}
LARGE = {"1 MB": (MB // 4,), "16 MB": (4 * MB,), "64 MB": (16 * MB,), "256 MB": (64 * MB,)}
HUGE_PAGES_FROM = 32 * MB


def forward_backward(quantise: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of x, fresh each time."""
    return torch.autograd.grad(quantise(x), x, grad)[0]


def clone_of(x: Tensor) -> Callable[[], Tensor]:
    """A plain clone; of a large tensor one with huge pages, since it is page faults that a plain one waits for."""
    return (lambda: huge_page_clone(x)) if x.nbytes > HUGE_PAGES_FROM else x.clone


def huge_page_clone(x: Tensor) -> Tensor:
    """A clone whose memory was asked for in pages of 2 MB."""
    page, advise_huge_pages = 2 * MB, 14  # MADV_HUGEPAGE
    result = torch.empty_like(x)
    begin = -(-result.data_ptr() // page) * page
    end = (result.data_ptr() + result.nbytes) // page * page
    _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advise_huge_pages)
    return result.copy_(x)


_LIBC = ctypes.CDLL(None)


def forward_case(name: str, shape: tuple[int, ...]) -> Case:
    """Without a gradient, as in evaluation."""
    x = torch.randn(shape)
    least_to_aten = 1.0 if name in SMALL else 10.0 if name == "16 MB" else None
    return Case(
        name="fake_quantize, forward",
        ours=lambda: ts.quant.fake_quantize(x, 0.02, 3, -128, 127),
        peer_name="torch.fake_quantize_per_tensor_affine",
        peer=lambda: ATEN(x, 0.02, 3, -128, 127),
        clone=clone_of(x),
        shape=name,
        least_ratio_to_peer=least_to_aten,
        most_ratio_to_clone=1.3 if x.nbytes >= 16 * MB else None,
        traffic=2 if x.nbytes >= 16 * MB else None,
    )


def forward_backward_case(name: str, shape: tuple[int, ...]) -> Case:
    """As in training."""
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    return Case(
        name="fake_quantize, forward + backward",
        ours=lambda: forward_backward(lambda x: ts.quant.fake_quantize(x, 0.02, 3, -128, 127), x, grad),
        peer_name="torch.fake_quantize_per_tensor_affine",
        peer=lambda: forward_backward(lambda x: ATEN(x, 0.02, 3, -128, 127), x, grad),
        clone=clone_of(x.detach()),
        shape=name,
        least_ratio_to_peer=1.0 if name in SMALL else 8.0 if name == "16 MB" else None,
        traffic=4 if x.nbytes >= 16 * MB else None,
    )


def channel_case(shape: tuple[int, ...], axis: int, layout: torch.memory_format) -> Case:
    """One grid for each channel: of a large convolution's weights, or of activations."""
    x = torch.randn(shape).to(memory_format=layout)
    scale, zero_point = torch.rand(shape[axis]) * 0.02 + 0.01, torch.zeros(shape[axis], dtype=torch.int32)
    suffix = ", channels_last" if layout == torch.channels_last else ""
    return Case(
        name=f"fake_quantize, axis {axis}{suffix}",
        ours=lambda: ts.quant.fake_quantize(x, scale, zero_point, -128, 127, axis=axis),
        peer_name="torch.fake_quantize_per_channel_affine",
        peer=lambda: torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, -128, 127),
        clone=x.clone,
        shape=" x ".join(map(str, shape)),
        least_ratio_to_peer=10.0,
    )


def bfloat16_case() -> Case:
    """Half the bytes, the same maths."""
    x = torch.randn(8 * MB).bfloat16()
    return Case(
        name="fake_quantize, forward, bfloat16",
        ours=lambda: ts.quant.fake_quantize(x, 0.02, 3, -128, 127),
        peer_name="torch.fake_quantize_per_tensor_affine",
        peer=lambda: ATEN(x, 0.02, 3, -128, 127),
        clone=x.clone,
        shape="16 MB",
        most_ratio_to_clone=1.5,
    )


def stochastic_case() -> Case:
    """Rounding by chance, against drawing as many numbers with PyTorch and rounding by hand."""
    x, scale, zero_point = torch.randn(4 * MB), torch.tensor(0.02), torch.tensor(3, dtype=torch.int32)

    def by_hand() -> Tensor:
        return (x / 0.02 + torch.rand_like(x)).floor_().add_(3).clamp_(-128, 127).sub_(3).mul_(0.02)

    return Case(
        name="fake_quantize_stochastic, forward",
        ours=lambda: ts.quant.fake_quantize_stochastic(x, scale, zero_point, -128, 127, seed=1),
        peer_name="torch.rand_like, floor, clamp",
        peer=by_hand,
        clone=x.clone,
        shape="16 MB",
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
        least_ratio_to_peer=6.0,
        traffic=5,
    )


def observe_channels_case(layout: torch.memory_format) -> Case:
    """Observer and fake-quantise with a range for each channel, in training."""
    ao = torch.ao.quantization
    shape = (64, 64, 28, 28)
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    grad = torch.randn(shape).to(memory_format=layout)
    ours = ts.quant.FakeQuantize(axis=1)
    peer = ao.FusedMovingAvgObsFakeQuantize(
        ao.MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_affine,
        ch_axis=0,
    )
    suffix = ", channels_last" if layout == torch.channels_last else ""
    return Case(
        name=f"FakeQuantize in training, axis 1{suffix}, forward + backward",
        ours=lambda: forward_backward(ours, x, grad),
        peer_name="torch.ao FusedMovingAvgObsFakeQuantize, axis 0 (it has no other)",
        peer=lambda: forward_backward(peer, x, grad),
        clone=x.detach().clone,
        shape=" x ".join(map(str, shape)),
        least_ratio_to_peer=6.0,
        traffic=5,
    )


def cases(threads: int) -> list[Case]:
    """From a few elements, where calls cost, to what no longer fits a cache."""
    torch.manual_seed(0)
    shapes = SMALL | LARGE
    weights, activations = (512, 512, 3, 3), (16, 64, 56, 56)
    return [
        *(forward_case(*item) for item in shapes.items()),
        *(forward_backward_case(*item) for item in shapes.items()),
        channel_case(weights, 0, torch.contiguous_format),
        channel_case(activations, 1, torch.contiguous_format),
        channel_case(activations, 1, torch.channels_last),
        bfloat16_case(),
        stochastic_case(),
        observe_case(),
        observe_channels_case(torch.contiguous_format),
        observe_channels_case(torch.channels_last),
    ]
