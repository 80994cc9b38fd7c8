# SPDX-License-Identifier: BSD-3-Clause
"""How long `prepare` takes, against torch.ao's."""

import copy
from collections.abc import Callable

import pytorchcv.model_provider as provider
import torch
from bench_qat_step import model_of, prepared_by_torch_ao
from harness import Case
from torch import nn

import torchslim as ts

#: Each network, the shape of its batch, and the most milliseconds.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int], float]] = {
    "MobileNetV2 0.5": (lambda: model_of("MobileNetV2 0.5"), (1, 3, 32, 32), 2000),
    "DenseNet-121": (lambda: provider.get_model("densenet121", pretrained=False), (1, 3, 224, 224), 8000),
}


def cases(threads: int) -> list[Case]:
    """Preparing each network once; on one thread only, as tracing has no use for a second."""
    rows = []
    for name, (make, shape, most_ms) in NETWORKS.items() if threads == 1 else ():
        model, images = make().train(), torch.zeros(shape)

        def ours(model: nn.Module = model, images: torch.Tensor = images) -> object:
            return ts.quant.prepare(model, images)

        def peer(model: nn.Module = model, shape: tuple[int, ...] = shape) -> object:
            return prepared_by_torch_ao(model, shape) or copy.deepcopy(model)

        rows.append(Case(f"prepare, {name}", ours, "torch.ao", peer, None, "x".join(map(str, shape)), most_ms=most_ms))
    return rows
