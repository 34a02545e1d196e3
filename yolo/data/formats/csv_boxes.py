"""One table of boxes: a line `image,xmin,ymin,xmax,ymax,class` for each object."""

from __future__ import annotations

import csv
import io
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from yolo.data.annotations import Contents
from yolo.data.bad_images import OnBadImage, stop
from yolo.data.formats.annotation_cache import read_cached
from yolo.data.formats.detection import (
    DetectionDataset,
    WrittenImage,
    check_plain,
    decimal,
    is_inside,
)
from yolo.data.formats.truth_files import (
    ImageTruth,
    ListedImage,
    TruthObject,
    find_size,
    pack_truths,
)
from yolo.errors import UserError
from yolo.files import decode_text, read_or_refuse

HEADER = ["image", "xmin", "ymin", "xmax", "ymax", "class"]
FORM = f"`{','.join(HEADER)}`"


class CsvBoxesDataset(DetectionDataset):
    """The images of a csv file, with a line for each box.

    Edges are pixels, or fractions of them, from the left upper corner: a box over all of an image
    of 60x40 px is 0,0,60,40. The first line may be the header. The lines of an image need not stand
    together. An image without boxes has one line, whose other five fields are empty.

    Args:
        boxes: the csv file, UTF-8.
        images: the folder of images.
        class_names: None: those of the file, by alphabet; there may be more than the file has.
        cache, on_bad_image, upright: see `DetectionDataset`.
    """

    def __init__(
        self,
        *,
        boxes: Path,
        images: Path,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_bad_image: OnBadImage = stop,
        upright: bool = True,
    ) -> None:
        content = read_or_refuse("the table of boxes", boxes)
        if not images.is_dir():
            raise UserError(f"the folder of images {images} does not exist.")
        contents = read_cached(
            cache,
            source=boxes,
            image_root=images,
            part=(class_names, upright),
            files=[content],
            parse=lambda: _parse(boxes, content, images, class_names, on_bad_image, upright),
        )
        super().__init__(boxes, images, contents, upright=upright)


def _parse(
    path: Path,
    content: bytes,
    images: Path,
    class_names: Sequence[str] | None,
    on_bad_image: OnBadImage,
    upright: bool,
) -> Contents:
    table = _read_table(path, content)
    if class_names is None and not any(lines[0].class_name for lines in table.values()):
        raise UserError(f"{path} holds no box: name the classes in class_names.")
    truths, sizes = [], []
    for name, lines in table.items():

        def report(error: UserError, place: str = lines[0].place) -> None:
            on_bad_image(UserError(f"{path}, {place}: {error}"))

        truths.append(ImageTruth(name, [line for line in lines if line.class_name]))
        sizes.append(find_size(images, truths[-1], report, upright=upright))
    return pack_truths([ListedImage(name, path) for name in table], truths, sizes, class_names)


def _read_table(path: Path, content: bytes) -> dict[str, list[TruthObject]]:
    """The lines by image, in the order of their first ones; no class where there is no box."""
    table: dict[str, list[TruthObject]] = {}
    for place, row in csv_rows(f"the table of boxes {path}", content, HEADER):
        where = f"{path}, {place}"
        if len(row) != len(HEADER):
            raise UserError(f"{where} has {len(row)} fields, but must be {FORM}.")
        if not is_inside(row[0]):
            raise UserError(
                f"{where}: the image {reprlib.repr(row[0])} must be a file name inside the folder."
            )
        found = _object(where, place, row) if any(row[1:]) else TruthObject(place, "", ())
        name = str(PurePosixPath(row[0]))
        lines = table.setdefault(name, [])
        lines.append(found)
        empty, full = sorted((lines[0], found), key=lambda line: line.class_name != "")
        if full.class_name and not empty.class_name:
            raise UserError(
                f"{path}, {empty.place} says that {name} has no boxes, but {full.place} has one; "
                "remove one of the two."
            )
    if not table:
        raise UserError(f"{path} lists no image; its lines must be {FORM}.")
    return table


def csv_rows(called: str, content: bytes, header: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The lines that are not empty, as ("line 7", cells), without the header."""
    text = io.StringIO(decode_text(called, content), newline="")
    reader = csv.reader(text, skipinitialspace=True, strict=True)
    try:
        for place, row in enumerate(filter(None, reader)):
            cells = [cell.strip() for cell in row]
            if place > 0 or [cell.lower() for cell in cells] != header:
                yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise UserError(f"{called} is broken: {error}.") from None


def _object(where: str, place: str, row: Sequence[str]) -> TruthObject:
    try:
        box = tuple(map(float, row[1:5]))
    except ValueError:
        raise UserError(
            f"{where}: the box {reprlib.repr(','.join(row[1:5]))} must be four numbers of pixels, "
            "xmin,ymin,xmax,ymax; an image without boxes has all five fields empty."
        ) from None
    if not row[5]:
        raise UserError(f"{where} names no class; its last field must be the name of one.")
    return TruthObject(place, row[5], box)


def write_csv_boxes(
    folder: Path, dataset: DetectionDataset, images: Sequence[WrittenImage], split: str
) -> dict[str, Any]:
    """Write the table with its header; an image without boxes has a line with empty fields."""
    check_plain(dataset.class_names, images, "csv_boxes")
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for image in images:
            for box, label, _ in image.objects():
                writer.writerow([image.name, *map(decimal, box), dataset.class_names[label]])
            if not image.labels:
                writer.writerow([image.name, *[""] * 5])
    return {"type": "csv_boxes", "boxes": Path("boxes.csv"), "images": Path("images")}
