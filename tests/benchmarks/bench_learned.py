# SPDX-License-Identifier: BSD-3-Clause
"""LSQ, forward and backward, against ATen's learnable operators and against plain Python that torch.compile fused."""

from collections.abc import Callable

import torch
from harness import Case
from torch import Tensor

import torchslim as ts

SHAPE = (16, 64, 56, 56)
LOW, HIGH = -128, 127

Quantise = Callable[[Tensor, Tensor, Tensor], Tensor]


def python_lsq(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """LSQ as its users write it in Python: a straight-through round between a division and a product."""
    steps = (x / scale).clamp(LOW - zero_point, HIGH - zero_point)
    return ((steps.round() - steps).detach() + steps) * scale


def forward_backward(quantise: Quantise, inputs: tuple[Tensor, ...], grad: Tensor) -> Callable[[], object]:
    """Returns a call that makes the gradients of all inputs that have one, fresh each time."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    return lambda: torch.autograd.grad(quantise(*inputs), wanted, grad)


def samples(channels: int, zero_point: bool, memory_format: torch.memory_format) -> tuple[tuple[Tensor, ...], Tensor]:
    """x, scale and zero point, and an incoming gradient."""
    x, grad = (torch.randn(SHAPE).to(memory_format=memory_format) for _ in range(2))
    scale = torch.full((channels,), 0.02, requires_grad=True)
    return (x.requires_grad_(), scale, torch.full((channels,), 3.0, requires_grad=zero_point)), grad


def per_tensor_case() -> Case:
    """One grid."""
    inputs, grad = samples(1, True, torch.contiguous_format)
    return Case(
        name="learned_fake_quantize, forward + backward",
        ours=forward_backward(lambda *xs: ts.quant.learned_fake_quantize(*xs, LOW, HIGH), inputs, grad),
        peer_name="torch._fake_quantize_learnable_per_tensor_affine",
        peer=forward_backward(
            lambda *xs: torch._fake_quantize_learnable_per_tensor_affine(*xs, LOW, HIGH, 1.0), inputs, grad
        ),
        clone=inputs[0].detach().clone,
        shape="16 x 64 x 56 x 56",
        least_ratio_to_peer=10.0,
        traffic=5,
    )


def per_channel_case(memory_format: torch.memory_format) -> Case:
    """A grid for each channel of activations."""
    inputs, grad = samples(SHAPE[1], True, memory_format)
    layout = "channels_last" if memory_format == torch.channels_last else "contiguous"
    return Case(
        name=f"learned per channel, fwd + bwd, {layout}",
        ours=forward_backward(lambda *xs: ts.quant.learned_fake_quantize(*xs, LOW, HIGH, 1), inputs, grad),
        peer_name="torch._fake_quantize_learnable_per_channel_affine",
        peer=forward_backward(
            lambda *xs: torch._fake_quantize_learnable_per_channel_affine(*xs, 1, LOW, HIGH, 1.0), inputs, grad
        ),
        clone=inputs[0].detach().clone,
        shape="16 x 64 x 56 x 56",
        least_ratio_to_peer=10.0,
        traffic=5,
    )


def compiled_case() -> Case:
    """LSQ's own case, the zero point fixed: fair to the Python, which would sum for it in another pass."""
    inputs, grad = samples(1, False, torch.contiguous_format)
    torch._dynamo.reset()
    return Case(
        name="LSQ, forward + backward",
        ours=forward_backward(lambda *xs: ts.quant.learned_fake_quantize(*xs, LOW, HIGH), inputs, grad),
        peer_name="torch.compile of Python",
        peer=forward_backward(torch.compile(python_lsq, dynamic=False), inputs, grad),
        clone=inputs[0].detach().clone,
        shape="16 x 64 x 56 x 56",
        least_ratio_to_peer=1.0,
        traffic=5,
    )


def small_case() -> Case:
    """A few elements, where calls cost."""
    x, grad = torch.randn(64, 10, requires_grad=True), torch.randn(64, 10)
    inputs = (x, torch.full((1,), 0.02, requires_grad=True), torch.full((1,), 3.0, requires_grad=True))
    return Case(
        name="learned_fake_quantize, forward + backward",
        ours=forward_backward(lambda *xs: ts.quant.learned_fake_quantize(*xs, LOW, HIGH), inputs, grad),
        peer_name="torch._fake_quantize_learnable_per_tensor_affine",
        peer=forward_backward(
            lambda *xs: torch._fake_quantize_learnable_per_tensor_affine(*xs, LOW, HIGH, 1.0), inputs, grad
        ),
        clone=x.detach().clone,
        shape="64 x 10",
        least_ratio_to_peer=1.0,
    )


def cases(threads: int) -> list[Case]:
    """Activations of a mobile network's first stages, and a batch of logits."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)  # what is compiled below is compiled for this many
    return [
        per_tensor_case(),
        per_channel_case(torch.contiguous_format),
        per_channel_case(torch.channels_last),
        compiled_case(),
        small_case(),
    ]
