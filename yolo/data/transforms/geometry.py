"""Affine maps of images and boxes: composed one after the other, painted once at the end.

Positions are counted in pixels from the edge of the first one, as in boxes: pixel i reaches from
i to i + 1. OpenCV counts from centre to centre; only `_warp` converts to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from yolo.letterbox import FILL_COLOUR_RGB, Letterbox
from yolo.records import Sample


@dataclass(frozen=True, slots=True)
class Border:
    """What a warp shows beside its image: OpenCV's border mode, and RGB for BORDER_CONSTANT."""

    mode: int = cv2.BORDER_CONSTANT
    colour: tuple[float, ...] = FILL_COLOUR_RGB


MEAN_COLOUR = Border()


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with its truth, as in a ``Sample``, on the way through the geometry."""

    image: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    visible: np.ndarray  # float32 (N,), the share of each box's area that was not cut off yet

    @classmethod
    def of(cls, sample: Sample) -> LabelledImage:
        """A sample of which all is visible."""
        visible = np.ones(len(sample.labels), np.float32)
        return cls(sample.image, sample.boxes_xyxy_px, sample.labels, sample.ignored, visible)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def crop(self, x1: int, y1: int, x2: int, y2: int) -> LabelledImage:
        """A part of the image as an image of its own; what lies beside it is gone."""
        moved = self.boxes_xyxy_px - np.array([x1, y1] * 2, np.float32)
        boxes, share = clip_boxes(moved, (y2 - y1, x2 - x1))
        image = self.image[y1:y2, x1:x2]
        return replace(self, image=image, boxes_xyxy_px=boxes, visible=self.visible * share)


def concatenate(images: Sequence[LabelledImage], image: np.ndarray) -> LabelledImage:
    """The truth of several images, in one image."""
    truths = ([each.boxes_xyxy_px, each.labels, each.ignored, each.visible] for each in images)
    return LabelledImage(image, *map(np.concatenate, zip(*truths, strict=True)))


@dataclass(frozen=True, slots=True)
class Layout:
    """P images side by side in one frame, none of which covers another, not painted yet.

    As long as the only image is merely resized, ``resize`` paints it, better than a warp can.
    """

    images: tuple[LabelledImage, ...]
    matrices: np.ndarray  # float64 (P, 3, 3), positions in each image -> positions in the frame
    size_hw: tuple[int, int]  # of the frame, in pixels
    interpolation: int = cv2.INTER_LINEAR
    ellipse: bool = False  # rotated boxes enclose the ellipses in them instead of their corners
    resize: Callable[[np.ndarray], np.ndarray] | None = None  # None once it was moved
    mirrored: bool = False  # its result is to be flipped

    @classmethod
    def letterboxed(cls, image: LabelledImage, size_px: int) -> Layout:
        """An image fit into a square."""
        fit, matrix = letterbox_map(image.size_hw, size_px)
        return cls((image,), matrix[None], (size_px, size_px), resize=fit.image)

    @classmethod
    def stretched(
        cls, image: LabelledImage, size_px: int, resize: Callable[[np.ndarray], np.ndarray]
    ) -> Layout:
        """An image made a square by ``resize``, its shape not kept."""
        height, width = image.size_hw
        matrix = upright_map(0, 0, scale_x=size_px / width, scale_y=size_px / height)
        return cls((image,), matrix[None], (size_px, size_px), resize=resize)

    @classmethod
    def mosaic(
        cls, images: tuple[LabelledImage, ...], centre: tuple[float, float], size_px: int
    ) -> Layout:
        """Four images, each letterboxed in size, that meet with a corner in a square.

        ``centre`` is where, x and y in shares of the square's side.
        """
        x, y = (round(share * size_px) for share in centre)
        matrices = []
        for place, image in enumerate(images):
            fit, matrix = letterbox_map(image.size_hw, size_px)
            height, width = fit.scaled_hw
            left = x if place % 2 else x - width
            top = y if place >= 2 else y - height
            matrices.append(upright_map(left - fit.pad_left, top - fit.pad_top) @ matrix)
        return cls(images, np.stack(matrices), (size_px, size_px))

    def moved(self, matrix: np.ndarray, size_hw: tuple[int, int]) -> Layout:
        """All of it under a further map (3, 3), into a frame of another size perhaps."""
        return replace(self, matrices=matrix @ self.matrices, size_hw=size_hw, resize=None)

    def fit(self, size_px: int) -> Layout:
        """The frame letterboxed into a square, unless it is that square."""
        if self.size_hw == (size_px, size_px):
            return self
        return self.moved(letterbox_map(self.size_hw, size_px)[1], (size_px, size_px))

    def flipped(self) -> Layout:
        """Mirrored: left is right."""
        mirror = np.array([[-1, 0, self.size_hw[1]], [0, 1, 0], [0, 0, 1]], float)
        return replace(self, matrices=mirror @ self.matrices, mirrored=not self.mirrored)

    def painted(self, border: Border = MEAN_COLOUR) -> LabelledImage:
        """One image of the whole frame, with the boxes that lie in it, clipped to it.

        The border shows beside the only image; several leave the mean colour between them.
        """
        counts = [len(each.labels) for each in self.images]
        whole = concatenate(self.images, self._image(border))
        matrices = np.repeat(self.matrices, counts, axis=0)  # (N, 3, 3)
        moved = move_boxes(whole.boxes_xyxy_px, matrices, ellipse=self.ellipse)
        boxes, share = clip_boxes(moved, self.size_hw)
        return replace(whole, boxes_xyxy_px=boxes, visible=whole.visible * share)

    def _image(self, border: Border) -> np.ndarray:
        image = self.images[0].image
        if self.resize is not None:
            resized = self.resize(image)
            return cv2.flip(resized, 1) if self.mirrored else resized
        if len(self.images) == 1:
            return _warp(image, self.matrices[0], self.size_hw, self.interpolation, border)
        canvas = _empty(self.size_hw).copy()
        for each, matrix in zip(self.images, self.matrices, strict=True):
            _paint(canvas, each.image, matrix, self.interpolation)
        return canvas


def letterbox_map(size_hw: tuple[int, int], size_px: int) -> tuple[Letterbox, np.ndarray]:
    """A letterbox, and its map (3, 3)."""
    fit = Letterbox.fit(size_hw, size_px)
    scale_x, scale_y = fit.scaled_hw[1] / size_hw[1], fit.scaled_hw[0] / size_hw[0]
    return fit, upright_map(fit.pad_left, fit.pad_top, scale_x=scale_x, scale_y=scale_y)


def upright_map(x: float, y: float, *, scale_x: float = 1, scale_y: float = 1) -> np.ndarray:
    """The map (3, 3) that scales, and then moves by x and y pixels."""
    return np.array([[scale_x, 0, x], [0, scale_y, y], [0, 0, 1]], float)


def move_boxes(boxes_xyxy_px: np.ndarray, matrices: np.ndarray, *, ellipse: bool) -> np.ndarray:
    """The upright boxes around boxes (N, 4) under maps (N, 3, 3), or around the ellipses in them.

    A map makes a parallelogram of a box: with p and q half of its sides as vectors, it reaches
    |p| + |q| from its centre, and the ellipse in it sqrt(p^2 + q^2).
    """
    low, high = boxes_xyxy_px[:, :2, None].astype(float), boxes_xyxy_px[:, 2:, None].astype(float)
    linear = matrices[:, :2, :2]
    centre = linear @ ((low + high) / 2) + matrices[:, :2, 2:]  # (N, 2, 1)
    half = (high - low) / 2
    reach = np.sqrt(linear**2 @ half**2) if ellipse else np.abs(linear) @ half
    return np.concatenate([centre - reach, centre + reach], axis=1)[..., 0].astype(np.float32)


def clip_boxes(
    boxes_xyxy_px: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) cut to an image, and the share (N,) of each one's area that is left, 0..1."""
    height, width = size_hw
    clipped = boxes_xyxy_px.clip(0, np.array([width, height, width, height], np.float32))
    left, whole = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (clipped, boxes_xyxy_px))
    return clipped, left / whole.clip(min=np.finfo(np.float32).tiny)


@lru_cache(maxsize=32)
def _empty(size_hw: tuple[int, int]) -> np.ndarray:
    """An image of the mean colour; copying it is 50 times as fast as filling one."""
    return np.full((*size_hw, 3), FILL_COLOUR_RGB, np.uint8)


def _paint(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray, interpolation: int) -> None:
    """Paint an image into the upright rectangle around its place, up to its own slanted edges."""
    height, width = canvas.shape[:2]
    corners = _corners(image, matrix, inset_px=0.0)
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0, [width, height]).tolist()
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(0, [width, height]).tolist()
    if x1 <= x0 or y1 <= y0:
        return
    size_hw, edge = (y1 - y0, x1 - x0), Border(cv2.BORDER_REPLICATE)
    part = _warp(image, upright_map(-x0, -y0) @ matrix, size_hw, interpolation, edge)
    mask = np.zeros(size_hw, np.uint8)
    centres = _corners(image, matrix, inset_px=0.5) - [x0 + 0.5, y0 + 0.5]  # of outermost pixels
    points = np.rint(centres * 2**8).astype(np.int32)  # with 8 bits behind the point
    cv2.fillConvexPoly(mask, points, 255, shift=8)
    cv2.copyTo(part, mask, canvas[y0:y1, x0:x1])


def _corners(image: np.ndarray, matrix: np.ndarray, *, inset_px: float) -> np.ndarray:
    """The corners (4, 2) of an image in its frame, drawn in by so many pixels of the frame."""
    height, width = image.shape[:2]
    step_x, step_y = _steps(matrix)
    x, y = min(inset_px * step_x, width / 2), min(inset_px * step_y, height / 2)
    own = np.array([[x, y], [width - x, y], [width - x, height - y], [x, height - y]])
    return own @ matrix[:2, :2].T + matrix[:2, 2]  # (4, 2)


def _warp(
    image: np.ndarray,
    matrix: np.ndarray,
    size_hw: tuple[int, int],
    interpolation: int,
    border: Border,
) -> np.ndarray:
    image, matrix = _shrunk(image, matrix)
    between_centres = matrix[:2].copy()
    between_centres[:, 2] += (matrix[:2, 0] + matrix[:2, 1]) / 2 - 0.5
    return cv2.warpAffine(
        image,
        between_centres,
        size_hw[::-1],
        flags=interpolation,
        borderMode=border.mode,
        borderValue=border.colour,
    )


def _shrunk(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average the pixels that a map would skip, and give the map of the smaller image.

    Interpolation sees only two neighbours: with a step of 2 or more fine patterns would flicker.
    Whole blocks take a quarter of the time of fractions of pixels; the part of a block that is left
    over at the right and lower edge is less than a pixel of the frame.
    """
    height, width = image.shape[:2]
    step_x, step_y = _steps(matrix)
    if max(step_x, step_y) < 2:
        return image, matrix
    block_w, block_h = min(width, max(1, int(step_x))), min(height, max(1, int(step_y)))
    small_w, small_h = width // block_w, height // block_h
    whole = image[: small_h * block_h, : small_w * block_w]
    small = cv2.resize(whole, (small_w, small_h), interpolation=cv2.INTER_AREA)
    return small, matrix @ upright_map(0, 0, scale_x=block_w, scale_y=block_h)


def _steps(matrix: np.ndarray) -> tuple[float, float]:
    """How far a step of one pixel of the frame is in the image, along the image's x and y."""
    tiny = 1e-9
    (a, b, _), (c, d, _), _ = matrix.tolist()
    return 1 / max(tiny, (a * a + c * c) ** 0.5), 1 / max(tiny, (b * b + d * d) ** 0.5)
