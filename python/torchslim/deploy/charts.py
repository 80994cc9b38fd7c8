# SPDX-License-Identifier: BSD-3-Clause
"""Drawings for pages: matplotlib figures as SVG text that takes its text colour from the page around it."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as missing:
    raise ImportError(
        "torchslim.deploy.report_page: drawings need matplotlib; install the extra: "
        f"pip install 'torchslim[report]' ({missing})"
    ) from missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEXT = "#010203"  # stands for the page's text colour until the SVG is written
#: Seen as well on white as on black.
BLUE, ORANGE, GREEN, GREY = "#3f8fd9", "#e0812f", "#3fa66b", "#8a97a3"
#: Inches: with text of 10 points still readable on a phone.
WIDTH = 5.2
#: What `matplotlib.rc_context` takes for every drawing.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "torchslim",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808080",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": "#80808055",
    "legend.frameon": False,
}
# From near to far: grey where nothing happened, then warmer.
_DISTANCES = (GREY, "#7fb0dc", BLUE, GREEN, "#d9b13f", ORANGE, "#c8413c")


def bars(values: Mapping[str, float], form: str, colours: Sequence[str] = (BLUE,)) -> str:
    """Return a drawing of one bar for each value, from zero, with the value beside it."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows(len(values))
        places = range(len(values))
        drawn = axes.barh(places, list(values.values()), color=[colours[i % len(colours)] for i in places])
        axes.bar_label(drawn, [form.format(value) for value in values.values()], padding=3)
        axes.set_yticks(places, [_short(name) for name in values])
        axes.set_xlim(0, 1.22 * max([*values.values(), 1e-9]))
        axes.xaxis.set_visible(False)  # the values stand beside the bars
        axes.spines.bottom.set_visible(False)
        return svg(figure)


def shares(rows: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
    """Return a drawing of one bar of 100 % for each row, divided by its counts."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows(len(rows), above=0.5)
        left = [0.0] * len(rows)
        for i, name in enumerate(names):
            widths = [100 * counts[i] / max(sum(counts), 1) for counts in rows.values()]
            axes.barh(range(len(rows)), widths, left=left, color=_DISTANCES[i], label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
        axes.set_xlim(0, 100)
        figure.legend(loc="upper center", ncols=len(names), handlelength=0.8, columnspacing=0.8, handletextpad=0.3)
        return svg(figure, top=1 - 0.35 / figure.get_figheight())


def svg(figure: Figure, top: float = 1) -> str:
    """Return a figure as an `<svg>` element: no fixed size, no background, text in the page's colour.

    Args:
        figure: drawn and written within `matplotlib.rc_context(STYLE)`.
        top: the share of the height, from below, that the axes may take.
    """
    figure.tight_layout(rect=(0, 0, 1, top))
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_TEXT, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)


def _rows(count: int, above: float = 0.0) -> "tuple[Figure, Axes]":
    """A figure with room for `count` horizontal bars, the first on top."""
    figure = Figure(figsize=(WIDTH, 0.6 + above + (0.38 if count < 10 else 0.26) * count))
    axes = figure.subplots()
    axes.set_ylim(count - 0.4, -0.6)
    return figure, axes


def _short(name: str) -> str:
    return name if len(name) <= 30 else "…" + name[-29:]
