"""Charts as drawings inside the page (SVG), in the page's own ink so that they suit day and night.

Titles and legends are the page's text: names of any length and script wrap as text does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolo.report.page import Html, escape

COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#c2255c", "#8a63d2", "#b8860b", "#0c9aa8", "#868e96")
MOST_POINTS = 400
"""Of a line; longer ones show means of neighbours."""

_INK = "#010203"  # drawn with it, then replaced by the colour of the page's text
_ATTRIBUTE, _DECIMALS = re.compile(r'="[^"]*"'), re.compile(r"(\d\.\d\d)\d+")
_CSS_STYLES = {"-": "solid", "--": "dashed", ":": "dotted"}
_LOG_FROM = 20  # largest over smallest value from which on an axis is logarithmic


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        x, y: (P,), NaN is a gap.
        colour: a number into ``COLOURS``, which begin anew where they end.
        style: of matplotlib.
        dots: mark each point too.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    style: str = "-"
    dots: bool = False


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str = "step",
    marks: Sequence[float] = (),
    y_limits: tuple[float, float] | None = None,
    may_be_log: bool = False,
) -> Html:
    """Lines over a shared x.

    Args:
        title: above it.
        lines: one at least.
        x: the name of the x axis.
        marks: places of thin vertical lines.
        y_limits: of the y axis; None fits them.
        may_be_log: choose a logarithmic y axis where the values span much.
    """
    figure, axes = _frame(x)
    for line in lines:
        at, values = _thinned(line.x, line.y)
        (drawn,) = axes.plot(at, values, linestyle=line.style, linewidth=1.5)
        drawn.set_color(COLOURS[line.colour % len(COLOURS)])
        if line.dots or len(at) == 1:
            drawn.set(marker="o", markersize=3)
    if all(np.issubdtype(line.x.dtype, np.integer) for line in lines):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    for mark in marks:
        axes.axvline(mark, color=_INK, linewidth=0.8, linestyle=":")
    known = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    elif may_be_log and len(known) and known.min() > 0 and known.max() > _LOG_FROM * known.min():
        axes.set_yscale("log")
    entries = [(line.name, COLOURS[line.colour % len(COLOURS)], line.style) for line in lines]
    return _chart(title, figure, entries)


def reliability_chart(title: str, confidence: np.ndarray, share_right: np.ndarray) -> Html:
    """How often the boxes of a confidence are right, beside the line where both are equal.

    Args:
        title: above it.
        confidence, share_right: (P,), means of the bins that hold boxes.
    """
    figure, axes = _frame("confidence")
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
    axes.bar(confidence, share_right, width=0.07, color=COLOURS[0], alpha=0.35)
    axes.plot(confidence, share_right, color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return _chart(title, figure, [("share of right boxes", COLOURS[0], "-")])


def _frame(x: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_INK, fontsize=9, parse_math=False)
    axes.tick_params(colors=_INK, labelsize=9, which="both")
    axes.yaxis.get_offset_text().set(color=_INK, fontsize=9)
    axes.grid(color=_INK, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
        spine.set_alpha(0.4)
    return figure, axes


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MOST_POINTS`` points, each the mean of as many neighbours."""
    each = -(-len(x) // MOST_POINTS)
    if each <= 1:
        return x, y
    starts = np.arange(0, len(x), each)
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(float), starts)
    sums = np.add.reduceat(np.where(known, y, 0.0), starts)
    with np.errstate(invalid="ignore"):
        return x[np.minimum(starts + each - 1, len(x) - 1)], sums / counts


def _chart(title: str, figure: Figure, entries: Sequence[tuple[str, str, str]]) -> Html:
    """The drawing below its title and above its legend of names, colours and line styles."""
    legend = "".join(
        f'<span><i style="border-color:{colour};border-style:{_CSS_STYLES[style]}"></i>'
        f"{escape(name)}</span>"
        for name, colour, style in entries
    )
    return Html(
        f'<figure class="chart"><h3>{escape(title)}</h3>{_svg(figure, title)}'
        f'<div class="legend">{legend}</div></figure>'
    )


def _svg(figure: Figure, title: str) -> str:
    """The drawing without what a page does not need: prolog, name spaces, size."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"chart {title}"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawing = file.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    start, rest = drawing.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', start)
    assert view is not None
    rest = re.sub(r"<style.*?</style>", "", rest, count=1, flags=re.DOTALL)
    rest = re.sub(r' id="(?!m|p)[^"]*"', "", rest)  # only markers and clips are referred to
    rest = re.sub(r"font-family: [^;\"]*;?", "", rest)
    rest = _ATTRIBUTE.sub(lambda match: _DECIMALS.sub(r"\1", match.group()), rest)
    rest = rest.replace(_INK, "currentColor")
    label = f'role="img" aria-label="{escape(title)}"'
    return f'<svg {view.group()} {label} style="stroke-linejoin:round">{rest}'
