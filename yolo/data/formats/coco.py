"""Data sets in COCO's format: a json of boxes and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from yolo.data.annotations import Contents, sanitize
from yolo.data.bad_images import OnBadImage, nominal_hw, stop
from yolo.data.formats.annotation_cache import read_cached
from yolo.data.formats.class_names import unique_names
from yolo.data.formats.coco_json import CocoJson
from yolo.data.formats.detection import (
    DIGITS,
    DetectionDataset,
    Key,
    WrittenImage,
    check_named_once,
)
from yolo.data.images import measure
from yolo.errors import UserError


class CocoDataset(DetectionDataset):
    """A COCO json with its image folder and category ids; crowd boxes become ignored regions.

    Names that several categories have are told apart by their ids. Images whose size the json lacks
    have that of their headers.

    Args:
        annotations: the json.
        images: the folder that its file names are relative to.
        class_names: the very names of the json; None: by category id.
        cache, on_bad_image: see `DetectionDataset`; used only where a size is lacking.
        upright: see `DetectionDataset`.
    """

    def __init__(
        self,
        *,
        annotations: Path,
        images: Path,
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_bad_image: OnBadImage = stop,
        upright: bool = True,
    ) -> None:
        path, image_root = Path(annotations), Path(images)
        data = CocoJson(path, image_root)
        own_category_ids, numbers = data.categories.own_ids(), data.categories.ids
        names = unique_names(data.names, own_category_ids)
        order = sorted(range(len(names)), key=lambda place: _by_id(numbers[place]))
        if class_names is not None:
            unknown, missing, what = "not in the json", "missing", f"category of {path}"
            check_named_once(what, names, class_names, unknown=unknown, missing=missing)
            order = [names.index(name) for name in class_names]
        if not image_root.is_dir():
            raise UserError(f"the image folder {image_root} does not exist.")
        labels = np.argsort(order)[data.category_index]
        names = [names[place] for place in order]
        contents = read_cached(
            None if data.sizes_hw.all() else cache,
            source=path,
            image_root=image_root,
            part=("coco", class_names, upright),
            files=[data.digest],
            parse=lambda: _sanitize(data, names, labels, on_bad_image, upright),
        )
        ids = [own_category_ids[place] for place in order]
        super().__init__(path, image_root, contents, ids, upright=upright)

    def _read_again(self) -> CocoJson:
        """Neither this process nor its workers hold the json."""
        return CocoJson(self.source, self._image_root)

    def own_image_ids(self) -> dict[int, Key]:
        """The id of each image -> that in the json."""
        data = self._read_again()
        return dict(zip(data.image_numbers.tolist(), data.images.own_ids(), strict=True))

    def ground_truth(self) -> dict[str, Any]:
        """The json's own boxes and areas of the selected images, for the metric."""
        data = self._read_again()
        label_of = {number: label for label, number in enumerate(self.category_ids)}
        labels = np.array([label_of.get(number, -1) for number in data.categories.own_ids()])
        labels, image_ids = labels[data.category_index], data.image_numbers[data.image_index]
        chosen = np.isin(image_ids, self.annotations.image_ids) & (labels >= 0)
        crowds = data.crowds.astype(int)
        columns = (image_ids, labels, data.boxes_xywh_px, data.areas_px2, crowds)
        return self._coco_form(*(column[chosen] for column in columns))


def _by_id(key: Key) -> tuple[bool, Key]:
    """Numbers first."""
    return isinstance(key, str), key


def _sanitize(
    data: CocoJson,
    class_names: Sequence[str],
    labels: np.ndarray,
    on_bad_image: OnBadImage,
    upright: bool,
) -> Contents:
    """With the sizes that the json lacks from the images' headers."""
    corners = data.boxes_xywh_px.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        corners[:, 2:] += corners[:, :2]
    sizes_hw, bad_images, notes = data.sizes_hw.copy(), 0, []
    for place in np.flatnonzero(sizes_hw[:, 0] == 0).tolist():
        try:
            path = data.image_root / data.file_names[place]
            sizes_hw[place], note = measure(path, upright=upright)
            notes.append(note)
        except UserError as error:
            on_bad_image(error)
            sizes_hw[place] = nominal_hw(corners[data.image_index == place])
            bad_images += 1
    return sanitize(
        class_names,
        image_ids=data.image_numbers,
        file_names=data.file_names,
        sizes_hw=sizes_hw,
        image_index=data.image_index,
        boxes_xyxy_px=corners,
        labels=labels,
        ignored=data.crowds,
        describe=data.describe,
        bad_images=bad_images,
        notes=notes,
        left_out={"left out, for their bbox is empty": data.without_box},
    )


def write_coco(
    folder: Path, dataset: DetectionDataset, images: Sequence[WrittenImage], split: str
) -> dict[str, Any]:
    """Write the json. Image and category ids stay; ignored regions have "iscrowd" 1."""
    data = DetectionDataset.ground_truth(dataset)  # a COCO json's own boxes may be others
    own_ids, category_ids = dataset.own_image_ids(), dataset.category_ids
    for entry, image in zip(data["images"], images, strict=True):
        entry.update(id=own_ids[entry["id"]], file_name=image.name)
    boxes = chain.from_iterable(image.boxes_xyxy_px.tolist() for image in images)
    for entry, (left, top, right, bottom) in zip(data["annotations"], boxes, strict=True):
        width, height = round(right - left, DIGITS), round(bottom - top, DIGITS)
        entry.update(bbox=[left, top, width, height], area=round(width * height, DIGITS))
        entry.update(
            image_id=own_ids[entry["image_id"]], category_id=category_ids[entry["category_id"]]
        )
    for entry in data["categories"]:
        entry["id"] = category_ids[entry["id"]]
    data["categories"].sort(key=lambda entry: _by_id(entry["id"]))
    (folder / "annotations.json").write_text(json.dumps(data), "utf-8")
    return {"type": "coco", "annotations": Path("annotations.json"), "images": Path("images")}
