"""The fourth stage: what the labels mean, and that val asks for nothing that train never shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo.apps.preflight.files import unlearnt
from yolo.apps.preflight.flight import Flight, Outcome
from yolo.apps.report.page import Bar, Cell, Html, details, table
from yolo.data.formats.detection import DetectionDataset, first_names

FEW_BOXES = 10
"""A class with fewer training boxes is hardly learnt."""

LISTED_CLASSES = 30
"""More than these the terminal cuts; page and json have all."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """By label, int64 (K,): boxes that are to be found, and images that have one."""

    boxes: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, dataset: DetectionDataset) -> LabelCounts:
        """Count a data set; ignored regions are none."""
        classes, packed = len(dataset.class_names), dataset.annotations
        owned = ~packed.ignored
        labels, images = packed.labels[owned].astype(np.int64), packed.image_index()[owned]
        pairs = np.unique(images * classes + labels)  # each class once per image
        return cls(
            boxes=np.bincount(labels, minlength=classes),
            images=np.bincount(pairs % classes, minlength=classes),
        )


def check_classes(flight: Flight) -> Outcome:
    """Count the boxes of each class in both data sets."""
    dataset = flight.datasets["train"]
    train, val = (LabelCounts.of(flight.datasets[split]) for split in ("train", "val"))
    most = dataset.class_names[int(train.boxes.argmax())]
    return Outcome(
        summary=f"{len(dataset.class_names)} classes, most often {most} with "
        f"{int(train.boxes.max()):,} training boxes",
        fault=_never_seen(dataset, train, val),
        warnings=_warnings(dataset, train, val),
        lines=_lines(dataset, train, val),
        figures={"classes": _rows(dataset, train, val)},
        blocks=[label_table(dataset, train, val)],
    )


def _never_seen(dataset: DetectionDataset, train: LabelCounts, val: LabelCounts) -> str | None:
    """The sentence on classes that have boxes in val alone."""
    only_val = np.flatnonzero((val.boxes > 0) & (train.boxes == 0))
    names = [repr(dataset.class_names[label]) for label in only_val]
    return unlearnt(names, "has no box of") if names else None


def _warnings(dataset: DetectionDataset, train: LabelCounts, val: LabelCounts) -> list[str]:
    names = np.array(dataset.class_names, object)
    kinds = {
        "in data.train but not in data.val, which cannot judge them": (train.boxes > 0)
        & (val.boxes == 0),
        "without a box in either": (train.boxes == 0) & (val.boxes == 0),
        f"of fewer than {FEW_BOXES} boxes in data.train": (train.boxes > 0)
        & (train.boxes < FEW_BOXES),
    }
    return [
        f"{int(found.sum())} of {len(names)} classes {kind}: {first_names(names[found].tolist())}"
        for kind, found in kinds.items()
        if found.any()
    ]


def _rows(
    dataset: DetectionDataset, train: LabelCounts, val: LabelCounts
) -> list[dict[str, int | str]]:
    return [
        {
            "label": label,
            "id": int(number),
            "name": name,
            "train_boxes": int(train.boxes[label]),
            "train_images": int(train.images[label]),
            "val_boxes": int(val.boxes[label]),
            "val_images": int(val.images[label]),
        }
        for label, (number, name) in enumerate(
            zip(dataset.category_ids, dataset.class_names, strict=True)
        )
    ]


def _lines(dataset: DetectionDataset, train: LabelCounts, val: LabelCounts) -> list[str]:
    """The label map as the terminal shows it."""
    rows = _rows(dataset, train, val)
    width = max(len(str(row["name"])) for row in rows)
    lines = [f"label     id  {'name':<{width}}  train boxes  val boxes"]
    lines += [
        f"{row['label']:>5} {row['id']:>6}  {row['name']:<{width}}  {row['train_boxes']:>11,}  "
        f"{row['val_boxes']:>9,}"
        for row in rows[:LISTED_CLASSES]
    ]
    more = len(rows) - LISTED_CLASSES
    return [*lines, f"and {more} more (--html and --json list all)"] if more > 0 else lines


def label_table(dataset: DetectionDataset, train: LabelCounts, val: LabelCounts) -> Html:
    """Labels, ids and names with their boxes, as the page shows them."""
    most = max(int(train.boxes.max()), 1), max(int(val.boxes.max()), 1)
    rows: list[list[Cell]] = [
        [
            int(row["label"]),
            int(row["id"]),
            str(row["name"]),
            Bar(int(row["train_boxes"]), int(row["train_boxes"]) / most[0]),
            int(row["train_images"]),
            Bar(int(row["val_boxes"]), int(row["val_boxes"]) / most[1]),
            int(row["val_images"]),
        ]
        for row in _rows(dataset, train, val)
    ]
    head = ["label", "id", "name", "train boxes", "in images", "val boxes", "in images"]
    shown = table(head, rows, caption="label map")
    return shown if len(rows) <= LISTED_CLASSES else details(f"{len(rows)} classes", [shown])
