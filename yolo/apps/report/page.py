"""One HTML file with everything in it: no script, no outside address, readable by day and night.

Whatever comes as ``str`` is data and is escaped; only ``Html`` is markup. The page forbids the
browser to load anything (its Content-Security-Policy), so that even a mistake here cannot.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from yolo.errors import UserError
from yolo.files import atomic_write

NOTHING = "–"
"""What stands in a cell without a value."""


class Html(str):
    """Markup that goes into the page as it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Shaded:
    """A cell with a background.

    Attributes:
        value: what is written.
        share: 0..1, how deep the shade is.
    """

    value: str | int | float | None
    share: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell with a bar behind its value.

    Attributes:
        value: what is written.
        share: 0..1, how long the bar is.
    """

    value: str | int | float | None
    share: float


Cell = Html | Shaded | Bar | str | int | float | None
"""A whole number gets its thousands separated, another one three decimals, None and NaN a dash."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        blocks: what stands in it, one below the other.
    """

    title: str
    blocks: Sequence[Html]


def escape(data: str) -> Html:
    """Data as text."""
    return Html(html.escape(data))


def text(data: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{escape(data)}</p>")


def note(data: str) -> Html:
    """A paragraph in small letters."""
    return Html(f'<p class="note">{escape(data)}</p>')


def verdict(kind: Literal["good", "fair", "bad"], data: str) -> Html:
    """A sentence in a frame of its own colour."""
    return Html(f'<p class="verdict {kind}">{escape(data)}</p>')


def link(address: str, data: str) -> Html:
    """A paragraph that leads to a file beside the page."""
    assert ":" not in address and not address.startswith("/"), "an outside address"
    return Html(f'<p><a href="{escape(address)}">{escape(data)}</a></p>')


def table(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str = "", marked: int = -1
) -> Html:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: the columns' names; none for a table without a head.
        rows: of as many cells.
        caption: above it.
        marked: the number of a row that stands out.
    """
    parts = [f"<caption>{escape(caption)}</caption>"] if caption else []
    if head:
        right = [_is_number(column) for column in zip(*rows, strict=True)] or [False] * len(head)
        heads = "".join(
            f'<th scope="col"{" class=number" if numbers else ""}>{escape(name)}</th>'
            for name, numbers in zip(head, right, strict=True)
        )
        parts.append(f"<thead><tr>{heads}</tr></thead>")
    lines = (
        ('<tr class="marked">' if number == marked else "<tr>") + "".join(map(_cell, row)) + "</tr>"
        for number, row in enumerate(rows)
    )
    parts.append(f"<tbody>{''.join(lines)}</tbody>")
    return Html(f'<div class="scroll"><table>{"".join(parts)}</table></div>')


def _is_number(column: Sequence[Cell]) -> bool:
    """Whether its name stands on the right, as its cells do."""
    return not any(isinstance(cell, str) for cell in column)


def _cell(cell: Cell) -> str:
    value = cell.value if isinstance(cell, Shaded | Bar) else cell
    number = isinstance(value, int | float) or value is None
    classes, style = ["number"] if number else [], ""
    if isinstance(cell, Shaded | Bar):
        share = min(max(cell.share, 0.0), 1.0) if math.isfinite(cell.share) else 0.0
        classes.append(type(cell).__name__.lower())
        style = f' style="--share:{share:.3f}"'
    start = f' class="{" ".join(classes)}"' if classes else ""
    return f"<td{start}{style}>{_written(value)}</td>"


def _written(value: Html | str | int | float | None) -> str:
    if isinstance(value, Html):
        return value
    if isinstance(value, str):
        return escape(value)
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def picture(
    image: np.ndarray, *, caption: str = "", longest_px: int = 1200, quality: int = 80
) -> Html:
    """An image inside the page, as a JPEG.

    Args:
        image: uint8 (H, W, 3), RGB.
        caption: below it.
        longest_px: larger ones are shrunk to it.
        quality: of the JPEG, 1..100.
    """
    factor = longest_px / max(image.shape[:2])
    if factor < 1:
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    height, width = image.shape[:2]
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"
    shown = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(caption)}">'
    return figure(Html(shown), caption)


def figure(content: Html, caption: str = "") -> Html:
    """Anything with a caption below it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{content}{below}</figure>")


def grid(blocks: Sequence[Html], *, least_px: int = 420) -> Html:
    """Blocks side by side, as many as the window has room for.

    Args:
        blocks: of any kind.
        least_px: the width below which a column does not shrink.
    """
    return Html(f'<div class="grid" style="--least:{least_px}px">{"".join(blocks)}</div>')


def details(summary: str, blocks: Sequence[Html]) -> Html:
    """Blocks that a click unfolds."""
    return Html(f"<details><summary>{escape(summary)}</summary>{''.join(blocks)}</details>")


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole file; of several sections the page lists the titles on top."""
    numbered = list(enumerate(sections, start=1))
    items = "".join(f'<a href="#s{n}">{escape(section.title)}</a>' for n, section in numbered)
    parts = [
        f'<section id="s{n}"><h2>{escape(section.title)}</h2>{"".join(section.blocks)}</section>'
        for n, section in numbered
    ]
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        subtitle=escape(subtitle),
        contents=f"<nav>{items}</nav>" if len(sections) > 1 else "",
        sections="\n".join(parts),
    )


def write_page(path: Path, content: str) -> None:
    """Write a page whole or not at all.

    Raises:
        UserError: the place cannot be written.
    """
    try:
        atomic_write(path, content.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"{path}: the page cannot be written ({error.strerror or error}); "
            "check the folder's permissions and the free space, or name another place"
        ) from error


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #5d6670;
  --line: #d9dee3; --card: #f5f7f9; --accent: 37 99 235; --good: #1a7f37; --fair: #9a6700;
  --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14171a; --faint: #9aa5b1;
  --line: #343b43; --card: #1d2227; --accent: 96 150 255; --good: #4cc36a; --fair: #e0a92e;
  --bad: #ff6b60; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif; }
h1 { font-size: 25px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
header p { margin: 4px 0 14px; color: var(--faint); overflow-wrap: anywhere; }
p { margin: 8px 0; max-width: 85ch; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; }
a { color: rgb(var(--accent)); text-decoration: none; }
a:hover { text-decoration: underline; }
.note, figcaption, caption { color: var(--faint); font-size: 13px; }
.verdict { border-left: 4px solid; padding: 8px 14px; background: var(--card);
  border-radius: 0 6px 6px 0; }
.good { border-color: var(--good); } .fair { border-color: var(--fair); }
.bad { border-color: var(--bad); }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 2px 0 6px; }
th, td { padding: 4px 12px 4px 8px; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; unicode-bidi: isolate; max-width: 46ch; overflow-wrap: break-word; }
th { color: var(--faint); font-weight: 600; font-size: 13px; vertical-align: bottom;
  max-width: 20ch; }
td.number { white-space: nowrap; }
.number { text-align: right; }
tr.marked td { background: rgb(var(--accent) / 0.14); font-weight: 600; }
td.shaded { background: rgb(var(--accent) / calc(var(--share) * 0.75)); text-align: right; }
td.bar { min-width: 110px; text-align: right; background: linear-gradient(to right,
  rgb(var(--accent) / 0.28) calc(var(--share) * 100%), transparent calc(var(--share) * 100%)); }
code { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; min-width: 0; }
figure > img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
figure > svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 4px; overflow-wrap: anywhere; }
.grid { display: grid; gap: 18px; margin: 12px 0; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)); }
.chart { max-width: 640px; }
.chart h3 { font-size: 14px; margin: 0 0 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; color: var(--faint); }
.legend i { display: inline-block; width: 20px; margin-right: 6px; vertical-align: 4px;
  border-top: 2px solid; }
details { margin: 12px 0; } summary { cursor: pointer; color: rgb(var(--accent)); }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
{contents}
{sections}
</body>
</html>
"""
