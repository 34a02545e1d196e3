"""HTML pages of one file each: Jinja2 templates with everything inside, no request to outside.

Autoescape takes every value for data; only ``Markup`` goes in as it is. The page forbids the
browser to load anything (its Content-Security-Policy), so that even a mistake here cannot.
Charts are SVG in the page's own ink, which suits day and night; their titles and legends are the
page's text: names of any length and script wrap as text does.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from yolo.apps.report.drawing import shrink
from yolo.apps.report.plots import Line
from yolo.files import write_or_refuse

COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#c2255c", "#8a63d2", "#b8860b", "#0c9aa8", "#868e96")
MOST_POINTS = 400  # of a line; longer ones show means of neighbours
CELLS = 30  # of a density, in each direction
_INK = "#010203"  # drawn with it, then replaced by the colour of the page's text
_CSS_STYLES = {"-": "solid", "--": "dashed", ":": "dotted"}
_LOG_FROM = 20  # largest over smallest value from which on an axis is logarithmic


@dataclass(frozen=True, slots=True)
class Filled:
    """A cell of which a share is coloured: a bar behind its value, or the depth of its shade."""

    value: str | int | float | None
    fill: float
    kind: Literal["bar", "shade"] = "bar"

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(max(self.fill, 0.0), 1.0) if math.isfinite(self.fill) else 0.0


Cell = Filled | str | int | float | None
"""A whole number gets its thousands separated, another one three decimals, None and NaN a dash."""


def _written(value: str | int | float | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _has_numbers(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    return not any(isinstance(row[column], str) for row in rows)


_TEMPLATES = Environment(
    loader=PackageLoader("yolo.apps.report"),
    autoescape=True,
    extensions=["jinja2.ext.do"],
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"written": _written, "has_numbers": _has_numbers}
_BLOCKS: Any = _TEMPLATES.get_template("blocks.html").module

table, grid, details = _BLOCKS.table, _BLOCKS.grid, _BLOCKS.details
"""The macros of blocks.html, which describes their arguments; they return Markup."""


def render(template: str, **values: Any) -> str:
    """A whole page, by a file of the folder ``templates`` and the values that it names."""
    return _TEMPLATES.get_template(template).render(values)


def write_page(path: Path, content: str, *, is_named: bool = True) -> None:
    """Write a page whole or not at all; through a link only where a user named just this path."""
    if not is_named and path.is_symlink():
        path.unlink()  # in a run's folder, which may be a stranger's
    remedy = "check the folder's permissions and the free space, or name another place"
    write_or_refuse("the page", path, content.encode("utf-8", "replace"), remedy=remedy)


def picture(
    image: np.ndarray, *, caption: str = "", longest_px: int = 1200, quality: int = 80
) -> Markup:
    """An image (H, W, 3) above its caption, shrunk to ``longest_px``, as a JPEG in the page."""
    image = shrink(image, longest_px)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    height, width = image.shape[:2]
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"
    return _BLOCKS.picture(source, width, height, caption)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str = "step",
    marks: Sequence[float] = (),
    y_limits: tuple[float, float] | None = None,
    may_be_log: bool = False,
) -> Markup:
    """One or several lines over a shared x, with thin vertical lines at ``marks``.

    ``may_be_log`` chooses a logarithmic y axis where the values span much.
    """
    figure, axes = _frame(x)
    legend = []
    for line in lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        legend.append((line.name, colour, _CSS_STYLES[line.style]))
        at, values = _thinned(line.x, line.y)
        marker = "o" if len(at) == 1 else line.marker
        axes.plot(at, values, line.style, lw=1.5, color=colour, marker=marker, markersize=3)
    if all(np.issubdtype(line.x.dtype, np.integer) for line in lines):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    for mark in marks:
        axes.axvline(mark, color=_INK, linewidth=0.8, linestyle=":")
    known = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    elif may_be_log and len(known) and known.min() > 0 and known.max() > _LOG_FROM * known.min():
        axes.set_yscale("log")
    return _chart(title, figure, legend)


def reliability_chart(title: str, confidence: np.ndarray, share_right: np.ndarray) -> Markup:
    """How often the boxes of a confidence are right: (P,) each, means of the bins with boxes."""
    figure, axes = _frame("confidence")
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
    axes.bar(confidence, share_right, width=0.07, color=COLOURS[0], alpha=0.35)
    axes.plot(confidence, share_right, color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return _chart(title, figure, [("share of right boxes", COLOURS[0], "solid")])


def histogram_chart(title: str, values: Mapping[str, np.ndarray], *, x: str, bins: int) -> Markup:
    """How positive values (P,) are spread: shares for each name, in bins of equal ratios."""
    figure, axes = _frame(x)
    known = np.concatenate(list(values.values()))
    edges = np.geomspace(known.min() * 0.999, known.max() * 1.001, bins + 1)
    legend = []
    for (name, found), colour in zip(values.items(), COLOURS, strict=False):
        share = np.histogram(found, edges)[0] / max(len(found), 1)
        axes.stairs(share, edges, fill=True, alpha=0.35, color=colour)
        legend.append((name, colour, "solid"))
    axes.set_xscale("log")
    _write_plain_ticks(axes)
    return _chart(title, figure, legend)


def density_chart(title: str, boxes: np.ndarray, anchors: np.ndarray) -> Markup:
    """Where boxes (N, 2) lie by width and height, on logarithmic axes, and anchors (A, 2)."""
    figure, axes = _frame("width, px")
    axes.set_ylabel("height, px", color=_INK, fontsize=9, parse_math=False)
    known = np.concatenate([boxes, anchors])
    edges = [np.geomspace(side.min() * 0.95, side.max() * 1.05, CELLS + 1) for side in known.T]
    counts, across, up = np.histogram2d(boxes[:, 0], boxes[:, 1], bins=edges)
    widths, heights = np.diff(across), np.diff(up)
    for column, row in np.argwhere(counts > 0).tolist():
        depth = 0.15 + 0.85 * np.sqrt(counts[column, row] / counts.max())
        corner, size = (across[column], up[row]), (widths[column], heights[row])
        axes.add_patch(Rectangle(corner, *size, color=COLOURS[0], alpha=depth, lw=0))
    axes.scatter(anchors[:, 0], anchors[:, 1], marker="x", s=30, color=COLOURS[1], linewidths=1.6)
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]), xscale="log", yscale="log")
    _write_plain_ticks(axes)
    legend = [("boxes", COLOURS[0], "solid"), ("anchors", COLOURS[1], "solid")]
    return _chart(title, figure, legend)


def _frame(x: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_INK, fontsize=9, parse_math=False)
    axes.tick_params(colors=_INK, labelsize=9, which="both")
    axes.yaxis.get_offset_text().set(color=_INK, fontsize=9)
    axes.grid(color=_INK, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=_INK, alpha=0.4)
    return figure, axes


def _write_plain_ticks(axes: Axes) -> None:
    """On logarithmic axes, at 1, 2 and 5 times a power of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MOST_POINTS`` points, each the mean of as many neighbours."""
    each = max(1, -(-len(x) // MOST_POINTS))
    starts = np.arange(0, len(x), each)
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(float), starts)
    sums = np.add.reduceat(np.where(known, y, 0.0), starts)
    with np.errstate(invalid="ignore"):
        return x[np.minimum(starts + each - 1, len(x) - 1)], sums / counts


def _chart(title: str, figure: Figure, legend: Sequence[tuple[str, str, str]]) -> Markup:
    """The drawing, without prolog, name spaces, size and fonts, between its title and legend."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"chart {title}"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawing = file.getvalue()
    start, rest = drawing[drawing.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', start)
    assert view is not None
    rest = re.sub(r"<style.*?</style>", "", rest, count=1, flags=re.DOTALL)
    rest = re.sub(r' id="(?!m|p)[^"]*"', "", rest)  # only markers and clips are referred to
    rest = re.sub(r"font-family: [^;\"]*;?", "", rest)
    rest = re.sub(r'="[^"]*"', lambda at: re.sub(r"(\d\.\d\d)\d+", r"\1", at.group()), rest)
    rest = rest.replace(_INK, "currentColor")
    label = f'role="img" aria-label="{escape(title)}"'
    svg = Markup(f'<svg {view.group()} {label} style="stroke-linejoin:round">{rest}')
    return _BLOCKS.chart(title, svg, legend)
