"""One table of boxes: a line `image,xmin,ymin,xmax,ymax,class` for each object."""

from __future__ import annotations

import csv
import hashlib
import io
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from yolo.data.formats.cache import Contents, cached
from yolo.data.formats.detection import DetectionDataset, first_names, is_inside
from yolo.data.formats.mending import pack_mended
from yolo.data.formats.truth_files import image_ids
from yolo.data.formats.unread import OnUnread, nominal_hw, stop
from yolo.data.images import size_hw
from yolo.data.reading import read_regular
from yolo.errors import UserError

HEADER = ["image", "xmin", "ymin", "xmax", "ymax", "class"]
FORM = f"`{','.join(HEADER)}`"

VERSION = 1
"""Raised by whoever changes what is made of the same table; older cache entries are then void."""


@dataclass(slots=True)
class _Table:
    """What the lines say. I images in the order of their first lines, N boxes in that of the file.

    Attributes:
        first_lines: image name -> the number of its first line.
        empty_lines: image name -> the number of the line that says it has no boxes.
        image_names, class_names, boxes_xyxy_px, lines: N each.
    """

    first_lines: dict[str, int] = field(default_factory=dict)
    empty_lines: dict[str, int] = field(default_factory=dict)
    image_names: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    boxes_xyxy_px: list[list[float]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class CsvBoxesDataset(DetectionDataset):
    """The images of a csv file, with a line for each box.

    Lines are `image,xmin,ymin,xmax,ymax,class`: the image's name within ``images``, the box' edges
    in pixels of the image as it is stored (EXIF aside), counted from its left upper corner, so that
    a box over all of an image of 60x40 px is 0,0,60,40; then the name of the class. Fractions of
    pixels are allowed. The first line may be those six words. The lines of an image need not stand
    together. An image without boxes has one line, whose other five fields are empty.

    Boxes are clipped to their image, and those without an area are dropped. Category ids are
    label + 1: the format has none.

    Args:
        boxes: the csv file, UTF-8.
        images: the folder of images.
        class_names: the order of the labels, at least the classes of the file; None: by alphabet.
        cache: a folder to keep what was read in; None keeps nothing.
        on_unread: told of each image whose size cannot be read; returns to go on without.

    Raises:
        UserError: the table, the folder or an image is missing or broken, or a line is at fault.
    """

    def __init__(
        self,
        *,
        boxes: Path,
        images: Path,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_unread: OnUnread = stop,
    ) -> None:
        path, images = Path(boxes), Path(images)
        content = _read(path)
        if not images.is_dir():
            raise UserError(f"the folder of images {images} does not exist.")
        names = None if class_names is None else list(class_names)
        identity = repr((VERSION, str(path.resolve()), str(images.resolve()), names))
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape"))
        entry = None if cache is None else cache / f"{path.stem}-{digest.hexdigest()[:16]}.npz"
        digest.update(content)
        contents = cached(
            entry,
            key=digest.hexdigest(),
            image_root=images,
            parse=lambda: _parse(path, content, images, names, on_unread),
        )
        super().__init__(
            source=path,
            image_root=images,
            class_names=contents.class_names,
            category_ids=range(1, len(contents.class_names) + 1),
            annotations=contents.annotations,
            findings=contents.findings,
        )


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise UserError(f"the table of boxes {path} does not exist.") from None
    except OSError as error:
        raise UserError(f"the table of boxes {path} cannot be read: {error.strerror}.") from None


def _parse(
    path: Path,
    content: bytes,
    images: Path,
    class_names: list[str] | None,
    on_unread: OnUnread,
) -> Contents:
    table = _to_table(path, content)
    if class_names is None:
        class_names = sorted(set(table.class_names))
        if not class_names:
            raise UserError(f"{path} holds no box: name the classes in data.class_names.")
    file_names = [*table.first_lines]
    index_of = {name: index for index, name in enumerate(file_names)}
    labels = _labels(path, table, class_names)
    boxes = np.array(table.boxes_xyxy_px, np.float64).reshape(-1, 4)
    image_index = np.array([index_of[name] for name in table.image_names], np.int64)
    sizes_hw, unread = _sizes_hw(path, table, images, on_unread)
    for index in unread:
        sizes_hw[index] = nominal_hw(boxes[image_index == index])

    def describe(place: int) -> str:
        box = ", ".join(f"{value:g}" for value in table.boxes_xyxy_px[place])
        return f"{path}, line {table.lines[place]} ({table.class_names[place]}), box [{box}]"

    annotations, findings = pack_mended(
        image_ids=image_ids(file_names),
        file_names=file_names,
        sizes_hw=sizes_hw,
        image_index=image_index,
        boxes_xyxy_px=boxes,
        labels=labels,
        ignored=np.zeros(len(labels), bool),
        describe=describe,
    )
    return Contents(tuple(class_names), annotations, findings, len(unread))


def _to_table(path: Path, content: bytes) -> _Table:
    table = _Table()
    for number, row in _rows(path, content):
        where = f"{path}, line {number}"
        if len(row) != len(HEADER):
            raise UserError(f"{where} has {len(row)} fields, but must be {FORM}.")
        if not is_inside(row[0]):
            raise UserError(
                f"{where}: the image {reprlib.repr(row[0])} must be a file name inside the folder."
            )
        name = str(PurePosixPath(row[0]))
        table.first_lines.setdefault(name, number)
        if any(row[1:]):
            table.image_names.append(name)
            table.class_names.append(row[5])
            table.boxes_xyxy_px.append(_box(where, row))
            table.lines.append(number)
        else:
            table.empty_lines[name] = number
    if not table.first_lines:
        raise UserError(f"{path} lists no image; its lines must be {FORM}.")
    _check_empty(path, table)
    return table


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers, without the header."""
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        reader = csv.reader(text, skipinitialspace=True, strict=True)
        for place, row in enumerate(filter(None, reader)):
            cells = [cell.strip() for cell in row]
            if place > 0 or [cell.lower() for cell in cells] != HEADER:
                yield reader.line_num, cells
    except UnicodeDecodeError:
        raise UserError(f"the table of boxes {path} is no text in UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"the table of boxes {path} is broken: {error}.") from None


def _box(where: str, row: Sequence[str]) -> list[float]:
    try:
        box = [float(cell) for cell in row[1:5]]
    except ValueError:
        raise UserError(
            f"{where}: the box {reprlib.repr(','.join(row[1:5]))} must be four numbers of pixels, "
            "xmin,ymin,xmax,ymax; an image without boxes has all five fields empty."
        ) from None
    if not row[5]:
        raise UserError(f"{where} names no class; its last field must be the name of one.")
    return box


def _check_empty(path: Path, table: _Table) -> None:
    """An image has boxes or a line that says that it has none."""
    both = table.empty_lines.keys() & set(table.image_names)
    if both:
        name = min(both, key=lambda name: table.empty_lines[name])
        box_line = table.lines[table.image_names.index(name)]
        raise UserError(
            f"{path}, line {table.empty_lines[name]} says that {name} has no boxes, but line "
            f"{box_line} has one; remove one of the two."
        )


def _labels(path: Path, table: _Table, class_names: Sequence[str]) -> np.ndarray:
    """The label of each box, int64 (N,)."""
    label_of = {name: label for label, name in enumerate(class_names)}
    for place, name in enumerate(table.class_names):
        if name not in label_of:
            raise UserError(
                f"{path}, line {table.lines[place]} is of the class {reprlib.repr(name)}, which "
                f"data.class_names lacks ({first_names(class_names)}); add it there or correct "
                "the line."
            )
    return np.array([label_of[name] for name in table.class_names], np.int64)


def _sizes_hw(
    path: Path, table: _Table, images: Path, on_unread: OnUnread
) -> tuple[np.ndarray, list[int]]:
    """The sizes of the images from their headers, int64 (I, 2), and which could not be read."""
    sizes_hw, unread = np.zeros((len(table.first_lines), 2), np.int64), []
    for index, (name, number) in enumerate(table.first_lines.items()):
        try:
            sizes_hw[index] = size_hw(images / name)
        except UserError as error:
            on_unread(UserError(f"{path}, line {number}: {error}"))
            unread.append(index)
    return sizes_hw, unread
