# SPDX-License-Identifier: BSD-3-Clause
"""The drawings of the page: matplotlib figures as SVG text that takes its text colour from the page around it."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torchslim.deploy.charts import BLUE, GREEN, ORANGE, STYLE, WIDTH, bars, svg

History = dict[str, list[dict[str, float]]]  # name of the network -> one row an epoch

# A network has the same colour in every drawing.
_COLOURS = {"teacher": BLUE, "distilled": ORANGE, "alone": GREEN}
_RIGHT, _WRONG = BLUE, ORANGE

plt.rcParams.update(STYLE)


def training_curves(history: History, sparsity: float) -> str:
    """Test accuracy, training loss and sparsity after each epoch."""
    figure, (accuracy, loss, zeros) = plt.subplots(3, 1, figsize=(WIDTH, 6.6), sharex=True, height_ratios=(3, 2, 1.4))
    for name, rows in history.items():
        epochs = [row["epoch"] for row in rows]
        style = {"marker": "o", "markersize": 4, "color": _colour(name), "label": name}
        accuracy.plot(epochs, [row["accuracy"] for row in rows], **style)
        loss.plot(epochs, [row["loss"] for row in rows], **style)
        if any(row["sparsity"] for row in rows):
            zeros.plot(epochs, [100 * row["sparsity"] for row in rows], **style)
    accuracy.set_title("test accuracy, %")
    accuracy.legend(loc="lower right")
    loss.set_title("training loss (each network has its own)")
    zeros.set_title("weights that are zero, %")
    zeros.set_ylim(-3, 100 * sparsity + 10)
    zeros.set_xlabel("epoch")
    zeros.xaxis.get_major_locator().set_params(integer=True)
    for axes in (accuracy, loss, zeros):
        axes.grid(True)
    return _written(figure)


def layer_sparsity(layers: list[dict[str, float | str]]) -> str:
    """For each layer of the int8 file, the share of its codes that are zero."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.3 * len(layers)))
    values = [100 * float(layer["zeros"]) / float(layer["weights"]) for layer in layers]
    bars = axes.barh(
        [f"{layer['name']}  ({int(layer['weights']):,})" for layer in layers], values, color=_colour("distilled")
    )
    axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    return _written(figure)


def by_network(values: dict[str, float], form: str) -> str:
    """One bar for each network, in its colour, with the value beside it."""
    return bars(values, form, [_colour(name) for name in values])


def confusion(counts: list[list[int]], classes: tuple[str, ...]) -> str:
    """Rows are the true classes, columns what the int8 file said; percent of the row."""
    figure, axes = plt.subplots(figsize=(WIDTH, WIDTH))
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            share = count / max(sum(row), 1)
            _cell(axes, i, j, share, _RIGHT if i == j else _WRONG)
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _written(figure)


def _colour(name: str) -> str:
    return next(colour for network, colour in _COLOURS.items() if network in name)


def _cell(axes: Axes, i: int, j: int, share: float, colour: str) -> None:
    strength = share * 0.8 if i == j else min(share * 3, 0.8)
    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=strength, linewidth=0))
    if share >= 0.005:
        axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8)


def _written(figure: Figure) -> str:
    text = svg(figure)
    plt.close(figure)
    return text
