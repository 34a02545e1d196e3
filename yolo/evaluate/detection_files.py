"""What a detector found, as files that other tools read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.errors import UserError
from yolo.evaluate.evaluators import Found
from yolo.files import write_or_refuse

Write = Callable[[Found], object]


def write_coco_results(path: Path, dataset: DetectionDataset, found: Found) -> None:
    """COCO's results format: a list of image_id, category_id, bbox (x, y, w, h), score."""
    own_ids = dataset.own_image_ids()
    rows = [
        {
            "image_id": own_ids[image_id],
            "category_id": dataset.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, label, (x1, y1, x2, y2), score in _rows(found)
    ]
    content = json.dumps(rows).encode()
    write_or_refuse("the detections", path, content, remedy="name another place")


def prepare_text_files(folder: Path, dataset: DetectionDataset) -> Write:
    """A text file for each image, as Padilla's Object-Detection-Metrics reads them.

    ``detections/<image>.txt`` has a line ``class confidence left top right bottom`` for each box,
    ``groundtruths/<image>.txt`` a line ``class left top right bottom`` for each truth that is not
    ignored, for the format knows none such. Pixels are VOC's, as that tool counts inclusively too.

    Returns:
        What writes them. Files of other images, which the tool would count in, are an error before.
    """
    annotations, classes = dataset.annotations, _words(dataset.class_names, "classes")
    names = [f"{name}.txt" for name in _image_names(dataset)]
    for kind in ("detections", "groundtruths"):
        _refuse_others(folder / kind, "*.txt", names)

    def write(found: Found) -> None:
        detections: dict[int, list[str]] = {i: [] for i in annotations.image_ids.tolist()}
        for image_id, label, box, score in _rows(found):
            detections[image_id].append(f"{classes[label]} {score:.9g} {inclusive(box)}")
        truths = [zip(*annotations.truth(i), strict=True) for i in range(len(annotations))]
        of_truths = [
            [f"{classes[label]} {inclusive(box)}" for box, label, ignored in truth if not ignored]
            for truth in truths
        ]
        _write_lines(folder / "detections", names, detections.values())
        _write_lines(folder / "groundtruths", names, of_truths)

    return write


def prepare_voc_files(folder: Path, dataset: DetectionDataset, start: str) -> Write:
    """The result files of the VOC server, ``<competition>_det_<image set>_<class>.txt``.

    A line is ``<image> <confidence> <xmin> <ymin> <xmax> <ymax>``. The names begin with ``start``,
    such as ``comp4_det_test_``: comp3 is trained on VOC's own images, comp4 on any.

    Returns:
        What writes them. Files of other classes are an error before.
    """
    names = [f"{start}{name}.txt" for name in _words(dataset.class_names, "classes")]
    ids = dataset.annotations.image_ids.tolist()
    image_of = dict(zip(ids, _image_names(dataset), strict=True))
    _refuse_others(folder, f"{start}*.txt", names)

    def write(found: Found) -> None:
        contents: list[list[str]] = [[] for _ in names]
        for image_id, label, box, score in _rows(found):
            contents[label].append(f"{image_of[image_id]} {score:.9g} {inclusive(box)}")
        _write_lines(folder, names, contents)

    return write


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


def as_word(name: str) -> str:
    """A name without blanks and slashes, which would divide a line or a path."""
    return re.sub(r"[\s/\\\0]", "_", name)


def _words(names: Sequence[str], kind: str) -> list[str]:
    """The names as words, no two of them the same."""
    name_of: dict[str, str] = {}
    for name in names:
        word = as_word(name)
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
        raise UserError(
            f"{folder}: holds {first_names(others, 1)} of another scoring, which would be counted "
            "in; name an empty folder"
        )


def _write_lines(folder: Path, names: Sequence[str], contents: Iterable[Sequence[str]]) -> None:
    """A file for every name, also where there is no line."""
    for name, lines in zip(names, contents, strict=True):
        write_lines(folder / name, lines)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text, whole or not at all; folders are made."""
    content = "".join(f"{line}\n" for line in lines).encode()
    write_or_refuse("the text", path, content, remedy="make room, or name another place")
