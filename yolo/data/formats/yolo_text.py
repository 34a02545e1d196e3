"""Darknet's data sets: for each image a text file with a line `class cx cy w h` for each object."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.formats.truth_files import Listed, Truth, read_truth_files
from yolo.data.formats.unread import OnUnread, nominal_hw, stop
from yolo.data.images import size_hw
from yolo.data.reading import read_regular
from yolo.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

LARGEST_NAMES_BYTES = 1 << 20


class _PlainLoader(yaml.SafeLoader):
    """Names need no aliases, of which a few lines can stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias (*name), which class names do not need")
        return super().compose_node(parent, index)


FARTHEST = 2.0
"""A larger number is no part of an image: the file counts pixels."""


class TextFileDataset(DetectionDataset):
    """Images that are already listed, with their text files.

    Lines are `class cx cy w h`: the number of the class from 0, then the box' centre and size
    relative to the image as it is stored (EXIF aside). Boxes are clipped to their image, and those
    without an area are dropped. Category ids are label + 1: the format has none.

    Args:
        listed: the images, by file name, with their text files.
        source: the list or folder.
        images: the folder of images.
        names: class number -> name.
        class_names: the order of the labels; None: that of ``names``.
        cache: a folder to keep what was read in; None keeps nothing.
        on_unread: told of each image whose size cannot be read; returns to go on without.

    Raises:
        UserError: an image is missing or broken, or a line is at fault.
    """

    def __init__(
        self,
        *,
        listed: Sequence[Listed],
        source: Path,
        images: Path,
        names: Sequence[str],
        class_names: Sequence[str] | None,
        cache: Path | None,
        on_unread: OnUnread,
    ) -> None:
        contents = read_truth_files(
            listed,
            partial(_parse, images, tuple(names), on_unread),
            source=source,
            image_root=images,
            part=repr(tuple(names)),
            unit="line",
            class_names=class_names or names,
            cache=cache,
        )
        super().__init__(
            source=source,
            image_root=images,
            class_names=contents.class_names,
            category_ids=range(1, len(contents.class_names) + 1),
            annotations=contents.annotations,
            findings=contents.findings,
        )


class YoloTextDataset(TextFileDataset):
    """A folder of images and one of text files with the same names.

    Folders within them correspond to each other. An image without a text file has no objects.

    Args:
        images: the folder of images.
        labels: the folder of text files.
        names: YAML file with the class names under `names`: a list, or number: name.
        class_names: the order of the labels; without ``names`` also what the numbers mean.
        cache: a folder to keep what was read in; None keeps nothing.
        on_unread: told of each image whose size cannot be read; returns to go on without.

    Raises:
        UserError: a folder or the names are missing, or as `TextFileDataset`.
    """

    def __init__(
        self,
        *,
        images: Path,
        labels: Path,
        names: Path | None = None,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_unread: OnUnread = stop,
    ) -> None:
        images, labels = Path(images), Path(labels)
        meanings = class_names if names is None else read_names(Path(names))
        if meanings is None:
            raise UserError(
                f"the text files of {labels} only number their classes: name a YAML file in the "
                "data set's `names`, or set data.class_names."
            )
        super().__init__(
            listed=_list_folder(images, labels),
            source=images,
            images=images,
            names=meanings,
            class_names=class_names,
            cache=cache,
            on_unread=on_unread,
        )


def _list_folder(images: Path, labels: Path) -> list[Listed]:
    check_folders(images, labels)
    found = sorted(
        path.relative_to(images).as_posix()
        for path in images.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise UserError(f"the folder {images} holds no image.")
    texts = {path.relative_to(labels).as_posix() for path in labels.rglob("*.txt")}
    listed = []
    for name in found:
        text = Path(name).with_suffix(".txt")
        listed.append(Listed(name, labels / text if text.as_posix() in texts else None))
    if all(image.truth is None for image in listed):
        raise UserError(
            f"none of the {len(found)} images of {images} has a text file in {labels}; these must "
            "have the images' names with the suffix .txt."
        )
    return listed


def check_folders(images: Path, labels: Path) -> None:
    """Both must be there.

    Raises:
        UserError: one is not.
    """
    for what, folder in (("images", images), ("text files", labels)):
        if not folder.is_dir():
            raise UserError(f"the folder of {what} {folder} does not exist.")


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a YAML file, by class number.

    Raises:
        UserError: the file is missing or broken, or has no such names.
    """
    try:
        text = read_regular(path, LARGEST_NAMES_BYTES).decode("utf-8")
        content = yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise UserError(f"the file of class names {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"the file of class names {path} cannot be read: {told}.") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(f"{path}: the keys of `names` must be the class numbers 0, 1, 2, ....")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} must have `names`: a list of class names, or number: name.")
    wrong = next((name for name in names if not isinstance(name, str) or not name), None)
    if wrong is not None or None in names:
        told = reprlib.repr(wrong)  # it may be nested without end
        raise UserError(f"{path}: the class name {told} is no text; put it in quotes.")
    if len(set(names)) < len(names):
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{path}: `names` repeats {first_names(repeated)}; names must differ.")
    return tuple(names)


def _parse(
    images: Path, names: tuple[str, ...], on_unread: OnUnread, image: Listed, content: bytes
) -> Truth:
    try:
        truth = Truth(image.name, size_hw(images / image.name))
    except UserError as error:
        on_unread(error)
        truth = Truth(image.name, nominal_hw(), unread=True)
    height, width = truth.size_hw
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{image.truth} is no text in UTF-8.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            name, cx, cy, w, h = _parse_line(line.split(), names)
        except UserError as error:
            raise UserError(f"{image.truth}, line {number} {error}") from None
        left, top = (cx - w / 2) * width, (cy - h / 2) * height
        right, bottom = (cx + w / 2) * width, (cy + h / 2) * height
        truth.add(number, name, (left, top, right, bottom))
    return truth


def _parse_line(
    words: Sequence[str], names: tuple[str, ...]
) -> tuple[str, float, float, float, float]:
    """Class name, centre and size, relative to the image."""
    if len(words) != 5:
        raise UserError(f"has {len(words)} values, but must be `class cx cy w h`.")
    try:
        label = int(words[0])
        cx, cy, w, h = map(float, words[1:])
    except ValueError:
        raise UserError(
            f"is {' '.join(words)!r}, but must be a whole number and four numbers."
        ) from None
    if not 0 <= label < len(names):
        raise UserError(
            f"has the class {label}, but there are the classes 0 to {len(names) - 1} "
            f"({first_names(names)})."
        )
    if max(map(abs, (cx, cy, w, h))) > FARTHEST:
        raise UserError(
            f"is {' '.join(words)!r}, but cx cy w h must be relative to the image (0 to 1)."
        )
    return names[label], cx, cy, w, h
