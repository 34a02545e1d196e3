"""A data set of any format -> a new folder in another one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.formats.coco import write_coco
from yolo.data.formats.csv_boxes import write_csv_boxes
from yolo.data.formats.detection import DetectionDataset, WrittenImage, check_distinct
from yolo.data.formats.voc import IMAGES, write_voc
from yolo.data.formats.yolo_text import write_yolo_text
from yolo.data.images import read_header
from yolo.errors import UserError
from yolo.files import atomic_folder

ImagesGo = Literal["link", "copy", "keep"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format that can be written; ``write`` returns the section of a config that reads it."""

    write: Callable[..., dict[str, Any]]
    images: str = "images"  # the folder of images in it
    ignored: bool = False  # whether it can mark regions as ignored
    stay: str = ""  # why the images must lie in the data set; "" where they may lie anywhere
    sized: bool = False  # whether it holds the images' sizes, and so which way up they are


VOC_STAY = f"voc has its images in its own {IMAGES}"
FORMATS = {
    "coco": Format(write=write_coco, ignored=True, sized=True),
    "csv_boxes": Format(write=write_csv_boxes),
    "voc": Format(write=write_voc, images=IMAGES, ignored=True, sized=True, stay=VOC_STAY),
    "yolo_text": Format(write=write_yolo_text, stay="yolo_text takes all images of a folder"),
}


def convert(
    dataset: DetectionDataset, *, to: str, output: Path, images: ImagesGo, split: str
) -> tuple[dict[str, Any], int]:
    """Write a data set in a format of `FORMATS`; the folder appears whole or not at all.

    Args:
        dataset, split: all that is written, and what the lists of VOC are called.
        output: the folder, which must not exist or be empty.
        images: hard links in it, copies, or none: they stay where they are.

    Returns:
        The section of a config that reads it, with absolute paths, and the number of boxes: all
        but the ignored regions that the format cannot hold.
    """
    form, output = FORMATS[to], output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already, and nothing is overwritten: choose another.")
    if images == "keep" and form.stay:
        raise UserError(f"{form.stay}, so they cannot stay elsewhere: choose link or copy.")
    sources = [dataset.image_path(index).absolute() for index in range(len(dataset))]
    folder = Path(os.path.commonpath([path.parent for path in sources]))
    names = [path.relative_to(folder).as_posix() for path in sources]
    check_distinct("the image", names, "each image must be listed once")
    upright = dataset.upright if form.sized else _is_upright(sources, dataset, to)
    written = _images_to_write(dataset.annotations, names, ignored=form.ignored)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(output) as temporary:
            section = form.write(temporary, dataset, written, split)
            section |= {} if upright else {"upright": False}
            if images == "keep":
                section["images"] = folder
            else:
                _place(sources, [temporary / form.images / name for name in names], images)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{output}: the data set cannot be written ({reason}).") from error
    section = {k: output / v if isinstance(v, Path) else v for k, v in section.items()}
    return section, sum(len(image.labels) for image in written)


def _is_upright(sources: Sequence[Path], dataset: DetectionDataset, to: str) -> bool:
    """Which value of `upright` turns the images by their EXIF without a size as it does here."""
    sizes = map(dataset.annotations.size_hw, range(len(dataset)))
    found = list(zip(map(read_header, sources), sizes, strict=True))
    turns = [header.turns(size, upright=dataset.upright) for header, size in found]
    for upright in (True, False):
        if turns == [header.turns(None, upright=upright) for header, _ in found]:
            return upright
    raise UserError(
        f"{to} cannot say which of the images were turned by their EXIF when their boxes were "
        "drawn: choose coco or voc, or turn their pixels."
    )


def _images_to_write(
    packed: Annotations, names: Sequence[str], *, ignored: bool
) -> list[WrittenImage]:
    """All images under other names; their ignored boxes only on request."""
    images = []
    for index, name in enumerate(names):
        boxes, labels, flags = packed.truth(index)
        kept = ~flags | ignored
        own = boxes[kept].astype(str).astype(np.float64)  # 0.1, not 0.10000000149011612
        truth = labels[kept].tolist(), flags[kept].tolist()
        images.append(WrittenImage(name, *packed.size_hw(index), own, *truth))
    return images


def _place(sources: Sequence[Path], targets: Sequence[Path], how: ImagesGo) -> None:
    for source, target in zip(sources, targets, strict=True):
        if not source.is_file():
            raise UserError(f"the image {source} does not exist.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "copy":
            shutil.copyfile(source, target)
            continue
        try:
            target.hardlink_to(source.resolve())
        except OSError as error:
            raise UserError(
                f"{source} cannot be hard-linked ({error.strerror or error}), as over the border "
                "of a file system: let the images be copied, or stay."
            ) from error
