"""The pictures of the shapes data sets: pure functions of a random generator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np

Rng = np.random.Generator

CATEGORY_IDS = {"circle": 1, "square": 2, "triangle": 3, "star": 5, "ring": 8, "cross": 13}
"""With gaps, like COCO's own ids, so that taking a label for a category id cannot go unseen."""

_CLASSES = tuple(CATEGORY_IDS)
_SIZES_WH = ((320, 240), (256, 256), (240, 320), (400, 300), (300, 400), (384, 216))
_EMPTY_SHARE = 0.05  # images without any object
_CROWD_SHARE = 0.12  # images with a crowd region
_MIN_SIZE_PX = 18  # long side of an outline; the pixels that count span at least 16
_MIN_VISIBLE = 0.5  # share of an object that others must leave to be seen
_TRIES = 12  # at placing one object
_OBJECT_IMAGE_PX = (96, 161)  # width and height of an image with a single object, from and below
_OBJECT_SHARE = (0.4, 0.95)  # long side of that object, of the image's short side
_SUPERSAMPLING = 4  # of outlines, in each direction
_HOLE = 0.55  # radius of a ring's hole, of the ring's own
_HUE_SPREAD_DEGREES = 20  # of a class around its own hue: a hint, as with apples, not a label
_MIN_CONTRAST = 100  # distance in RGB between an object's colour and what lies under it


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image with what was drawn on it."""

    image: np.ndarray  # uint8 (H, W, 3), RGB
    owner: np.ndarray  # int8 (H, W), which annotation's object each pixel shows, -1 for none
    annotations: list[dict[str, Any]] = field(default_factory=list)
    """In COCO form, without the ids of annotation and image."""


class _Shape(NamedTuple):
    """A shape in the patch of the image that holds it tightly."""

    name: str
    left: int
    top: int
    outlines: list[np.ndarray]  # float (P, 2), x and y in pixels of the patch; a second is a hole
    coverage: np.ndarray  # float32 (h, w), the share of each of the patch's pixels

    @property
    def mask(self) -> np.ndarray:
        return self.coverage >= 0.5  # the pixels (h, w) that count as the shape's

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.coverage.shape  # of the patch, in the image
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def draw_scene(rng: Rng) -> Drawing:
    """Draw one image of the detection data set."""
    width, height = _SIZES_WH[rng.integers(len(_SIZES_WH))]
    image = _background(rng, height, width)
    drawing = Drawing(image, owner=np.full((height, width), -1, np.int8))
    if rng.random() >= _EMPTY_SHARE:
        if rng.random() < _CROWD_SHARE:
            _place_crowd(rng, drawing)
        for size_px in _sizes(rng, min(height, width)):
            _place(rng, drawing, size_px)
    return replace(drawing, image=_with_noise(rng, image))


def draw_object(rng: Rng, name: str) -> np.ndarray:
    """Draw a single object of a class on an image of its own: uint8 (H, W, 3), RGB."""
    width, height = rng.integers(*_OBJECT_IMAGE_PX, 2).tolist()
    image = _background(rng, height, width)
    size_px = round(rng.uniform(*_OBJECT_SHARE) * min(height, width))
    _paint(rng, image, _shape(rng, name, size_px, (height, width)))
    return _with_noise(rng, image)


def _with_noise(rng: Rng, image: np.ndarray) -> np.ndarray:
    noise = rng.integers(-6, 7, (*image.shape[:2], 1), dtype=np.int16)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _sizes(rng: Rng, short_side_px: int) -> list[int]:
    """Long sides of an image's objects, falling: the small ones are drawn over the large."""
    bands = ((_MIN_SIZE_PX, 32), (32, 80), (80, 0.95 * short_side_px))
    chosen = rng.choice(len(bands), rng.integers(2, 8), p=(0.3, 0.42, 0.28))
    return sorted((round(np.exp(rng.uniform(*np.log(bands[b])))) for b in chosen), reverse=True)


def _place(rng: Rng, drawing: Drawing, size_px: int) -> None:
    """Draw one object where it hides no other, or none if no such place is found."""

    def may_cover(index: int, pixels: int) -> bool:
        under = drawing.annotations[index]
        visible = np.count_nonzero(drawing.owner == index) - pixels
        return not under["iscrowd"] and visible >= _MIN_VISIBLE * under["area"]

    name = _CLASSES[rng.integers(len(_CLASSES))]
    for _ in range(_TRIES):
        shape = _shape(rng, name, size_px, drawing.owner.shape)
        covered = drawing.owner[shape.window][shape.mask]
        counts = np.bincount(covered[covered >= 0]).tolist()
        if all(may_cover(i, pixels) for i, pixels in enumerate(counts) if pixels):
            _paint(rng, drawing.image, shape)
            drawing.owner[shape.window][shape.mask] = len(drawing.annotations)
            drawing.annotations.append(_annotation(shape))
            return


def _annotation(shape: _Shape) -> dict[str, Any]:
    """The truth of the whole shape, also of what others cover."""
    rings = [np.concatenate((ring, ring[:1])) for ring in shape.outlines]
    if len(rings) == 2:  # COCO's polygons have no holes: walk to the hole, round it, and back
        rings = [rings[0], rings[1][::-1], rings[0][:1]]
    x, y, w, h = cv2.boundingRect(shape.mask.astype(np.uint8))
    polygon = np.concatenate(rings) + np.array((shape.left, shape.top))
    return {
        "category_id": CATEGORY_IDS[shape.name],
        "bbox": [shape.left + x, shape.top + y, w, h],
        "area": int(shape.mask.sum()),
        "iscrowd": 0,
        "segmentation": [polygon.round(2).reshape(-1).tolist()],
    }


def _place_crowd(rng: Rng, drawing: Drawing) -> None:
    """Draw many tiny shapes of one class side by side: one region, which nothing may cover."""
    height, width = drawing.owner.shape
    name = _CLASSES[rng.integers(len(_CLASSES))]
    step = int(rng.integers(9, 14))
    columns, rows = rng.integers(5, 9, 2).tolist()
    left = int(rng.integers(0, width - columns * step))
    top = int(rng.integers(0, height - rows * step))
    mask = np.zeros((height, width), dtype=bool)
    for row, column in np.ndindex(rows, columns):
        shape = _shape(rng, name, int(rng.integers(7, step)), (step, step))
        x, y = shape.left + left + column * step, shape.top + top + row * step
        shape = shape._replace(left=x, top=y)
        _paint(rng, drawing.image, shape)
        mask[shape.window] |= shape.mask
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    drawing.owner[y : y + h, x : x + w] = len(drawing.annotations)
    drawing.annotations.append(
        {
            "category_id": CATEGORY_IDS[name],
            "bbox": [x, y, w, h],
            "area": int(mask.sum()),
            "iscrowd": 1,
            "segmentation": {"size": [height, width], "counts": _run_lengths(mask)},
        }
    )


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, the first one of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=len(flat)).tolist()


def _shape(rng: Rng, name: str, size_px: int, frame_hw: tuple[int, ...]) -> _Shape:
    """A squashed and turned shape with a long side of ``size_px``, somewhere in the frame."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = _OUTLINES[name] * (1, rng.uniform(0.75, 1)) @ turn  # (P, 2)
    low, extent = outline.min(axis=0), np.ptp(outline, axis=0)
    scale = size_px / extent.max()
    outlines = [(outline - low) * scale]
    if name == "ring":
        outlines.append((outline * _HOLE - low) * scale)
    width, height = np.ceil((extent * scale).round(6)).astype(int).tolist()
    left = int(rng.integers(0, frame_hw[1] - width + 1))
    top = int(rng.integers(0, frame_hw[0] - height + 1))
    fine = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), dtype=np.uint8)
    fixed = [(points * _SUPERSAMPLING - 0.5) * 16 for points in outlines]  # pixel centres
    cv2.fillPoly(fine, [points.round().astype(np.int32) for points in fixed], 255, shift=4)
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return _Shape(name, left, top, outlines, coverage=coarse.astype(np.float32) / 255)


def _paint(rng: Rng, image: np.ndarray, shape: _Shape) -> None:
    """Blend a filled shape, half the time with an outline, into the image."""
    patch = image[shape.window]
    height, width = shape.coverage.shape
    own_hue_degrees = _CLASSES.index(shape.name) * 360 / len(_CLASSES)
    colour = _contrasting_colour(rng, own_hue_degrees, patch[shape.mask].mean(axis=0))
    fill = np.empty((height, width, 3), dtype=np.uint8)
    fill[:] = np.clip(colour * _texture(rng, height, width), 0, 255)
    if rng.random() < 0.5:
        fixed = [((outline - 0.5) * 16).round().astype(np.int32) for outline in shape.outlines]
        thickness = max(1, round(max(height, width) / 16))
        cv2.polylines(fill, fixed, True, (colour * 0.35).tolist(), thickness, cv2.LINE_AA, shift=4)
    weight = shape.coverage[:, :, None]
    patch[:] = np.rint(patch * (1 - weight) + fill * weight)


def _texture(rng: Rng, height: int, width: int) -> np.ndarray:
    """Brightness (height, width, 1) of a filling: plain, shaded or striped, around 1."""
    kind = rng.integers(3)
    if kind == 0:
        return np.ones((height, width, 1))
    along = _direction(rng, height, width) / max(height, width)  # 0 .. about 1
    if kind == 1:
        return (0.75 + 0.4 * along)[:, :, None]
    stripes = min(float(rng.integers(4, 9)), max(height, width) / 8)  # none thinner than 4 px
    return (1 - 0.25 * (along * stripes % 1 < 0.5))[:, :, None]


def _contrasting_colour(rng: Rng, own_hue_degrees: float, under: np.ndarray) -> np.ndarray:
    """A lively RGB colour near a hue in degrees, unlike the mean colour under it; float (3,)."""
    while True:
        hue = rng.normal(own_hue_degrees, _HUE_SPREAD_DEGREES) % 360
        colour = _colour(rng, hue, (0.55, 1), (0.5, 1))
        if np.linalg.norm(colour - under) >= _MIN_CONTRAST:
            return colour


def _colour(
    rng: Rng, hue: float, saturations: tuple[float, float], values: tuple[float, float]
) -> np.ndarray:
    """An RGB colour of a hue in degrees: float (3,), 0..255."""
    hsv = np.array([[[hue, rng.uniform(*saturations), rng.uniform(*values)]]])
    return cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)[0, 0].astype(float) * 255


def _background(rng: Rng, height: int, width: int) -> np.ndarray:
    """Two dull colours mixed by a pattern: uint8 (height, width, 3)."""
    first = _colour(rng, rng.uniform(0, 360), (0, 0.35), (0.2, 0.9))
    second = _colour(rng, rng.uniform(0, 360), (0, 0.35), (0.2, 0.9))
    second = first + (second - first) * rng.uniform(0.3, 0.8)
    pattern = _pattern(rng, height, width)[:, :, None]
    return np.rint(first + (second - first) * pattern).astype(np.uint8)


def _pattern(rng: Rng, height: int, width: int) -> np.ndarray:
    """Clouds, a gradient, stripes or a chequerboard: (height, width), 0..1."""
    kind = rng.integers(4)
    if kind == 0:
        coarse = rng.random((rng.integers(3, 12), rng.integers(3, 12)))
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if kind == 3:
        step = rng.integers(10, 40)
        squares = np.add.outer(np.arange(height) // step, np.arange(width) // step)
        return (squares % 2).astype(float)
    along = _direction(rng, height, width)
    if kind == 1:
        return along / along.max()
    return 0.5 + 0.5 * np.sin(along * (2 * np.pi / rng.uniform(8, 50)))


def _direction(rng: Rng, height: int, width: int) -> np.ndarray:
    """Distance in pixels along a random direction: (height, width)."""
    angle = rng.uniform(0, np.pi / 2)
    return np.add.outer(np.sin(angle) * np.arange(height), np.cos(angle) * np.arange(width))


def _regular(corners: int, inner_radius: float | None = None) -> np.ndarray:
    """Corners (P, 2) of a regular polygon, or of a star with as many points."""
    radii = np.ones(corners) if inner_radius is None else np.tile((1, inner_radius), corners)
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1) * radii[:, None]


def _cross(arm: float) -> np.ndarray:
    """Corners (12, 2) of a plus sign whose arms are ``2 * arm`` wide."""
    corner = np.array([(1, -arm), (1, arm), (arm, arm)])
    quarter = np.array([(0, -1), (1, 0)])
    return np.concatenate([corner @ np.linalg.matrix_power(quarter.T, i) for i in range(4)])


_OUTLINES = {
    "circle": _regular(48),
    "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _regular(3),
    "star": _regular(5, inner_radius=0.42),
    "ring": _regular(48),
    "cross": _cross(0.3),
}
