"""What was found, as pictures, videos, JSON and text files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from yolo.apps.predict.predictor import Prediction, Predictor
from yolo.apps.predict.sources import USUAL_FPS, Frame, Source
from yolo.apps.report.drawing import contact_sheet, draw_detections, save_image
from yolo.errors import UserError
from yolo.evaluate.detection_files import inclusive

WRITTEN_AS_THEY_CAME = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""Formats of pictures that are kept; from all others come JPEGs."""

Explain = Callable[[np.ndarray], list[np.ndarray]]
"""An RGB image to pictures of what the network looked at."""


class Results(Protocol):
    """Takes in every frame that could be read, source by source."""

    def add(self, frame: Frame, prediction: Prediction) -> None: ...

    def close(self) -> None:
        """Finish the files; also after an interruption."""


class Pictures:
    """The images and videos with boxes in them.

    Args:
        folder: is made when something is written.
        class_names: by label.
        explain: adds what it returns to each picture; None adds nothing.
    """

    def __init__(
        self, folder: Path, class_names: Sequence[str], *, explain: Explain | None = None
    ) -> None:
        self._folder, self._class_names, self._explain = folder, class_names, explain
        self._video: _Video | None = None

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Draw one frame.

        Raises:
            UserError: it cannot be written, or would overwrite its own source.
        """
        assert frame.image is not None
        source = frame.source
        _refuse_itself(self._folder / f"{source.stem}{_suffix(source)}", source)
        picture = draw_detections(frame.image, prediction.detections, self._class_names)
        if self._explain is not None:
            picture = contact_sheet([picture, *self._explain(frame.image)], columns=2)
        if source.fps is None:
            save_image(self._folder / f"{source.stem}{_suffix(source)}", picture)
        else:
            self._video_of(source).write(picture, frame.number)

    def close(self) -> None:
        """Finish the last video."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _video_of(self, source: Source) -> _Video:
        if self._video is None or self._video.source is not source:
            self.close()
            self._video = _Video(source, self._folder)
        return self._video


class _Video:
    """An MP4 that has its name only once it is whole."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self._path = folder / f"{source.stem}.mp4"
        self._partial = folder / f"{source.stem}.partial.mp4"
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._number = -1

    def write(self, picture: np.ndarray, number: int) -> None:
        """A frame; it also stands for those that were skipped before it, to keep the pace."""
        if self._writer is None:
            self._writer = self._start(picture)
        if picture.shape[1::-1] != self._size_wh:  # a stream may change its size
            picture = cv2.resize(picture, self._size_wh, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(number - self._number):
            self._writer.write(bgr)
        self._number = number

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._partial.replace(self._path)

    def _start(self, picture: np.ndarray) -> cv2.VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._size_wh = picture.shape[1], picture.shape[0]
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        fps = self.source.fps or USUAL_FPS
        writer = cv2.VideoWriter(str(self._partial), fourcc, fps, self._size_wh)
        if not writer.isOpened():
            raise UserError(
                f"{self._path}: the video cannot be written; check the folder's permissions and "
                "the free space"
            )
        return writer


class JsonFile:
    """All boxes in COCO's form, with names, file names and what was skipped.

    Boxes are [x, y, width, height] in pixels of the original image.

    Args:
        path: is written at the end.
        predictor: whose classes they are.
        checkpoint: is named in the file.
    """

    def __init__(self, path: Path, predictor: Predictor, checkpoint: Path) -> None:
        self._path, self._predictor = path, predictor
        categories = zip(predictor.category_ids, predictor.class_names, strict=True)
        self._content: dict[str, Any] = {
            "info": {"checkpoint": str(checkpoint), "image_size_px": predictor.image_size_px},
            "images": [],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [],
        }

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Take in one frame."""
        images, annotations = self._content["images"], self._content["annotations"]
        height, width = prediction.image_hw
        image_id = len(images) + 1
        entry = {"id": image_id, "file_name": frame.source.name, "width": width, "height": height}
        images.append(entry if frame.source.fps is None else entry | {"frame": frame.number})
        found = prediction.detections
        rows = zip(
            found.boxes_xyxy_px.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
        for (x1, y1, x2, y2), score, label in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": self._predictor.category_ids[label],
                    "category_name": self._predictor.class_names[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "score": score,
                }
            )

    def close(self) -> None:
        """Write the file."""
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.write_text(json.dumps(self._content) + "\n", encoding="utf-8")
        partial.replace(self._path)


class TextFolder:
    """A text file for each frame, in the form of validation.py's --save-txt.

    A line is ``class confidence left top right bottom``, in VOC's inclusive pixels; blanks and
    slashes in the class are underscores. A video's files have the frame's number behind its name.

    Args:
        folder: is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Write one file, also where nothing was found."""
        source, found = frame.source, prediction.detections
        number = "" if source.fps is None else f"_{frame.number:06d}"
        path = self._folder / f"{source.stem}{number}.txt"
        boxes, scores = found.boxes_xyxy_px.tolist(), found.scores.tolist()
        words = [re.sub(r"[\s/\\\0]", "_", name) for name in prediction.names]
        lines = [
            f"{word} {score:.9g} {inclusive(box)}\n"
            for word, score, box in zip(words, scores, boxes, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")

    def close(self) -> None: ...


def _refuse_itself(target: Path, source: Source) -> None:
    if isinstance(source.address, Path) and target.resolve() == source.address.resolve():
        raise UserError(f"{target}: would be overwritten by its own result; name another --output")


def _suffix(source: Source) -> str:
    """Of its picture or its video."""
    if source.fps is not None:
        return ".mp4"
    suffix = Path(str(source.address)).suffix
    return suffix if suffix.lower() in WRITTEN_AS_THEY_CAME else ".jpg"
