"""Darknet's data sets: for each image a text file with a line `class cx cy w h` for each object.

The class is its number from 0; the box' centre and size are relative to the image. Of an outline,
`class x1 y1 x2 y2 x3 y3 ...`, the enclosing box is taken; a confidence behind a box is left out.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from yolo.data.bad_images import OnBadImage, nominal_hw, stop
from yolo.data.formats.csv_boxes import csv_rows
from yolo.data.formats.detection import (
    DetectionDataset,
    WrittenImage,
    check_distinct,
    first_names,
    is_inside,
)
from yolo.data.formats.truth_files import (
    ImageTruth,
    ListedImage,
    TruthFilesDataset,
    TruthObject,
    measure,
)
from yolo.data.images import IMAGE_SUFFIXES
from yolo.errors import UserError
from yolo.files import atomic_write, decode_text, read_or_refuse, read_text

FARTHEST = 2.0
"""A larger number is no part of an image: the file counts pixels."""

NAME_A_LINE = (".txt", ".names", ".labels")

LARGEST_NAMES_BYTES = 1 << 20


class YoloTextDataset(TruthFilesDataset):
    """A folder of images and one of text files.

    Args:
        images, labels: the folders of images and of text files.
        list: csv of lines `image,annotation`, with or without that header; every image needs its
            text file. None: all images of the folder, with the text files of the same names;
            folders within them correspond to each other, and one without a file has no objects.
        names: YAML file with the class names under `names`: a list, or number: name; or a text with
            a name a line.
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
        meanings = class_names if names is None else _read_names(names)
        if meanings is None:
            file = "name a YAML file in the data set's `names`, or " if list is None else ""
            raise UserError(
                f"the text files of {labels} only number their classes: {file}set class_names."
            )
        super().__init__(
            listed=_list_folder(images, labels) if list is None else _read_list(list, labels),
            parse=partial(_parse, images, tuple(meanings), on_bad_image, upright),
            source=list or images,
            image_root=images,
            part=repr(tuple(meanings)),
            upright=upright,
            class_names=class_names or meanings,
            cache=cache,
        )


def _list_folder(images: Path, labels: Path) -> list[ListedImage]:
    found = sorted(
        path.relative_to(images).as_posix()
        for path in images.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"the folder {images} holds no image.")
    texts = {path.relative_to(labels).as_posix(): path for path in labels.rglob("*.txt")}
    listed = [
        ListedImage(name, truth=texts.get(str(PurePosixPath(name).with_suffix(".txt"))))
        for name in found
    ]
    if not any(image.truth for image in listed):
        raise UserError(
            f"none of the {len(found)} images of {images} has a text file in {labels}; these must "
            "have the images' names with the suffix .txt."
        )
    return listed


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


class _NoAliases(yaml.SafeLoader):
    """Names need no aliases, of which a few lines can stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias (*name), which class names do not need")
        return super().compose_node(parent, index)


def _read_names(path: Path) -> tuple[str, ...]:
    """The class names of a file, by class number."""
    text = read_text("the file of class names", path, LARGEST_NAMES_BYTES)
    if re.search(r"^\s*names\s*=", text, re.MULTILINE):
        raise UserError(f"{path} lists Darknet's files; name the one behind its `names =` instead.")
    names: Any = text
    if path.suffix.lower() not in NAME_A_LINE:
        try:
            names = yaml.load(text, _NoAliases)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, RecursionError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"the file of class names {path} cannot be read: {problem}.") from None
    if isinstance(names, dict):
        names = names.get("names")
        if isinstance(names, dict):
            numbered = {str(number): name for number, name in names.items()}  # or in quotes
            numbers = [str(number) for number in range(len(names))]
            if set(numbered) != set(numbers):
                raise UserError(
                    f"{path}: the keys of `names` must be the class numbers 0, 1, 2, ...."
                )
            names = [numbered[number] for number in numbers]
    elif isinstance(names, str):
        names = [line.strip() for line in text.strip().splitlines()]
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{path} must have `names`: a list of class names, or number: name; or a name a line."
        )
    for name in names:
        if not isinstance(name, str) or not name:
            problem = reprlib.repr(name)  # it may be nested without end
            raise UserError(f"{path}: the class name {problem} is no text; put it in quotes.")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{path}: `names` repeats {first_names(repeated)}; names must differ.")
    return tuple(names)


def _parse(
    images: Path,
    names: tuple[str, ...],
    on_bad_image: OnBadImage,
    upright: bool,
    image: ListedImage,
    content: bytes,
) -> ImageTruth:
    is_bad, exif, objects = False, "", []
    try:
        (height, width), exif = measure(images / image.name, upright=upright)
    except UserError as error:
        on_bad_image(error)
        is_bad, (height, width) = True, nominal_hw()
    for number, line in enumerate(decode_text(str(image.truth), content).splitlines(), start=1):
        if line.strip():
            place = f"line {number}"
            name, edges, note = _parse_line(f"{image.truth}, {place}", line.split(), names)
            left, top, right, bottom = edges
            box = left * width, top * height, right * width, bottom * height
            objects.append(TruthObject(place, name, box, note=note))
    return ImageTruth(image.name, (height, width), objects, is_bad, note=exif)


def _parse_line(
    where: str, words: Sequence[str], names: tuple[str, ...]
) -> tuple[str, tuple[float, ...], str]:
    """Class name, edges xyxy relative to the image, and the note on what else the line holds."""
    if len(words) < 5 or (len(words) > 6 and len(words) % 2 == 0):
        raise UserError(
            f"{where} has {len(words)} values, but must be `class cx cy w h`, perhaps with a "
            "confidence behind it, or an outline `class x1 y1 x2 y2 x3 y3 ...`."
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
    if max(map(abs, values)) > FARTHEST:
        raise UserError(
            f"{where} is {' '.join(words)!r}, but cx cy w h must be relative to the image (0 to 1)."
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
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
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
