"""Darknet's data sets: for each image a text file with a line `class cx cy w h` for each object.

The class is its number from 0; the box' centre and size are relative to the image.
"""

from __future__ import annotations

import json
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

LARGEST_NAMES_BYTES = 1 << 20


class YoloTextDataset(TruthFilesDataset):
    """A folder of images and one of text files.

    Args:
        images, labels: the folders of images and of text files.
        list: csv of lines `image,annotation`, with or without that header; every image needs its
            text file. None: all images of the folder, with the text files of the same names;
            folders within them correspond to each other, and one without a file has no objects.
        names: YAML file with the class names under `names`: a list, or number: name.
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
    """The class names of a YAML file, by class number."""
    text = read_text("the file of class names", path, LARGEST_NAMES_BYTES)
    try:
        content = yaml.load(text, _NoAliases)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"the file of class names {path} cannot be read: {problem}.") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(f"{path}: the keys of `names` must be the class numbers 0, 1, 2, ....")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} must have `names`: a list of class names, or number: name.")
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
    is_bad, note, objects = False, "", []
    try:
        (height, width), note = measure(images / image.name, upright=upright)
    except UserError as error:
        on_bad_image(error)
        is_bad, (height, width) = True, nominal_hw()
    for number, line in enumerate(decode_text(str(image.truth), content).split("\n"), start=1):
        if line.strip():
            place = f"line {number}"
            name, cx, cy, w, h = _parse_line(f"{image.truth}, {place}", line.split(), names)
            left, top = (cx - w / 2) * width, (cy - h / 2) * height
            right, bottom = (cx + w / 2) * width, (cy + h / 2) * height
            objects.append(TruthObject(place, name, (left, top, right, bottom)))
    return ImageTruth(image.name, (height, width), objects, is_bad, note=note)


def _parse_line(
    where: str, words: Sequence[str], names: tuple[str, ...]
) -> tuple[str, float, float, float, float]:
    """Class name, centre and size, relative to the image."""
    if len(words) != 5:
        raise UserError(f"{where} has {len(words)} values, but must be `class cx cy w h`.")
    try:
        label = int(words[0])
        cx, cy, w, h = map(float, words[1:])
    except ValueError:
        raise UserError(
            f"{where} is {' '.join(words)!r}, but must be a whole number and four numbers."
        ) from None
    if not 0 <= label < len(names):
        raise UserError(
            f"{where} has the class {label}, but there are the classes 0 to {len(names) - 1} "
            f"({first_names(names)})."
        )
    if max(map(abs, (cx, cy, w, h))) > FARTHEST:
        raise UserError(
            f"{where} is {' '.join(words)!r}, but cx cy w h must be relative to the image (0 to 1)."
        )
    return names[label], cx, cy, w, h


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
