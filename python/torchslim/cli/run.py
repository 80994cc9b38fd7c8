# SPDX-License-Identifier: BSD-3-Clause
"""`torchslim run`: a file on an image or an array."""

import argparse
import importlib
import io
import os
import sys
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from torchslim import _C, deploy
from torchslim.cli.commands import Commands, positive
from torchslim.deploy.loaded_model import check_images
from torchslim.deploy.report_table import text_table


def add_parser(commands: Commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "run",
        help="run a file on an image or an array",
        description="Runs a .ptl, .onnx or .pte file on an array as it is, or on an image of the right size, which is "
        "scaled to [0, 1] and normalised as the file's manifest says.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--input", required=True, help=".npy: float32, one image or a batch; or an image file")
    parser.add_argument("--output", metavar="Y.npy", help="where the outputs go as an array")
    parser.add_argument("--top", type=positive, default=5, help="how many outputs to print (%(default)s)")
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    if options.output is not None and not options.output.endswith(".npy"):
        raise ValueError(f"--output must end in .npy, got {options.output}")
    model = deploy.load(options.file)
    images = _array(options.input, model) if options.input.endswith(".npy") else _image(options.input, model)
    if model.input_shape:
        # A .pte file runs any multiple of its batch size and says so itself.
        check_images(options.file, images, [None, *model.input_shape[1:]])
    outputs = model(images)
    if options.output is not None:
        content = io.BytesIO()
        np.save(content, outputs.numpy())
        _C.write_file(options.output, content.getvalue())
    print(_text(outputs, options.top, model.manifest.get("labels", [])), end="")
    return 0


def _array(path: str, model: deploy.LoadedModel) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array that numpy.save wrote: {error}") from error
    if array.dtype != np.float32:
        raise TypeError(f"{path} holds {array.dtype}, expected float32; save array.astype('float32')")
    images = torch.from_numpy(np.ascontiguousarray(array))
    return images[None] if images.dim() == len(model.input_shape) - 1 else images


def _image(path: str, model: deploy.LoadedModel) -> Tensor:
    image_module = _pillow()
    shape = model.input_shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ValueError(f"the file takes input of shape {shape}, not images of 1 or 3 channels; pass a .npy array")
    channels, height, width = shape[1:]
    try:
        with image_module.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except image_module.UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that Pillow reads") from error
    if image.size != (width, height):
        raise ValueError(
            f"{path} has {image.size[0]} x {image.size[1]} pixels, the file takes {width} x {height}; resize it as the "
            "training images were"
        )
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    images = pixels[None, None] if channels == 1 else pixels.permute(2, 0, 1)[None]
    return _normalised(images.contiguous(), path, model)


def _normalised(images: Tensor, path: str, model: deploy.LoadedModel) -> Tensor:
    rule = model.manifest.get("input", {}).get("normalisation")
    if rule is None:
        print(
            f"torchslim run: the model's file names no normalisation; {os.path.basename(path)} goes in as [0, 1]",
            file=sys.stderr,
        )
        return images
    mean, std = (torch.tensor(rule[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


def _text(outputs: Tensor, top: int, labels: list[str]) -> str:
    if outputs.dim() != 2:
        low, high, mean = (float(number) for number in (outputs.min(), outputs.max(), outputs.mean()))
        return f"output {tuple(outputs.shape)}: from {low:.6g} to {high:.6g}, mean {mean:.6g}\n"
    # Of equal outputs the first comes first, as `deploy.accuracy` counts.
    order = outputs.sort(dim=1, descending=True, stable=True)
    rows = [("image", "output", "value")]
    for i, (values, places) in enumerate(zip(order.values[:, :top], order.indices[:, :top], strict=True)):
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            rows.append((str(i), labels[place] if place < len(labels) else str(place), f"{value:.6g}"))
    return text_table(rows, left=(0, 1))


def _pillow() -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(f"images need Pillow: pip install pillow, or pass a .npy array ({error})") from error
