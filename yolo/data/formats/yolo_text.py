"""Darknet's data sets: for each image a text file with a line `class cx cy w h` for each object.

The class is its number from 0; the box' centre and size are relative to the image. Of an outline,
`class x1 y1 x2 y2 x3 y3 ...`, the enclosing box is taken. Left out are a confidence behind a box,
and key points where a data.yaml tells their number (`kpt_shape`).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from yolo.data.bad_images import OnBadImage, stop
from yolo.data.formats.class_names import (
    count_keypoint_values,
    describe_other_names,
    names_files_near,
    read_names,
)
from yolo.data.formats.csv_boxes import csv_rows
from yolo.data.formats.detection import (
    DetectionDataset,
    WrittenImage,
    check_distinct,
    first_names,
    is_inside,
)
from yolo.data.formats.folders import add_left_over, list_files, match_files
from yolo.data.formats.truth_files import ImageTruth, ListedImage, TruthFilesDataset, TruthObject
from yolo.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, is_image
from yolo.errors import UserError
from yolo.files import atomic_write, decode_text, read_or_refuse

KEY_POINTS = "; boxes with key points need `kpt_shape` in a data.yaml beside the files"

NO_LABELS = re.compile(r"(^|/)(classes|labels|names|train|valid|val|test|readme.*)\.txt$", re.I)
"""Text files that tools put beside those of the images."""


class YoloTextDataset(TruthFilesDataset):
    """A folder of images and one of text files.

    Args:
        images, labels: the folders of images and of text files.
        list: csv of lines `image,annotation`, with or without that header; every image needs its
            text file. None: all images of the folder, with the text files of the same names;
            folders within them correspond to each other, and one without a file has no objects.
        names: the file of class names, see `read_names`.
        class_names: None: ``names``; without those also what the numbers mean.
        cache, on_bad_image, upright: see `DetectionDataset`.
    """

    def __init__(
        self,
        *,
        images: Path,
        labels: Path,
        list: Path | None = None,
        names: Path | None = None,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_bad_image: OnBadImage = stop,
        upright: bool = True,
    ) -> None:
        for what, folder in (("images", images), ("text files", labels)):
            if not folder.is_dir():
                raise UserError(f"the folder of {what} {folder} does not exist.")
        near = [*names_files_near(labels, images)]
        meanings = class_names if names is None else read_names(names)
        if meanings is None:
            found = f" ({near[0]})" if near else ""
            way = f"name a file of their names{found} in the data set's `names`, or "
            raise UserError(
                f"the text files of {labels} only number their classes: "
                f"{way if list is None else ''}set class_names."
            )
        if list is None:
            listed, left_over = _list_folder(images, labels)
        else:
            listed, left_over = _read_list(list, labels), {}
        keypoint_values = count_keypoint_values(near if names is None else [names, *near])
        super().__init__(
            listed=listed,
            parse=partial(_parse, tuple(meanings), keypoint_values),
            source=list or images,
            image_root=images,
            part=repr((*meanings, keypoint_values)),
            class_names=class_names or meanings,
            cache=cache,
            on_bad_image=on_bad_image,
            upright=upright,
            relative=True,
        )
        self.findings = add_left_over(self.findings, left_over, len(self))
        if other := describe_other_names(tuple(meanings), near):
            self.findings = replace(self.findings, warnings=(*self.findings.warnings, other))


def _list_folder(images: Path, labels: Path) -> tuple[list[ListedImage], dict[str, list[str]]]:
    """The images with their text files, and what found no partner."""
    files, hidden = list_files("folder of images", images)
    found = list(filter(is_image, files))
    if not found:
        raise UserError(f"the folder {images} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    texts, _ = list_files("folder of text files", labels)
    texts = [name for name in texts if name.lower().endswith(".txt")]
    matched = match_files(found, texts)
    if not matched:
        raise UserError(
            f"none of the {len(found)} images of {images} has a text file in {labels}; these must "
            "have the images' names with the suffix .txt."
        )
    truths = {image: labels / text for image, text in matched.items()}
    uses = Counter(matched.values())
    orphans = [name for name in texts if name not in uses and not NO_LABELS.search(name)]
    lone = [name for name in found if name not in matched]
    hidden = [name for name in hidden if is_image(name) or (images / name).is_dir()]
    others = [name for name in files if name.lower().endswith(UNREAD_SUFFIXES)]
    return [ListedImage(name, truths.get(name)) for name in found], {
        "images without a text file, which count as background": lone,
        f"text files in {labels} that belong to no image": orphans,
        "images that share a text file": [
            name for name in found if uses[matched.get(name, "")] > 1
        ],
        "pictures of a format that is not read": others,
        "hidden files and folders, which are left out": hidden,
    }


def _read_list(path: Path, labels: Path) -> list[ListedImage]:
    listed = []
    content = read_or_refuse("the list", path)
    for place, row in csv_rows(f"the list {path}", content, ["image", "annotation"]):
        where = f"{path}, {place}"
        if len(row) != 2 or not all(map(is_inside, row)):
            raise UserError(
                f"{where} is {','.join(row)!r}, but must be `image,annotation`: two file names "
                "inside the folders of images and of text files."
            )
        listed.append(ListedImage(str(PurePosixPath(row[0])), labels / row[1], where))
    if not listed:
        raise UserError(f"{path} lists no image; its lines must be `image,annotation`.")
    return listed


def _parse(
    names: tuple[str, ...], keypoint_values: int, image: ListedImage, content: bytes
) -> ImageTruth:
    objects = []
    for number, line in enumerate(decode_text(str(image.truth), content).splitlines(), start=1):
        if words := line.split():
            place, note = f"line {number}", ""
            if keypoint_values and len(words) == 5 + keypoint_values:
                words, note = words[:5], "boxes with key points, which are left out"
            name, box, found = _parse_line(f"{image.truth}, {place}", words, names)
            objects.append(TruthObject(place, name, box, note=note or found))
    return ImageTruth(image.name, objects)


def _parse_line(
    where: str, words: Sequence[str], names: tuple[str, ...]
) -> tuple[str, tuple[float, ...], str]:
    """Class name, edges xyxy relative to the image, and the note on what else the line holds."""
    if len(words) < 5 or (len(words) > 6 and len(words) % 2 == 0):
        raise UserError(
            f"{where} has {len(words)} values, but must be `class cx cy w h`, perhaps with a "
            f"confidence behind it, or an outline `class x1 y1 x2 y2 x3 y3 ...`{KEY_POINTS}."
        )
    try:
        label, *values = map(float, words)
    except ValueError:
        label, values = math.nan, []
    if not label.is_integer():
        raise UserError(
            f"{where} is {' '.join(words)!r}, but must be a whole number and four numbers."
        )
    if not 0 <= label < len(names):
        raise UserError(
            f"{where} has the class {label:g}, but there are the classes 0 to {len(names) - 1} "
            f"({first_names(names)})."
        )
    if max(map(abs, values)) >= 2:  # it counts pixels, or a 2 marks a key point as visible
        raise UserError(
            f"{where} is {' '.join(words)!r}, but cx cy w h must be relative to the image (0 to 1)"
            f"{KEY_POINTS if len(words) > 6 else ''}."
        )
    name = names[int(label)]
    if len(values) > 5:
        points = np.array(values).reshape(-1, 2)  # (P, 2) xy
        edges = np.concatenate([points.min(axis=0), points.max(axis=0)]).tolist()
        return name, edges, "boxes around outlines"
    cx, cy, w, h, *confidence = values
    if confidence and not 0 <= confidence[0] <= 1:
        raise UserError(f"{where} ends in {words[5]}, but a sixth value must be a confidence.")
    note = "confidences, which are left out" if confidence else ""
    return name, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), note


def write_yolo_text(
    folder: Path, dataset: DetectionDataset, images: Sequence[WrittenImage], split: str
) -> dict[str, Any]:
    """Write a text file for each image, also for one without boxes, and the classes' names."""
    stems = [image.stem for image in images]
    check_distinct("the image", stems, "yolo_text has one text file for both: rename one")
    for path in (PurePosixPath(image.name) for image in images):
        if not is_image(path.name) or path.name.startswith("."):
            raise UserError(
                f"the image {path}: yolo_text takes images by their suffix "
                f"({', '.join(IMAGE_SUFFIXES)}) and no hidden ones; rename it first."
            )
    check_distinct("the class", dataset.class_names, "yolo_text refuses repeated names")
    names = json.dumps(list(dataset.class_names), ensure_ascii=False)  # json is YAML, all quoted
    atomic_write(folder / "names.yaml", f"names: {names}\n".encode())
    for image in images:
        size_wh = np.array([image.width, image.height], np.float64)
        low, high = image.boxes_xyxy_px[:, :2], image.boxes_xyxy_px[:, 2:]
        cxcywh = np.concatenate([(low + high) / 2 / size_wh, (high - low) / size_wh], axis=1)
        lines = [
            f"{label} {' '.join(map(repr, box))}\n"
            for label, box in zip(image.labels, cxcywh.tolist(), strict=True)
        ]
        atomic_write(folder / "labels" / f"{image.stem}.txt", "".join(lines).encode())
    paths = {"images": Path("images"), "labels": Path("labels"), "names": Path("names.yaml")}
    return {"type": "yolo_text", **paths}
