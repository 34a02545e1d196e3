"""A list of pairs: `image,annotation` in each line, the annotations as in `yolo_text`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from yolo.data.formats.detection import is_inside
from yolo.data.formats.truth_files import Listed
from yolo.data.formats.unread import OnUnread, stop
from yolo.data.formats.yolo_text import TextFileDataset, check_folders
from yolo.data.reading import read_regular
from yolo.errors import UserError

HEADER = ["image", "annotation"]


class CsvListDataset(TextFileDataset):
    """The images of a csv file; every one needs its text file.

    Args:
        list: the csv, with or without the header `image,annotation`.
        images: the folder of images.
        labels: the folder of text files.
        class_names: class number -> name.
        cache: a folder to keep what was read in; None keeps nothing.
        on_unread: told of each image whose size cannot be read; returns to go on without.

    Raises:
        UserError: the list, a folder or a file is missing or broken, or ``class_names`` is None.
    """

    def __init__(
        self,
        *,
        list: Path,
        images: Path,
        labels: Path,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_unread: OnUnread = stop,
    ) -> None:
        path, images, labels = Path(list), Path(images), Path(labels)
        if class_names is None:
            raise UserError(
                f"the text files of {labels} only number their classes: set data.class_names."
            )
        check_folders(images, labels)
        super().__init__(
            listed=_read_list(path, labels),
            source=path,
            images=images,
            names=class_names,
            class_names=class_names,
            cache=cache,
            on_unread=on_unread,
        )


def _read_list(path: Path, labels: Path) -> list[Listed]:
    listed: dict[str, Listed] = {}
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        if len(row) != 2 or not all(map(is_inside, row)):
            raise UserError(
                f"{where} is {','.join(row)!r}, but must be `image,annotation`: two file names "
                "inside the folders of images and of text files."
            )
        image = Listed(name=str(PurePosixPath(row[0])), truth=labels / row[1], where=where)
        other = listed.setdefault(image.name, image)
        if other is not image:
            raise UserError(f"{where}: {image.name} is listed twice, first in {other.where}.")
    if not listed:
        raise UserError(f"{path} lists no image; its lines must be `image,annotation`.")
    return [*listed.values()]


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers, without the header."""
    rows = []
    try:
        text = read_regular(path).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except FileNotFoundError:
        raise UserError(f"the list {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the list {path} cannot be read: {error}.") from None
    return rows[1:] if rows and [cell.lower() for cell in rows[0][1]] == HEADER else rows
