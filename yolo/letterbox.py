"""Resizing and padding an image to a square, and the inverse for boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch

FILL_COLOUR_RGB = (124, 116, 104)
"""The mean colour of ImageNet: what empty areas are filled with, in training and in validation."""

Boxes = TypeVar("Boxes", np.ndarray, torch.Tensor)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image scaled to fit a square, its shape kept, and centred in it.

    Sizes are rounded to whole pixels; boxes use the scale that results from that, per axis, so
    that ``undo`` is the exact inverse of what happened to the pixels.
    """

    source_hw: tuple[int, int]  # height and width of the image
    size_px: int  # side of the square
    scaled_hw: tuple[int, int]  # height and width of the image inside the square
    pad_top: int  # empty rows above it
    pad_left: int  # empty columns left of it

    @classmethod
    def fit(cls, source_hw: tuple[int, int], size_px: int) -> Letterbox:
        height, width = source_hw
        scale = size_px / max(height, width)
        scaled_h, scaled_w = (min(size_px, max(1, round(side * scale))) for side in source_hw)
        pad_top, pad_left = (size_px - scaled_h) // 2, (size_px - scaled_w) // 2
        return cls((height, width), size_px, (scaled_h, scaled_w), pad_top, pad_left)

    def image(self, image: np.ndarray) -> np.ndarray:
        """Resize and pad uint8 (H, W, 3) -> (S, S, 3)."""
        height, width = self.scaled_hw
        if image.shape[:2] != self.scaled_hw:
            interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=interpolation)
        if self.scaled_hw == (self.size_px, self.size_px):
            return image
        top, left = self.pad_top, self.pad_left
        bottom, right = self.size_px - height - top, self.size_px - width - left
        constant, colour = cv2.BORDER_CONSTANT, FILL_COLOUR_RGB
        return cv2.copyMakeBorder(image, top, bottom, left, right, constant, value=colour)

    def boxes(self, boxes_xyxy_px: Boxes) -> Boxes:
        """Boxes (N, 4) of the image -> boxes of the square."""
        scale, pad = self._scale_and_pad(boxes_xyxy_px)
        return boxes_xyxy_px * scale + pad

    def undo(self, boxes_xyxy_px: Boxes) -> Boxes:
        """Boxes (N, 4) of the square -> boxes of the image, clipped to it."""
        scale, pad = self._scale_and_pad(boxes_xyxy_px)
        height, width = self.source_hw
        boxes = (boxes_xyxy_px - pad) / scale
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        return boxes

    def _scale_and_pad(self, like: Boxes) -> tuple[Boxes, Boxes]:
        scale_x = self.scaled_hw[1] / self.source_hw[1]
        scale_y = self.scaled_hw[0] / self.source_hw[0]
        scale = (scale_x, scale_y, scale_x, scale_y)
        pad = (self.pad_left, self.pad_top, self.pad_left, self.pad_top)
        if isinstance(like, torch.Tensor):
            return like.new_tensor(scale), like.new_tensor(pad)
        return np.array(scale, like.dtype), np.array(pad, like.dtype)
