"""What a detector found, as files that other tools read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.evaluate.evaluators import Found


def write_coco_results(path: Path, dataset: DetectionDataset, found: Found) -> None:
    """COCO's results format: a list of image_id, category_id, bbox (x, y, w, h), score."""
    rows = [
        {
            "image_id": image_id,
            "category_id": dataset.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, label, (x1, y1, x2, y2), score in _rows(found)
    ]
    path.write_text(json.dumps(rows))


class TextFiles:
    """A text file for each image, as Padilla's Object-Detection-Metrics reads them.

    ``detections/<image>.txt`` has a line ``class confidence left top right bottom`` for each box,
    ``groundtruths/<image>.txt`` a line ``class left top right bottom`` for each truth that is not
    ignored, for the format knows none such. Pixels are VOC's, as that tool counts inclusively too.
    Files of other images in the folders, which the tool would count in, are an error at once.
    """

    def __init__(self, folder: Path, dataset: DetectionDataset) -> None:
        self._folders = folder / "detections", folder / "groundtruths"
        self._dataset = dataset
        self._classes = _words(dataset.class_names, "classes")
        self._names = [f"{name}.txt" for name in _image_names(dataset)]
        for place in self._folders:
            _refuse_others(place, "*.txt", self._names)

    def write(self, found: Found) -> None:
        """Write a file for every image, also where there is no box."""
        annotations, classes = self._dataset.annotations, self._classes
        detections: dict[int, list[str]] = {i: [] for i in annotations.image_ids.tolist()}
        for image_id, label, box, score in _rows(found):
            detections[image_id].append(f"{classes[label]} {score:.9g} {inclusive(box)}")
        truths = [
            [
                f"{classes[label]} {inclusive(box)}"
                for box, label, ignored in zip(*annotations.truth(i), strict=True)
                if not ignored
            ]
            for i in range(len(annotations))
        ]
        _write_lines(self._folders[0], self._names, list(detections.values()))
        _write_lines(self._folders[1], self._names, truths)


class VocFiles:
    """The result files of the VOC server, ``<competition>_det_<image set>_<class>.txt``.

    A line is ``<image> <confidence> <xmin> <ymin> <xmax> <ymax>``. Files of other classes in the
    folder are an error at once.

    Args:
        start: of the files' names, such as ``comp4_det_test_``: comp3 is trained on VOC's own
            images, comp4 on any.
    """

    def __init__(self, folder: Path, dataset: DetectionDataset, start: str) -> None:
        self._folder = folder
        self._names = [f"{start}{name}.txt" for name in _words(dataset.class_names, "classes")]
        ids = dataset.annotations.image_ids.tolist()
        self._image_of = dict(zip(ids, _image_names(dataset), strict=True))
        _refuse_others(folder, f"{start}*.txt", self._names)

    def write(self, found: Found) -> None:
        """Write a file for every class, also where nothing was found."""
        contents: list[list[str]] = [[] for _ in self._names]
        for image_id, label, box, score in _rows(found):
            contents[label].append(f"{self._image_of[image_id]} {score:.9g} {inclusive(box)}")
        _write_lines(self._folder, self._names, contents)


def _image_names(dataset: DetectionDataset) -> list[str]:
    """A word for each image: its name without folder and suffix, or its path if names recur."""
    names = [dataset.image_name(index) for index in range(len(dataset))]
    if len(set(names)) < len(names):
        names = [dataset.annotations.file_name(index) for index in range(len(dataset))]
    return _words(names, "images")


def inclusive(box_xyxy_px: Sequence[float]) -> str:
    """A box as VOC writes it: the first pixel is 1, the last one belongs to the box."""
    left, top, right, bottom = box_xyxy_px
    return " ".join(f"{value:.7g}" for value in (left + 1, top + 1, right, bottom))


def _rows(found: Found) -> Iterator[tuple[int, int, list[float], float]]:
    """Image id, label, box and score."""
    columns = (found.image_ids, found.labels, found.boxes_xyxy_px, found.scores)
    return zip(*(column.tolist() for column in columns), strict=True)


def _words(names: Sequence[str], kind: str) -> list[str]:
    """Names without blanks and slashes, which would divide a line or a path."""
    name_of: dict[str, str] = {}
    for name in names:
        word = re.sub(r"[\s/\\\0]", "_", name)
        if word in name_of:
            raise UserError(
                f"the {kind} {name_of[word]!r} and {name!r} would both be called {word!r} in the "
                "files; give one of them another name"
            )
        name_of[word] = name
    return list(name_of)


def _refuse_others(folder: Path, pattern: str, names: Sequence[str]) -> None:
    others = sorted({path.name for path in folder.glob(pattern)} - set(names))
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"{folder}: holds {others[0]}{more} of another scoring, which would be counted in; "
            "name an empty folder"
        )


def _write_lines(folder: Path, names: Sequence[str], contents: Sequence[Sequence[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in zip(names, contents, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
