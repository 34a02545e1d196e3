"""What an evaluation shows: the network's own images, without their padding."""

from __future__ import annotations

import numpy as np

from yolo.letterbox import Letterbox
from yolo.records import Batch


def without_padding(batch: Batch, i: int) -> tuple[np.ndarray, Letterbox]:
    """Image ``i`` of a letterboxed batch as the network gets it: (h, w, 3), and its letterbox."""
    height, width = batch.original_sizes_hw[i].tolist()
    letterbox = Letterbox.fit((height, width), batch.images.shape[-1])
    rows = slice(letterbox.pad_top, letterbox.pad_top + letterbox.scaled_hw[0])
    columns = slice(letterbox.pad_left, letterbox.pad_left + letterbox.scaled_hw[1])
    image = batch.images[i, :, rows, columns].permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
    return image, letterbox
