# SPDX-License-Identifier: BSD-3-Clause
"""The network that the examples of quantisation start from, trained in float, and the loop that trains on.

The steps are counted, not timed, so that a second run gives the same numbers. A trained network is kept in a file,
which both examples share.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torchslim as ts
from fashion_mnist import data
from fashion_mnist.checkpoint import write_whole
from fashion_mnist.results import EXAMPLE, versions
from fashion_mnist.train import Trainee, one_cycle

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is trained. A network of depthwise layers: those suffer most from few bits."""

    name: str
    network: dict[str, Any] = field(  #: arguments of `ts.models.mobilenet_v1`; 21,930 weights
        default_factory=lambda: {"channels": (16, 32, 64, 96, 96), "strides": (2, 1, 2, 1, 1)}
    )
    train_images: int | None = None  #: None: all
    test_images: int | None = None
    float_epochs: int = 8
    tune_epochs: int = 1  #: of each case of quantisation-aware training, and of the float network beside them
    float_lr: float = 4e-3  #: AdamW, at its peak
    tune_lr: float = 2e-3  #: Adam, at its peak
    batch: int = 128
    calibration_images: int = 1024  #: of the training images
    adaround_iterations: int = 2000


FULL = Size("full")
QUICK = Size(
    "quick",
    network={"channels": (8, 16, 32, 32), "strides": (2, 2, 2, 1)},
    train_images=6_000,
    test_images=2_000,
    float_epochs=4,
    calibration_images=256,
    adaround_iterations=200,
)


def make(size: Size) -> nn.Module:
    """The network with fresh weights."""
    return ts.models.mobilenet_v1(len(data.CLASSES), in_channels=1, **size.network)


def images_of(size: Size, directory: Path) -> tuple[data.Images, data.Images]:
    """The training and the test images of a size."""
    train, test = data.load(directory)
    return train.first(size.train_images), test.first(size.test_images)


def trained_float(size: Size, seed: int, images: data.Images, folder: Path, say: Say) -> nn.Module:
    """The network trained in float, in eval mode: from its file in `folder`, or trained and written there."""
    torch.manual_seed(seed)
    model = make(size)
    path = folder / f"float_{size.name}_seed{seed}.pt"
    trained_as = (size.network, len(images), size.float_epochs, size.float_lr, size.batch, torch.get_num_threads())
    identity = {"recipe": repr(trained_as), **versions()}
    state = _read(path, identity)
    if state is None:
        say(f"training in float, {size.float_epochs} epochs ...")
        optimizer = torch.optim.AdamW(model.parameters(), lr=size.float_lr, weight_decay=0.02)
        learn(model, optimizer, images, size.float_epochs, size.float_lr, size.batch, seed)
        content = io.BytesIO()
        torch.save({"identity": identity, "model": model.state_dict()}, content)
        write_whole(path, content.getvalue())
    else:
        say(f"the float network of {path}")
        model.load_state_dict(state)
    return model.eval()


def tune(model: nn.Module, size: Size, seed: int, images: data.Images) -> None:
    """Trains `model` on, whatever it is: the same batches, loss and rates for float and quantised ones."""
    optimizer = torch.optim.Adam(model.parameters(), lr=size.tune_lr)
    learn(model, optimizer, images, size.tune_epochs, size.tune_lr, size.batch, seed + 1000)


def learn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: data.Images,
    epochs: int,
    peak_lr: float,
    batch: int,
    seed: int,
) -> None:
    """Trains `model` by cross entropy; leaves it in eval mode."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    model.train().to(memory_format=torch.channels_last)
    trainee = Trainee("", model, optimizer, peak_lr, lambda logits, batch: loss(logits, batch.labels))
    steps = epochs * data.batches_per_epoch(images, batch)
    for done, each in enumerate(_batches(images, epochs, batch, torch.Generator().manual_seed(seed))):
        trainee.step(each, peak_lr * one_cycle((done + 0.5) / steps))
    model.eval()


def integers_differ_by(prepared: ts.quant.PreparedModel, images: Tensor) -> float:
    """The largest difference between what `convert` gives and what `eval()` gives; 0: they are equal bit for bit."""
    converted = ts.quant.convert(prepared)
    with torch.no_grad():
        return float((converted(images) - prepared(images)).abs().max())


def prepared(model: nn.Module, config: dict[str, Any]) -> ts.quant.PreparedModel:
    """`model` with its quantisers."""
    return ts.quant.prepare(model, EXAMPLE, config)


def _batches(images: data.Images, epochs: int, size: int, generator: torch.Generator) -> Iterator[data.Batch]:
    for _ in range(epochs):
        yield from data.batches(images, size, generator)


def _read(path: Path, identity: dict[str, str]) -> dict[str, Tensor] | None:
    """The weights in a file, or None where there is none of this recipe and these versions."""
    try:
        file = torch.load(path, weights_only=True)
    except Exception:  # missing, or cut: trained anew
        return None
    state: dict[str, Tensor] | None = file["model"] if file.get("identity") == identity else None
    return state
