"""What a training shows of each evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolo.apps.report.drawing.boxes import draw_detections, draw_truth
from yolo.apps.report.drawing.sheets import side_by_side
from yolo.records import Detections, Sample


class EvaluationPictures:
    """Draws the truth on the left and what was found on the right."""

    def draw(self, truth: Sample, found: Detections, class_names: Sequence[str]) -> np.ndarray:
        """Boxes in pixels of the image: (H, W, 3)."""
        right = draw_detections(truth.image, found, class_names)
        return side_by_side(draw_truth(truth, class_names), right)
