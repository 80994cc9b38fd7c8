# SPDX-License-Identifier: BSD-3-Clause
"""How long it takes from a trained model to its file: capture, lower, write, and one sample run."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from harness import Case
from torch import nn

import torchslim as ts

SHAPE = (1, 3, 224, 224)
MOST_MS = 5000.0


def cases(threads: int) -> list[Case]:
    """MobileNetV2 of full width, on one thread, against tracing and saving the float model with torch alone."""
    if threads != 1:
        return []
    torch.manual_seed(0)
    model, images = ts.models.mobilenet_v2(1000, in_channels=3), torch.randn(SHAPE)
    prepared = ts.quant.prepare(model, images)
    prepared(torch.randn(2, *SHAPE[1:]))
    prepared.eval()
    model.eval()
    folder = Path(tempfile.mkdtemp(prefix="torchslim_bench_"))

    def peer(model: nn.Module = model) -> object:
        return torch.jit.trace(model, images)._save_for_lite_interpreter(str(folder / "peer.ptl"))

    def ours(suffix: str) -> object:
        return ts.deploy.save(prepared, images, folder / f"ours{suffix}")

    name = "torch.jit, float"
    shape = "x".join(map(str, SHAPE))
    return [
        Case(f"save MobileNetV2, {suffix}", partial(ours, suffix), name, peer, None, shape, most_ms=MOST_MS)
        for suffix in (".ptl", ".onnx")
    ]
