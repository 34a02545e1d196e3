"""Data sets in COCO's format: a json of boxes and a folder of images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo.data.annotations import Annotations
from yolo.data.datasets.coco_json import CocoTable, first_names, read_json, to_table
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.records import Sample

LISTED_PER_KIND = 20
"""So many findings of a kind are written out; all are counted."""

ROUNDING_PX = 0.02
"""A box that leaves its image by no more was only rounded (COCO: two decimals) and not reported."""

SHARE_STREAM = 1
"""Sets the draw of a share apart from the other uses of the seed."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was mended while reading.

    Attributes:
        counts: how many boxes of each kind: "clipped", "no area", "not finite".
        texts: one line for each of the first `LISTED_PER_KIND` of a kind.
    """

    counts: dict[str, int]
    texts: tuple[str, ...]


class CocoDataset:
    """A COCO json with its image folder.

    Boxes are clipped to their image; those without an area or with a number that is not finite
    are dropped. Crowd boxes become ignored regions. Images without boxes stay.

    Args:
        annotations: the json.
        images: the folder that its file names are relative to.
        class_names: the order of the labels; the very names of the json. None: by category id.

    Attributes:
        class_names: label -> name.
        category_ids: label -> the json's category id.
        annotations: the packed truth.
        findings: what was clipped or dropped; of the whole json, in every selection.

    Raises:
        UserError: anything wrong with the json, or a missing image folder.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    annotations: Annotations
    findings: Findings

    def __init__(
        self, *, annotations: Path, images: Path, class_names: Sequence[str] | None = None
    ) -> None:
        self._json_path = Path(annotations)
        self._image_root = Path(images)
        data = read_json(self._json_path)
        table = to_table(self._json_path, data)
        if not self._image_root.is_dir():
            raise UserError(f"the image folder {self._image_root} does not exist.")
        categories = _ordered(self._json_path, table.categories, class_names)
        self.category_ids = tuple(category_id for category_id, _ in categories)
        self.class_names = tuple(name for _, name in categories)
        self.annotations, self.findings = _pack(table, self.category_ids, data["annotations"])

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def label_of_category(self) -> dict[int, int]:
        """The json's category id -> label."""
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    def image_path(self, index: int) -> Path:
        """The file of an image."""
        return self._image_root / self.annotations.file_name(index)

    def load(self, index: int) -> Sample:
        """Decode an image at its full size.

        Raises:
            UserError: the image is missing, damaged or not of the json's size.
        """
        size_hw = self.annotations.size_hw(index)
        boxes, labels, ignored = self.annotations.truth(index)
        return Sample(
            image=decode(self.image_path(index), expected_hw=size_hw),
            boxes_xyxy_px=boxes.copy(),
            labels=labels.astype(np.int64),
            ignored=ignored.copy(),
            image_id=int(self.annotations.image_ids[index]),
            original_size_hw=size_hw,
        )

    def select(self, indices: Sequence[int] | np.ndarray) -> CocoDataset:
        """A view with the images at ``indices``, in that order."""
        view = copy.copy(self)
        view.annotations = self.annotations.subset(indices)
        return view

    def limit(self, limit: int | Sequence[int]) -> CocoDataset:
        """The first ``limit`` images, or those with the listed ids, in the json's order.

        Ids that this data set lacks are passed over: one list serves training and validation.

        Raises:
            UserError: none of the listed ids is in the json.
        """
        if isinstance(limit, int):
            return self.select(np.arange(min(limit, len(self))))
        indices = np.flatnonzero(np.isin(self.annotations.image_ids, list(limit)))
        if len(indices) == 0:
            raise UserError(
                f"{self._json_path} has none of the listed image ids "
                f"({first_names(map(str, limit))})."
            )
        return self.select(indices)

    def share(self, share: float, seed: int) -> CocoDataset:
        """A random share (0 < share <= 1) of the images, in the json's order; at least one.

        The same seed draws the same images, and a smaller share is a part of a larger one.
        """
        assert 0 < share <= 1
        count = max(1, round(share * len(self)))
        generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence((seed, SHARE_STREAM)))
        )
        return self.select(np.sort(generator.permutation(len(self))[:count]))

    def ground_truth(self) -> dict[str, Any]:
        """The json's own entries of the selected images, for the metric.

        Read anew, so that neither this process nor its workers hold the json. Only what a
        detection json may lack is filled in: "iscrowd" 0, "area" width times height, "id".
        """
        data = read_json(self._json_path)
        chosen = set(self.annotations.image_ids.tolist())
        annotations = [entry for entry in data["annotations"] if entry["image_id"] in chosen]
        for number, entry in enumerate(annotations, start=1):
            entry.setdefault("iscrowd", 0)
            entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
            entry.setdefault("id", number)
        return {
            "images": [entry for entry in data["images"] if entry["id"] in chosen],
            "annotations": annotations,
            "categories": data["categories"],
        }


def _ordered(
    path: Path, categories: list[tuple[int, str]], class_names: Sequence[str] | None
) -> list[tuple[int, str]]:
    """The (id, name) pairs in the order of ``class_names``."""
    if class_names is None:
        return categories
    names = [name for _, name in categories]
    problems = {
        "not in the json": set(class_names) - set(names),
        "missing": set(names) - set(class_names),
        "more than once": {n for n in names if max(names.count(n), class_names.count(n)) > 1},
    }
    if any(problems.values()):
        told = "; ".join(f"{k}: {first_names(sorted(v))}" for k, v in problems.items() if v)
        raise UserError(
            f"data.class_names must name each category of {path} once, in any order ({told})."
        )
    return sorted(categories, key=lambda category: list(class_names).index(category[1]))


def _pack(
    table: CocoTable, category_ids: Sequence[int], entries: list[dict[str, Any]]
) -> tuple[Annotations, Findings]:
    """Clip, drop and pack the boxes, and say which were touched."""
    sizes_wh = table.sizes_hw[table.image_index, ::-1].astype(np.float64)  # (N, 2)
    low, size = table.boxes_xywh_px[:, :2], table.boxes_xywh_px[:, 2:]
    finite = np.isfinite(table.boxes_xywh_px).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = np.concatenate([low, low + size], axis=1)  # (N, 4) xyxy
        clipped = wanted.clip(0, np.tile(sizes_wh, 2))
        outside = np.abs(wanted - clipped).max(axis=1, initial=0) > ROUNDING_PX
    # Judged as float32, the precision that is kept: a box may not lose its area afterwards.
    boxes = clipped.astype(np.float32)
    kept = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    label_of = np.argsort(category_ids)
    ordered_ids = np.sort(category_ids)
    labels = label_of[np.searchsorted(ordered_ids, table.category_ids)]
    annotations = Annotations.pack(
        image_ids=table.image_ids,
        file_names=table.file_names,
        sizes_hw=table.sizes_hw,
        image_index=table.image_index[kept],
        boxes_xyxy_px=boxes[kept],
        labels=labels[kept],
        ignored=table.crowd[kept],
    )
    kinds = {
        "clipped": kept & outside,
        "no area": finite & ~kept,
        "not finite": ~finite,
    }
    return annotations, _findings(table, kinds, entries)


def _findings(
    table: CocoTable, kinds: dict[str, np.ndarray], entries: list[dict[str, Any]]
) -> Findings:
    texts = []
    for kind, touched in kinds.items():
        for place in np.flatnonzero(touched)[:LISTED_PER_KIND].tolist():
            image = table.image_index[place]
            height, width = table.sizes_hw[image].tolist()
            what = "clipped to" if kind == "clipped" else f"dropped ({kind}) from"
            texts.append(
                f"{table.file_names[image]}: annotation {entries[place].get('id', place + 1)}, "
                f"bbox {entries[place]['bbox']}, {what} the image of {width}x{height} px"
            )
    counts = {kind: int(touched.sum()) for kind, touched in kinds.items() if touched.any()}
    return Findings(counts=counts, texts=tuple(texts))
