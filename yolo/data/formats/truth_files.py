"""Data sets that keep a small file of truth for each image: XML or text.

All files are read whole first. Their content is the key of the cache; only what the cache does not
know is parsed. So a changed file is never missed, whatever its time of change says, and what is
parsed is what the key was made from.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from yolo.data.formats.cache import Contents, cached
from yolo.data.formats.detection import first_names
from yolo.data.formats.mending import pack_mended
from yolo.data.reading import read_regular
from yolo.errors import UserError

VERSION = 1
"""Raised by whoever changes what is made of the same files; older cache entries are then void."""

LARGEST_FILE_BYTES = 64 << 20
"""Larger annotations of one image are refused: a wrong file, or an attack."""

MOST_DIGITS = 15
"""Ids stay below 2^53: the COCO tools keep numbers as doubles."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as its data set lists it.

    Attributes:
        name: of the image, relative to the image root, as far as the list gives it.
        truth: its annotation file; None if it has none, and so no boxes.
        where: file and line of the list for messages; "" where a folder is the list.
    """

    name: str
    truth: Path | None
    where: str = ""

    def told(self, what: object) -> str:
        """A message about this image, with the place in the list before it."""
        return f"{self.where}: {what}" if self.where else str(what)


@dataclass(slots=True)
class Truth:
    """What one annotation file says. N boxes.

    Attributes:
        file_name: of the image, relative to the data set's image root.
        size_hw: of the image.
        unread: the image could not be read; its size is the annotated or a nominal one.
        annotated_hw: the size in the annotation file where it is another one; else None.
        class_names, boxes_xyxy_px, ignored: N each.
        numbers: N, the object's number in the file, or its line.
    """

    file_name: str
    size_hw: tuple[int, int]
    unread: bool = False
    annotated_hw: tuple[int, int] | None = None
    class_names: list[str] = field(default_factory=list)
    boxes_xyxy_px: list[tuple[float, float, float, float]] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def add(
        self,
        number: int,
        class_name: str,
        box_xyxy_px: tuple[float, float, float, float],
        *,
        ignored: bool = False,
    ) -> None:
        self.numbers.append(number)
        self.class_names.append(class_name)
        self.boxes_xyxy_px.append(box_xyxy_px)
        self.ignored.append(ignored)


Parse = Callable[[Listed, bytes], Truth]
"""The content of an annotation file (b"" where there is none) -> what it says."""


def read_truth_files(
    listed: Sequence[Listed],
    parse: Parse,
    *,
    source: Path,
    image_root: Path,
    part: str = "",
    unit: str,
    class_names: Sequence[str] | None,
    cache: Path | None,
) -> Contents:
    """Read the annotation files of a data set, or what the cache holds of them.

    Args:
        listed: its images, at least one.
        parse: of the format; raises UserError without the place in the list.
        source: the data set, for messages.
        part: which images of it are listed; with the other arguments it names the cache entry.
        image_root: the folder that the file names of `Truth` are relative to.
        unit: what `Truth.numbers` counts: "object" or "line".
        class_names: label -> name; None takes the names that are found, by alphabet.
        cache: a folder for cache entries; None always parses.

    Raises:
        UserError: a file or image is missing or broken, or a class unknown.
    """
    contents = [_read(image) for image in listed]
    roots = (str(source.resolve()), str(image_root.resolve()))
    identity = repr((VERSION, unit, *roots, part, class_names and list(class_names)))
    key = _digest(identity, listed, contents)

    def parse_all() -> Contents:
        _log.info("Reading %s annotation files of %s", f"{len(listed):,}", source)
        truths = [
            _parse(image, content, parse) for image, content in zip(listed, contents, strict=True)
        ]
        return _pack(listed, truths, unit, class_names)

    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = None if cache is None else cache / f"{source.stem}-{name}.npz"
    return cached(path, key=key, image_root=image_root, parse=parse_all)


def _read(image: Listed) -> bytes:
    if image.truth is None:
        return b""
    try:
        return read_regular(image.truth, LARGEST_FILE_BYTES)
    except FileNotFoundError:
        raise UserError(
            image.told(
                f"the annotation file {image.truth} does not exist; restore it, or take "
                "its image off the list."
            )
        ) from None
    except OSError as error:
        raise UserError(
            image.told(f"the annotation file {image.truth} cannot be read: {error.strerror}.")
        ) from None


def _digest(identity: str, listed: Sequence[Listed], contents: Sequence[bytes]) -> str:
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape"))
    for image, content in zip(listed, contents, strict=True):
        head = (image.name, str(image.truth), image.where, len(content))
        digest.update(repr(head).encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _parse(image: Listed, content: bytes, parse: Parse) -> Truth:
    try:
        return parse(image, content)
    except UserError as error:
        raise UserError(image.told(error)) from None


def _pack(
    listed: Sequence[Listed],
    truths: Sequence[Truth],
    unit: str,
    class_names: Sequence[str] | None,
) -> Contents:
    if class_names is None:
        class_names = sorted({name for truth in truths for name in truth.class_names})
    labels = _labels(listed, truths, unit, class_names)
    counts = [len(truth.numbers) for truth in truths]
    image_index = np.repeat(np.arange(len(truths)), counts)
    first = np.cumsum([0, *counts])
    file_names = [truth.file_name for truth in truths]
    boxes = [box for truth in truths for box in truth.boxes_xyxy_px]

    def describe(place: int) -> str:
        image = int(image_index[place])
        number = truths[image].numbers[place - first[image]]
        box = ", ".join(f"{value:g}" for value in boxes[place])
        return listed[image].told(
            f"{listed[image].truth}, {unit} {number} ({class_names[labels[place]]}), box [{box}]"
        )

    annotated_hw = [truth.annotated_hw or truth.size_hw for truth in truths]
    annotations, findings = pack_mended(
        image_ids=image_ids(file_names),
        file_names=file_names,
        sizes_hw=np.array([truth.size_hw for truth in truths], np.int64).reshape(-1, 2),
        image_index=image_index,
        boxes_xyxy_px=np.array(boxes, np.float64).reshape(-1, 4),
        labels=labels,
        ignored=np.array([flag for truth in truths for flag in truth.ignored], bool),
        describe=describe,
        annotated_hw=np.array(annotated_hw, np.int64).reshape(-1, 2),
    )
    unread = sum(truth.unread for truth in truths)
    return Contents(tuple(class_names), annotations, findings, unread)


def _labels(
    listed: Sequence[Listed], truths: Sequence[Truth], unit: str, class_names: Sequence[str]
) -> np.ndarray:
    """The label of each box, int64 (N,)."""
    label_of = {name: label for label, name in enumerate(class_names)}
    try:
        labels = [label_of[name] for truth in truths for name in truth.class_names]
    except KeyError:
        image, truth = next(
            (image, truth)
            for image, truth in zip(listed, truths, strict=True)
            if not label_of.keys() >= set(truth.class_names)
        )
        place = next(i for i, name in enumerate(truth.class_names) if name not in label_of)
        raise UserError(
            image.told(
                f"{image.truth}, {unit} {truth.numbers[place]} is of the class "
                f"{truth.class_names[place]!r}, which data.class_names lacks "
                f"({first_names(class_names)}); add it there or correct the file."
            )
        ) from None
    return np.array(labels, np.int64)


def image_ids(file_names: Sequence[str]) -> np.ndarray:
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
