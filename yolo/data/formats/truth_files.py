"""Data sets that keep a small file of truth for each image: XML or text.

All files are read whole first. Their content is the key of the cache; only what the cache does not
know is parsed. So a changed file is never missed, whatever its time of change says, and what is
parsed is what the key was made from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from yolo.data.formats.annotation_cache import read_cached, to_bytes
from yolo.data.formats.contents import Contents, sanitize
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.reading import read_or_refuse
from yolo.errors import UserError

VERSION = 1
"""Raised by whoever changes what is made of the same files; older cache entries are then void."""

LARGEST_FILE_BYTES = 64 << 20
"""Larger annotations of one image are refused: a wrong file, or an attack."""

MOST_DIGITS = 15
"""Ids stay below 2^53: the COCO tools keep numbers as doubles."""

_log = logging.getLogger(__name__)


class ListedImage(NamedTuple):
    """An image as its data set lists it.

    Attributes:
        name: of the image, relative to the image root, as far as the list gives it.
        truth: its annotation file; None if it has none, and so no boxes.
        where: file and line of the list for messages; "" where a folder is the list.
    """

    name: str
    truth: Path | None
    where: str = ""

    def message(self, text: object) -> str:
        """A message about this image, with the place in the list before it."""
        return f"{self.where}: {text}" if self.where else str(text)


class TruthObject(NamedTuple):
    """An object of an annotation file; ``number`` is its number in the file, or its line."""

    number: int
    class_name: str
    box_xyxy_px: tuple[float, ...]
    ignored: bool = False


class ImageTruth(NamedTuple):
    """What an annotation file holds.

    Attributes:
        file_name: of the image, relative to the data set's image root.
        size_hw: of the image; where it is bad, the annotated or a nominal one.
        objects: in the file's order.
        is_bad: the image cannot be read.
        annotated_hw: the size in the annotation file where it may be another one.
    """

    file_name: str
    size_hw: tuple[int, int]
    objects: list[TruthObject]
    is_bad: bool = False
    annotated_hw: tuple[int, int] | None = None


Parse = Callable[[ListedImage, bytes], ImageTruth]
"""An image and the content of its annotation file (b"" where there is none) -> what it holds."""


class TruthFilesDataset(DetectionDataset):
    """Images whose annotation files are read, or what the cache holds of them.

    Args:
        listed: the images, at least one.
        parse: of the format; raises UserError without the place in the list.
        source: the data set, for messages.
        image_root: the folder that the file names of `ImageTruth` are relative to.
        part: which images of it are listed; with the other arguments it names the cache entry.
        unit: what `TruthObject.number` counts: "object" or "line".
        class_names: None takes the names that are found, by alphabet.
        cache: a folder for cache entries; None always parses.
    """

    def __init__(
        self,
        *,
        listed: Sequence[ListedImage],
        parse: Parse,
        source: Path,
        image_root: Path,
        part: str,
        unit: str,
        class_names: Sequence[str] | None,
        cache: Path | None,
    ) -> None:
        _check_distinct(source, listed)
        files = [_read(image) for image in listed]

        def parse_all() -> Contents:
            _log.info("Reading %s annotation files of %s", f"{len(listed):,}", source)
            pairs = zip(listed, files, strict=True)
            truths = [_parse(parse, image, content) for image, content in pairs]
            return pack_truths(listed, truths, unit, class_names)

        roots = (str(source.resolve()), str(image_root.resolve()))
        contents = read_cached(
            cache,
            name=source.stem,
            identity=(VERSION, unit, *roots, part, class_names and list(class_names)),
            files=_with_heads(listed, files),
            image_root=image_root,
            parse=parse_all,
        )
        super().__init__(source, image_root, contents)


def _check_distinct(source: Path, listed: Sequence[ListedImage]) -> None:
    first: dict[str, ListedImage] = {}
    for image in listed:
        other = first.setdefault(image.name, image)
        if other is not image:
            text = f"{image.name} is listed twice, first in {other.where or source}"
            raise UserError(image.message(f"{text}; remove one of the two."))


def _read(image: ListedImage) -> bytes:
    if image.truth is None:
        return b""
    called = image.message("the annotation file")
    remedy = "; restore it, or take its image off the list"
    return read_or_refuse(called, image.truth, LARGEST_FILE_BYTES, remedy=remedy)


def _with_heads(listed: Sequence[ListedImage], files: Sequence[bytes]) -> Iterator[bytes]:
    """The files' content, each behind what the list has about it."""
    for image, content in zip(listed, files, strict=True):
        yield to_bytes((image.name, str(image.truth), image.where, len(content)))
        yield content


def _parse(parse: Parse, image: ListedImage, content: bytes) -> ImageTruth:
    try:
        return parse(image, content)
    except UserError as error:
        raise UserError(image.message(error)) from None


def pack_truths(
    listed: Sequence[ListedImage],
    truths: Sequence[ImageTruth],
    unit: str,
    class_names: Sequence[str] | None,
) -> Contents:
    """Sanitize and pack what all images hold; the arguments are those of `TruthFilesDataset`."""
    objects = [found for truth in truths for found in truth.objects]
    image_index = np.repeat(np.arange(len(truths)), [len(truth.objects) for truth in truths])
    if class_names is None:
        class_names = sorted({found.class_name for found in objects})
    label_of = {name: label for label, name in enumerate(class_names)}
    for index, found in zip(image_index.tolist(), objects, strict=True):
        if found.class_name not in label_of:
            raise UserError(
                f"{_place(listed[index], unit, found)} is of the class {found.class_name!r}, which "
                f"class_names lacks ({first_names(class_names)}); add it there or correct the file."
            )

    def describe(number: int) -> str:
        found = objects[number]
        box = ", ".join(f"{value:g}" for value in found.box_xyxy_px)
        place = _place(listed[image_index[number]], unit, found)
        return f"{place} ({found.class_name}), box [{box}]"

    file_names = [truth.file_name for truth in truths]
    annotated_hw = [truth.annotated_hw or truth.size_hw for truth in truths]
    return sanitize(
        class_names,
        image_ids=_image_ids(file_names),
        file_names=file_names,
        sizes_hw=np.array([truth.size_hw for truth in truths], np.int64).reshape(-1, 2),
        image_index=image_index,
        boxes_xyxy_px=np.array([o.box_xyxy_px for o in objects], np.float64).reshape(-1, 4),
        labels=np.array([label_of[found.class_name] for found in objects], np.int64),
        ignored=np.array([found.ignored for found in objects], bool),
        describe=describe,
        annotated_hw=np.array(annotated_hw, np.int64).reshape(-1, 2),
        bad_images=sum(truth.is_bad for truth in truths),
    )


def _place(image: ListedImage, unit: str, found: TruthObject) -> str:
    return image.message(f"{image.truth}, {unit} {found.number}")


def _image_ids(file_names: Sequence[str]) -> np.ndarray:
    """An id for each image, int64 (I,).

    The digits of the names where they tell all images apart, so that an image keeps its id in
    every list ("2008_000002.jpg" -> 2008000002); else the place in the list, from 1.
    """
    digits = [re.sub("[^0-9]", "", PurePosixPath(name).stem) for name in file_names]
    if all(0 < len(number) <= MOST_DIGITS for number in digits):
        ids = np.array([int(number) for number in digits], np.int64)
        if len(np.unique(ids)) == len(ids):
            return ids
    return np.arange(1, len(file_names) + 1, dtype=np.int64)
