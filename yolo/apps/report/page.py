"""HTML pages of one file each: Jinja2 templates with everything inside, no request to outside.

Autoescape takes every value for data; only ``Markup`` goes in as it is. The page forbids the
browser to load anything (its Content-Security-Policy), so that even a mistake here cannot.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from yolo.errors import UserError
from yolo.files import atomic_write

NOTHING = "–"  # what stands in a cell without a value


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
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _has_numbers(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    return bool(rows) and not any(isinstance(row[column], str) for row in rows)


_TEMPLATES = Environment(
    loader=PackageLoader("yolo.apps.report"),
    autoescape=True,
    extensions=["jinja2.ext.do"],
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"written": _written, "has_numbers": _has_numbers}
_BLOCKS = vars(_TEMPLATES.get_template("blocks.html").module)


def render(template: str, **values: Any) -> str:
    """A whole page, by a file of the folder ``templates`` and the values that it names."""
    return _TEMPLATES.get_template(template).render(values)


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str = "") -> Markup:
    """A table that scrolls sideways where it is too wide; one that has no row is nothing."""
    return Markup(_BLOCKS["table"](head, rows, caption)) if rows else Markup("")


def grid(blocks: Sequence[Markup], *, least_px: int) -> Markup:
    """Blocks side by side in columns of at least so many pixels."""
    return Markup(_BLOCKS["grid"](blocks, least_px))


def details(summary: str, content: Markup) -> Markup:
    """What a click unfolds."""
    return Markup(_BLOCKS["details"](summary, content))


def chart(title: str, svg: Markup, legend: Sequence[tuple[str, str, str]]) -> Markup:
    """A drawing below its title and above its legend of names, colours and styles of CSS."""
    return Markup(_BLOCKS["chart"](title, svg, legend))


def picture(
    image: np.ndarray, *, caption: str = "", longest_px: int = 1200, quality: int = 80
) -> Markup:
    """An image inside the page, as a JPEG.

    Args:
        image: uint8 (H, W, 3), RGB; a larger one is shrunk to ``longest_px``.
        caption: below it.
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
    return Markup(_BLOCKS["picture"](source, width, height, caption))


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
