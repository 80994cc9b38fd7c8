# SPDX-License-Identifier: BSD-3-Clause
"""One training step of three networks on int8 grids, against the same step in float and torch.ao's."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import Case
from torch import nn

import torchslim as ts

#: Each network, and the shape of its batch.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "example's student": (
        lambda: ts.models.mobilenet_v1(
            10, in_channels=1, channels=(16, 32, 64, 80, 80, 80), strides=(2, 1, 2, 1, 1, 1)
        ),
        (128, 1, 28, 28),
    ),
    # Strides of 1 in the stem and the first two stages, as implementations for CIFAR have them.
    "MobileNetV2 0.5": (lambda: ts.models.mobilenet_v2(10, 0.5, 3, input_size=32), (64, 3, 32, 32)),
    "ResNet-20": (lambda: ts.models.resnet(10, 20), (64, 3, 32, 32)),
}


#: What is promised of the peak memory of a step: at most this times the float step's.
MOST_MEMORY = 1.25


def model_of(name: str) -> nn.Module:
    """The network in float, in training."""
    torch.manual_seed(0)
    return NETWORKS[name][0]().train().to(memory_format=torch.channels_last)


def step_of(model: nn.Module, shape: tuple[int, ...]) -> Callable[[], object]:
    """A whole step: forward, loss, backward, SGD with momentum."""
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (shape[0],))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> object:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def prepared_by_us(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The same model prepared by `torchslim.quant.prepare`."""
    return ts.quant.prepare(model, torch.zeros(1, *shape[1:])).to(memory_format=torch.channels_last)


def prepared_by_torch_ao(model: nn.Module, shape: tuple[int, ...]) -> nn.Module | None:
    """The same model prepared by torch.ao's FX quantisation, or None where torch lacks it."""
    try:
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
    except ImportError:
        return None
    mapping = get_default_qat_qconfig_mapping("qnnpack")
    return prepare_qat_fx(copy.deepcopy(model), mapping, (torch.zeros(1, *shape[1:]),))


def cases(threads: int) -> list[Case]:
    """The QAT steps; "clone" is the float step."""
    rows = []
    for name, (_, shape) in NETWORKS.items():
        model = model_of(name)
        plain = step_of(copy.deepcopy(model), shape)
        peer = prepared_by_torch_ao(model, shape)
        rows.append(
            Case(
                f"QAT step, {name} (clone: float step)",
                step_of(prepared_by_us(model, shape), shape),
                "float" if peer is None else "torch.ao",
                plain if peer is None else step_of(peer, shape),
                plain,
                "x".join(map(str, shape)),
                most_ratio_to_clone=1.12,
            )
        )
    return rows


def peak_bytes(model: nn.Module, shape: tuple[int, ...]) -> int:
    """The most memory that tensors take in a step: those of model and optimiser, and what the step allocates."""
    step = step_of(model, shape)
    step()
    kept = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    kept += sum(p.nbytes for p in model.parameters())  # momentum
    for parameter in model.parameters():
        parameter.grad = None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return kept + peak


def memory() -> list[str]:
    """For each network, the peak memory of a step on grids against the float step's."""
    lines = []
    for name, (_, shape) in NETWORKS.items():
        model = model_of(name)
        plain = peak_bytes(copy.deepcopy(model), shape)
        peer = prepared_by_torch_ao(model, shape)
        theirs = "" if peer is None else f", torch.ao {peak_bytes(peer, shape) / plain:.2f}x"
        ours = peak_bytes(prepared_by_us(model, shape), shape)
        verdict = "ok" if ours <= MOST_MEMORY * plain else "short"
        lines.append(
            f"peak memory of a QAT step, {name}: {ours / plain:.2f}x the float step's {plain / 2**20:.0f} MiB "
            f"(most: {MOST_MEMORY}x, {verdict}){theirs}"
        )
    return lines
