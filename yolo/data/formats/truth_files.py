"""Data sets that keep a small file of truth for each image."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from yolo.data.annotations import Contents, sanitize
from yolo.data.bad_images import OnBadImage, nominal_hw
from yolo.data.formats.annotation_cache import read_cached
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.images import measure
from yolo.errors import UserError
from yolo.files import read_or_refuse

LARGEST_FILE_BYTES = 64 << 20
"""Larger annotations of one image are refused: a wrong file, or an attack."""

_log = logging.getLogger(__name__)


class ListedImage(NamedTuple):
    """An image as its data set lists it."""

    name: str  # relative to the image root, as far as the list gives it
    truth: Path | None  # its annotation file; None if it has none, and so no boxes
    where: str = ""  # file and line of the list for messages; "" where a folder is the list

    def message(self, text: object) -> str:
        """A message about this image, with the place in the list before it."""
        return f"{self.where}: {text}" if self.where else str(text)

    def read(self) -> bytes:
        if self.truth is None:
            return b""
        called = self.message("the annotation file")
        remedy = "; restore it, or take its image off the list"
        return read_or_refuse(called, self.truth, LARGEST_FILE_BYTES, remedy=remedy)


class TruthObject(NamedTuple):
    """An object of an annotation file."""

    place: str  # in the file: "object 3", "line 3"
    class_name: str
    box_xyxy: tuple[float, ...]  # in pixels, or in a data set of relative boxes in sides' lengths
    ignored: bool = False
    note: str = ""  # what to count of it in the data set's notes: "boxes around outlines"


class ImageTruth(NamedTuple):
    """What an annotation file holds."""

    file_name: str  # of the image, relative to the data set's image root
    objects: Sequence[TruthObject]  # in the file's order
    annotated_hw: tuple[int, int] | None = None  # in the annotation file where it may differ
    missing: str = ""  # the sentence where it is known that there is no such image


class ImageSize(NamedTuple):
    """Height and width of an image in pixels, of a bad one the annotated or nominal ones."""

    hw: tuple[int, int]
    annotated_hw: tuple[int, int]  # in the annotation file
    note: str = ""  # on its EXIF, see `measure`
    is_bad: bool = False


class TruthFilesDataset(DetectionDataset):
    """Images whose annotation files are read, or what the cache holds of them.

    Args:
        listed: the images, at least one.
        parse: what an annotation file with this content (b"" where there is none) holds; raises
            UserError without the place in the list.
        source, image_root, cache, on_bad_image, upright: see `DetectionDataset`.
        part: which images of it are listed; with the other arguments it names the cache entry.
        class_names: None takes the names found, by alphabet.
        relative: boxes are relative to the images' sides.
    """

    def __init__(
        self,
        *,
        listed: Sequence[ListedImage],
        parse: Callable[[ListedImage, bytes], ImageTruth],
        source: Path,
        image_root: Path,
        part: str,
        class_names: Sequence[str] | None,
        cache: Path | None,
        on_bad_image: OnBadImage,
        upright: bool = True,
        relative: bool = False,
    ) -> None:
        first: dict[str, ListedImage] = {}
        for image in listed:
            other = first.setdefault(image.name, image)
            if other is not image:
                text = f"{image.name} is listed twice, first in {other.where or source}"
                raise UserError(image.message(f"{text}; remove one of the two."))
        files = [image.read() for image in listed]

        def parse_all() -> Contents:
            _log.info("Reading %s annotation files of %s", f"{len(listed):,}", source)
            truths: list[ImageTruth] = []
            sizes: list[ImageSize] = []
            for image, content in zip(listed, files, strict=True):
                try:
                    truths.append(parse(image, content))
                    sizes.append(find_size(image_root, truths[-1], on_bad_image, upright=upright))
                except UserError as error:
                    raise UserError(image.message(error)) from None
            return pack_truths(listed, truths, sizes, class_names, relative=relative)

        heads = [(*map(str, image), len(file)) for image, file in zip(listed, files, strict=True)]
        contents = read_cached(
            cache,
            source=source,
            image_root=image_root,
            part=(part, class_names, upright),
            files=[repr(heads).encode("utf-8", "surrogateescape"), *files],
            parse=parse_all,
        )
        super().__init__(source, image_root, contents, upright=upright)


def find_size(
    image_root: Path, truth: ImageTruth, on_bad_image: OnBadImage, *, upright: bool = True
) -> ImageSize:
    """Look at an image's header; see `DetectionDataset` for the other arguments."""
    try:
        if truth.missing:
            raise UserError(truth.missing)
        size_hw, note = measure(image_root / truth.file_name, truth.annotated_hw, upright=upright)
        return ImageSize(size_hw, truth.annotated_hw or size_hw, note)
    except UserError as error:
        on_bad_image(error)
        size_hw = nominal_hw([found.box_xyxy for found in truth.objects], truth.annotated_hw)
        return ImageSize(size_hw, size_hw, is_bad=True)


def pack_truths(
    listed: Sequence[ListedImage],
    truths: Sequence[ImageTruth],
    sizes: Sequence[ImageSize],
    class_names: Sequence[str] | None,
    *,
    relative: bool = False,
) -> Contents:
    """Sanitize and pack what all images hold; the arguments are those of `TruthFilesDataset`."""
    objects = [found for truth in truths for found in truth.objects]
    image_index = np.repeat(np.arange(len(truths)), [len(truth.objects) for truth in truths])
    sizes_hw = np.array([size.hw for size in sizes], np.int64).reshape(-1, 2)
    boxes = np.array([found.box_xyxy for found in objects], np.float64).reshape(-1, 4)
    if relative:
        boxes *= np.tile(sizes_hw[image_index, ::-1], 2)
    if class_names is None:
        class_names = sorted({found.class_name for found in objects})
    label_of = {name: label for label, name in enumerate(class_names)}

    def place(number: int) -> str:
        image = listed[image_index[number]]
        return image.message(f"{image.truth}, {objects[number].place}")

    def describe(number: int) -> str:
        box = ", ".join(f"{value:g}" for value in boxes[number].tolist())
        return f"{place(number)} ({objects[number].class_name}), box [{box}]"

    for number, found in enumerate(objects):
        if found.class_name not in label_of:
            raise UserError(
                f"{place(number)} is of the class {found.class_name!r}, which class_names lacks "
                f"({first_names(class_names)}); add it there or correct the file."
            )
    file_names = [truth.file_name for truth in truths]
    annotated_hw = [size.annotated_hw for size in sizes]
    return sanitize(
        class_names,
        image_ids=_image_ids(file_names),
        file_names=file_names,
        sizes_hw=sizes_hw,
        image_index=image_index,
        boxes_xyxy_px=boxes,
        labels=np.array([label_of[found.class_name] for found in objects], np.int64),
        ignored=np.array([found.ignored for found in objects], bool),
        describe=describe,
        annotated_hw=np.array(annotated_hw, np.int64).reshape(-1, 2),
        bad_images=sum(size.is_bad for size in sizes),
        notes=[one.note for group in (sizes, objects) for one in group],
    )


def _image_ids(file_names: Sequence[str]) -> np.ndarray:
    """An id for each image, int64 (I,).

    The digits of the names where they tell all images apart, so that an image keeps its id in
    every list ("2008_000002.jpg" -> 2008000002); else the place in the list, from 1.
    """
    digits = [re.sub("[^0-9]", "", PurePosixPath(name).stem) for name in file_names]
    if all(0 < len(number) <= 15 for number in digits):  # the COCO tools keep ids as doubles
        ids = np.array([int(number) for number in digits], np.int64)
        if len(np.unique(ids)) == len(ids):
            return ids
    return np.arange(1, len(file_names) + 1, dtype=np.int64)
