"""What was found, as pictures, videos, JSON and text files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from yolo.apps.predict.prediction import Prediction
from yolo.apps.predict.predictor import Predictor
from yolo.apps.predict.sources import USUAL_FPS, Frame, Source, count_frames, opencv_name
from yolo.apps.report.drawing import (
    contact_sheet,
    count_boxes,
    draw_detections,
    draw_tile,
    save_image,
)
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.evaluate.detection_files import as_word, inclusive, write_lines
from yolo.files import output_path, write_or_refuse

PARTIAL = ".partial.mp4"  # ends the name of a video until it is whole
KEPT_FORMATS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})  # all others become JPEGs


class Results(Protocol):
    """Takes in every frame that could be read, source by source."""

    def add(self, frame: Frame, prediction: Prediction) -> None: ...

    def close(self) -> None:
        """Finish the files; also after an interruption."""


class Pictures:
    """The images and videos with boxes in them.

    ``explain`` turns an RGB image into pictures of what the network looked at, which are put beside
    it. The folder is made when something is written; none of the ``sources`` is overwritten.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        *,
        sources: Sequence[Source] = (),
        explain: Callable[[np.ndarray], list[np.ndarray]] | None = None,
    ) -> None:
        self._sources = {s.address.resolve() for s in sources if isinstance(s.address, Path)}
        self._folder, self._class_names, self._explain = folder, class_names, explain
        self._video: _Video | None = None

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Draw one frame, unless it would overwrite a source."""
        assert frame.image is not None
        source, suffix = frame.source, ".mp4"
        if source.fps is None:
            suffix = Path(str(source.address)).suffix
            suffix = suffix if suffix.lower() in KEPT_FORMATS else ".jpg"
        target = self._folder / f"{source.stem}{suffix}"
        own = Path(str(source.address)).resolve()
        for path in [target] if source.fps is None else [target, target.with_suffix(PARTIAL)]:
            if path.resolve() in {own, *self._sources}:
                by = "its own result" if path.resolve() == own else f"the result of {source.name}"
                raise UserError(f"{path}: would be overwritten by {by}; name another --output")
        picture = draw_detections(frame.image, prediction.detections, self._class_names)
        if self._explain is not None:
            picture = contact_sheet([picture, *self._explain(frame.image)], columns=2)
        if source.fps is None:
            save_image(target, picture)
            return
        if self._video is None or self._video.source is not source:
            self.close()
            self._video = _Video(source, target, (picture.shape[1], picture.shape[0]))
        self._video.write(picture, frame.number)

    def close(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.close()


class _Video:
    """An MP4 of pictures of this size, which has its name only once it is seen to be whole."""

    def __init__(self, source: Source, path: Path, size_wh: tuple[int, int]) -> None:
        self.source, self._size_wh, self._number = source, size_wh, -1
        self._failure = UserError(
            f"{path}: the video cannot be written; check the folder's permissions and the free "
            "space"
        )
        self._partial = ExitStack()
        opencv_name(path)  # before anything is made
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = output_path(path, temporary_name=path.with_suffix(PARTIAL).name)
            self._file = self._partial.enter_context(partial)
        except OSError as error:
            raise self._failure from error
        fourcc, fps = cv2.VideoWriter.fourcc(*"mp4v"), source.fps or USUAL_FPS
        name = opencv_name(self._file)
        self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, fourcc, fps, size_wh)
        if not self._writer.isOpened():
            with self._partial:
                raise self._failure

    def write(self, picture: np.ndarray, number: int) -> None:
        """A frame; it also stands for those that were skipped before it, to keep the pace."""
        if picture.shape[1::-1] != self._size_wh:  # a stream may change its size
            picture = cv2.resize(picture, self._size_wh, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(number - self._number):
            self._writer.write(bgr)
        self._number = number

    def close(self) -> None:
        """OpenCV's writer tells of no failure, such as a full disk: the file is read back."""
        self._writer.release()
        with self._partial:
            if count_frames(self._file) != self._number + 1:
                raise self._failure


class JsonFile:
    """All boxes in COCO's form, with the names of classes and files; written at the end.

    Boxes are [x, y, width, height] in pixels of the original image.
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
        images, annotations = self._content["images"], self._content["annotations"]
        height, width = prediction.image_hw
        image_id = len(images) + 1
        entry = {"id": image_id, "file_name": frame.source.name, "width": width, "height": height}
        images.append(entry if frame.source.fps is None else entry | {"frame": frame.number})
        for (x1, y1, x2, y2), score, label in prediction.detections.rows():
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
        content = f"{json.dumps(self._content)}\n".encode()
        write_or_refuse("the json", self._path, content, remedy="name another --json")


class TextFolder:
    """A text file for each frame, in the form of validation.py's --save-txt.

    A line is ``class confidence left top right bottom``, in VOC's inclusive pixels; blanks and
    slashes in the class are underscores. A video's files have the frame's number behind its name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Write a file, also where nothing was found."""
        number = "" if frame.source.fps is None else f"_{frame.number:06d}"
        named = zip(prediction.names, prediction.detections.rows(), strict=True)
        lines = [f"{as_word(name)} {score:.9g} {inclusive(box)}" for name, (box, score, _) in named]
        write_lines(self._folder / f"{frame.source.stem}{number}.txt", lines)

    def close(self) -> None: ...


def draw_dataset(
    dataset: DetectionDataset, predictor: Predictor | None, *, side_px: int
) -> Iterator[np.ndarray]:
    """A tile for each image: its truth as it was read, and beside it what ``predictor`` finds.

    The longer side of a drawn image has ``side_px``. A predictor names boxes by its own classes.
    """
    for index in range(len(dataset)):
        sample = dataset.load(index)
        height, width = sample.image.shape[:2]
        name = f"{dataset.annotations.file_name(index)} · id {sample.image_id}"
        tile = partial(draw_tile, sample.image, side_px=side_px)
        truth = tile(
            sample.boxes_xyxy_px,
            sample.labels,
            dataset.class_names,
            title=f"{name} · {width}x{height} · {count_boxes(sample.ignored)}",
            ignored=sample.ignored,
        )
        if predictor is None:
            yield truth
            continue
        found = predictor(sample.image)[0].detections
        prediction = tile(
            found.boxes_xyxy_px.numpy(),
            found.labels.numpy(),
            predictor.class_names,
            title=f"prediction · {len(found)} found",
            scores=found.scores.numpy(),
        )
        yield contact_sheet([truth, prediction], columns=2)
