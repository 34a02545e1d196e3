"""The images on which an export is compared with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolo.data.formats.shapes_scene import draw_scene
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB, Letterbox

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

BATCH = 4

MOST_IMAGES = 16
"""Of a folder; the first by name."""


def check_batches(folder: Path | None, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Batches of 1 and of up to 4 images at each size; the first is an empty scene.

    Args:
        folder: of images; None draws some of the embedded data set's.
        sizes_hw: height and width in pixels. Images are letterboxed into a square that holds them
            and cut.

    Returns:
        uint8 (B, 3, H, W) each.

    Raises:
        UserError: the folder has no images, or one cannot be read.
    """
    images = _drawn() if folder is None else _read(folder)
    return [batch for size_hw in sizes_hw for batch in _batches(images, size_hw)]


def _drawn() -> list[np.ndarray]:
    return [draw_scene(np.random.default_rng(seed)).image for seed in range(BATCH)]


def _read(folder: Path) -> list[np.ndarray]:
    if not folder.is_dir():
        raise UserError(f"--images {folder}: there is no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"--images {folder}: holds no image ({', '.join(SUFFIXES)})")
    return [decode(path) for path in paths[:MOST_IMAGES]]


def _batches(images: Sequence[np.ndarray], size_hw: tuple[int, int]) -> Iterator[Tensor]:
    empty = np.full((*size_hw, 3), FILL_COLOUR_RGB, np.uint8)
    yield _stack([empty])
    height, width = size_hw
    fitted = [
        Letterbox.fit(image.shape[:2], max(size_hw)).image(image)[:height, :width]
        for image in images
    ]
    for start in range(0, len(fitted), BATCH):
        yield _stack(fitted[start : start + BATCH])


def _stack(images: Sequence[np.ndarray]) -> Tensor:
    """(H, W, 3) each -> (B, 3, H, W)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
