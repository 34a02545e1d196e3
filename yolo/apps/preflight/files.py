"""The first stage: the data sets open, and their labels mean the same."""

from __future__ import annotations

from collections.abc import Sequence

from yolo.apps.preflight.flight import Flight, Outcome, Split
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.errors import UserError
from yolo.factory.data import build_dataset, check_same_classes


def check_files(flight: Flight) -> Outcome:
    """Open train and val, and compare the classes that they define."""
    for split in ("train", "val"):
        flight.datasets[split] = _open(flight, split)
    train, val = flight.datasets["train"], flight.datasets["val"]
    fault = _lacking(train, val)
    if fault is None:
        ids, names = train.category_ids, train.class_names
        check_same_classes(val, "val", ids, names, owner="data.train")
    return Outcome(
        summary=_summary(train, val),
        fault=fault,
        figures={"images": {split: len(dataset) for split, dataset in flight.datasets.items()}},
    )


def _open(flight: Flight, split: Split) -> DetectionDataset:
    try:
        return build_dataset(flight.config, split)
    except UserError as error:
        raise UserError(f"data.{split}: {error}") from error


def _lacking(train: DetectionDataset, val: DetectionDataset) -> str | None:
    """The sentence on classes that only val defines."""
    lacking = [repr(name) for name in val.class_names if name not in train.class_names]
    return unlearnt(lacking, "does not define") if lacking else None


def unlearnt(names: Sequence[str], what: str) -> str:
    """The sentence on classes, by name in quotes, that train lacks and val wants."""
    which = "the class" if len(names) == 1 else f"{len(names)} classes"
    return (
        f"data.train {what} {which} {first_names(names)} that data.val asks for: what is never "
        "shown is never found; add such images to data.train or take the class out of data.val."
    )


def _summary(train: DetectionDataset, val: DetectionDataset) -> str:
    return (
        f"{len(train):,} training images with {len(train.annotations.labels):,} boxes, "
        f"{len(val):,} for validation with {len(val.annotations.labels):,}; "
        f"{len(train.class_names)} classes"
    )
