# SPDX-License-Identifier: BSD-3-Clause
"""Draws the pictures of the reference pages from the ops: `make pictures` writes docs/api/quant/pictures/*.svg."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import torchslim as ts

FOLDER = Path(__file__).parent / "api" / "quant" / "pictures"
POINTS = 2001  # a multiple of 3, for three groups
INK, LINE, PALE = "#5b6470", "#3b82c4", "#b9c2cc"  # readable on white and on black

Picture = tuple[Callable[[Tensor], Tensor], tuple[float, float]]


def learned(gradient: str, zero_point: float) -> Callable[[Tensor], Tensor]:
    """The learned op, with a scale for each point, so that each point's share of the scale's gradient is seen."""

    def op(x: Tensor) -> Tensor:
        scale = torch.full_like(x, 0.5, requires_grad=True)
        offset = torch.full_like(x, zero_point, requires_grad=False)
        y = ts.quant.learned_fake_quantize(x, scale, offset, -4, 3, axis=0, gradient=gradient)
        y.trained = scale  # type: ignore[attr-defined]
        return y

    return op


#: For each picture the op, and the interval of x that is drawn. A new op needs a line here.
PICTURES: dict[str, Picture] = {
    "learned_fake_quantize": (learned("rounded", 0.0), (-3.0, 2.5)),
    "learned_fake_quantize_clip": (learned("clip", -4.0), (-1.0, 5.0)),
    "trained_threshold": (
        lambda x: ts.quant.learned_fake_quantize(
            x, ts.quant.trained_threshold_scale(torch.tensor(0.9), 3), torch.tensor(0), -4, 3
        ),
        (-3.0, 2.5),
    ),
    "trainable_range": (
        lambda x: ts.quant.learned_fake_quantize(
            x, *ts.quant.trainable_range_qparams(torch.tensor(-1.0), torch.tensor(3.0), 0, 7), 0, 7
        ),
        (-2.0, 3.0),
    ),
    "binary_fake_quantize": (ts.quant.binary_fake_quantize, (-1.5, 1.5)),
    "ternary_fake_quantize": (ts.quant.ternary_fake_quantize, (-1.5, 1.5)),
    "float_fake_quantize": (
        lambda x: ts.quant.float_fake_quantize(x, ts.quant.FloatFormat.minifloat(2, 1)),
        (-8.0, 8.0),
    ),
    "block_float_fake_quantize": (
        lambda x: ts.quant.block_float_fake_quantize(x, ts.quant.FloatFormat.minifloat(2, 1), POINTS),
        (-7.9, 7.9),
    ),
    "level_fake_quantize": (lambda x: ts.quant.level_fake_quantize(x, ts.quant.apot_levels(4), 1.0), (-1.3, 1.3)),
    "fake_quantize": (lambda x: ts.quant.fake_quantize(x, 0.5, 0, -4, 3), (-3.0, 2.5)),
    "fake_quantize_passthrough": (
        lambda x: ts.quant.fake_quantize_passthrough(x, torch.tensor(0.5), torch.tensor(0), -4, 3),
        (-3.0, 2.5),
    ),
    "fake_quantize_stochastic": (
        lambda x: ts.quant.fake_quantize_stochastic(x, torch.tensor(0.5), torch.tensor(0), -4, 3, seed=0),
        (-3.0, 2.5),
    ),
    "fake_quantize_group": (
        lambda x: ts.quant.fake_quantize_group(
            x, torch.tensor([0.25, 0.5, 1.0]), torch.zeros(3), -4, 3, group_size=x.numel() // 3
        ),
        (-3.0, 3.0),
    ),
    "clamp_fake_quantize": (
        lambda x: torch.ops.torchslim.clamp_fake_quantize(
            x, torch.tensor(0.75), torch.tensor(-4, dtype=torch.int32), -4, 3, 0.0, 4.5
        ),
        (-2.0, 7.0),
    ),
}


def draw(op: Callable[[Tensor], Tensor], interval: tuple[float, float], path: Path) -> None:
    """Draws y over x beside the line y = x, and below it the gradients that the op declares."""
    x = torch.linspace(*interval, POINTS).requires_grad_()
    y = op(x)
    trained = [y.trained] if hasattr(y, "trained") else []
    gradients = torch.autograd.grad(y.sum(), [x, *trained])
    places = x.detach().tolist()
    height = 4.2 + 1.2 * len(trained)
    figure, (value, *slopes) = plt.subplots(
        len(gradients) + 1, 1, figsize=(4.6, height), sharex=True, height_ratios=(3, *(1 for _ in gradients))
    )
    value.plot(places, places, color=PALE, linewidth=1, linestyle="--")
    value.plot(places, y.tolist(), color=LINE, linewidth=1.6)
    value.set_ylabel("y")
    for slope, gradient, name in zip(slopes, gradients, ("gradient", "of scale"), strict=False):
        slope.plot(places, gradient.tolist(), color=LINE, linewidth=1.6)
        slope.set_ylabel(name)
    slopes[-1].set_xlabel("x")
    for axes in (value, *slopes):
        axes.grid(True, linewidth=0.4, color=PALE)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draws them all; the same ops give the same files."""
    mpl.rcParams.update(
        {"svg.hashsalt": "torchslim", "svg.fonttype": "none", "text.color": INK, "axes.labelcolor": INK}
        | {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 9, "path.simplify": True}
        | {"axes.spines.top": False, "axes.spines.right": False}
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (op, interval) in PICTURES.items():
        draw(op, interval, FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
