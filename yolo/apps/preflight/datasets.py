"""The stages on data sets as a whole: they open, train has what val asks for, no file is twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from yolo.apps.preflight.checks import Outcome, Preflight
from yolo.apps.report.page import Filled, details, table
from yolo.config.schema.training import TrainingConfig
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.factory.data import Split, build_dataset, match_classes

FEW_BOXES = 10  # a class with fewer training boxes is hardly learnt
LISTED_CLASSES = 30  # more than these the terminal cuts; page and json have all
END_BYTES = 4096  # two photographs of one size differ in them
MANY_EPOCHS = 1000  # a few hundred train from random weights
SPLITS: tuple[Split, ...] = ("train", "val")
COLUMNS = ("label", "id", "name", "train_boxes", "train_images", "val_boxes", "val_images")


def check_files(preflight: Preflight) -> Outcome:
    """Open train and val, and compare the classes that they define."""
    preflight.datasets |= {split: build_dataset(preflight.config, split) for split in SPLITS}
    train, val = (preflight.datasets[split] for split in SPLITS)
    boxes = zip(val.class_names, count_labels(val)[0].tolist(), strict=True)
    lacking = [repr(name) for name, count in boxes if count and name not in train.class_names]
    if not lacking:
        of_train = train.category_ids, train.class_names
        val = match_classes(val, "val", *of_train, owner="data.train")
        preflight.datasets["val"] = val
    findings = {"train": train.findings, "val": val.findings}
    warnings = [f"data.{split}: {text}" for split in findings for text in findings[split].warnings]
    return Outcome(
        summary=f"{len(train):,} training images with {len(train.annotations.labels):,} boxes, "
        f"{len(val):,} for validation with {len(val.annotations.labels):,}; "
        f"{len(train.class_names)} classes",
        fault=_lacking(lacking, "does not define"),
        warnings=[*warnings, *_warn_of_repeats(preflight.config.training, len(train))],
        lines=[f"data.{split}: {text}" for split in findings for text in findings[split].notes],
        figures={"images": {"train": len(train), "val": len(val)}},
    )


def _warn_of_repeats(training: TrainingConfig, images: int) -> Iterator[str]:
    """What a training does with few images again and again."""
    batch, epochs = training.batch_size, training.steps * training.batch_size / max(images, 1)
    if batch > images:
        yield (
            f"training.batch_size: {batch:,} is more than the {images:,} images of data.train, so "
            "each step takes some of them more than once; choose a smaller one"
        )
    if epochs > MANY_EPOCHS:
        yield (
            f"training.steps: {training.steps:,} steps of {batch:,} images are {epochs:,.0f} "
            f"epochs of the {images:,} images of data.train, a few hundred are usual; take fewer"
        )


def _lacking(names: Sequence[str], what: str) -> str | None:
    """The sentence on classes, by name in quotes, that train lacks and val wants, if any."""
    if not names:
        return None
    which = "the class" if len(names) == 1 else f"{len(names)} classes"
    return (
        f"data.train {what} {which} {first_names(names)} that data.val asks for: what is never "
        "shown is never found; add such images to data.train or take the class out of data.val."
    )


def count_labels(dataset: DetectionDataset) -> tuple[np.ndarray, np.ndarray]:
    """By label, int64 (K,) each: boxes that are to be found, and images that have one."""
    classes, packed = len(dataset.class_names), dataset.annotations
    owned = ~packed.ignored
    labels, images = packed.labels[owned].astype(np.int64), packed.image_index()[owned]
    pairs = np.unique(images * classes + labels)  # each class once per image
    return np.bincount(labels, minlength=classes), np.bincount(pairs % classes, minlength=classes)


def check_classes(preflight: Preflight) -> Outcome:
    """Count the boxes of each class in both data sets."""
    dataset = preflight.datasets["train"]
    names, ids = dataset.class_names, dataset.category_ids
    counted = [count_labels(preflight.datasets[split]) for split in SPLITS]
    (train, _), (val, _) = counted  # boxes (K,)
    every = np.concatenate(counted)  # (4, K): boxes and images of train, then of val
    rows = list(zip(range(len(names)), ids, names, *every.tolist(), strict=True))
    most = int(train.argmax())
    never_seen = [repr(names[label]) for label in np.flatnonzero((val > 0) & (train == 0))]
    return Outcome(
        summary=f"{len(names)} classes, most often {names[most]} with "
        f"{train[most]:,} training boxes",
        fault=_lacking(never_seen, "has no box of"),
        warnings=list(_warnings(names, train, val)),
        lines=_lines(rows),
        figures={"classes": [dict(zip(COLUMNS, row, strict=True)) for row in rows]},
        blocks=[_table(rows)],
    )


def _warnings(names: Sequence[str], train: np.ndarray, val: np.ndarray) -> Iterator[str]:
    kinds = {
        "in data.train but not in data.val, which cannot judge them": (train > 0) & (val == 0),
        "without a box in either": train + val == 0,
        f"of fewer than {FEW_BOXES} boxes in data.train": (train > 0) & (train < FEW_BOXES),
    }
    for kind, is_such in kinds.items():
        if is_such.any():
            such = [names[label] for label in np.flatnonzero(is_such).tolist()]
            yield f"{len(such)} of {len(names)} classes {kind}: {first_names(such)}"


def _lines(rows: Sequence[Sequence[Any]]) -> list[str]:
    width = max(len(name) for _, _, name, *_ in rows)
    lines = [f"label     id  {'name':<{width}}  train boxes  val boxes"]
    lines += [
        f"{label:>5} {number:>6}  {name:<{width}}  {train:>11,}  {val:>9,}"
        for label, number, name, train, _, val, _ in rows[:LISTED_CLASSES]
    ]
    more = len(rows) - LISTED_CLASSES
    return [*lines, f"and {more} more (--html and --json list all)"] if more > 0 else lines


def _table(rows: Sequence[Sequence[Any]]) -> Markup:
    most_train, most_val = (max(1, *(row[column] for row in rows)) for column in (3, 5))
    cells = [
        [*known, Filled(train, train / most_train), of_train, Filled(val, val / most_val), of_val]
        for *known, train, of_train, val, of_val in rows
    ]
    head = ["label", "id", "name", "train boxes", "in images", "val boxes", "in images"]
    shown = table(head, cells, caption="label map")
    return shown if len(rows) <= LISTED_CLASSES else details(f"{len(rows)} classes", shown)


def find_copies(preflight: Preflight, *, without: Set[str]) -> Outcome:
    """Compare the bytes of all images that are there but those at fault, which may all be empty."""
    files = [
        (split, str(path))
        for split, dataset in preflight.datasets.items()
        for path in map(dataset.image_path, range(len(dataset)))
        if str(path) not in without and path.is_file()
    ]
    same = same_content([Path(path) for _, path in files])
    groups = [[files[index] for index in group] for group in same]
    leaked = [[path for _, path in group] for group in groups if len(dict(group)) > 1]
    within = {
        split: [own for group in groups if len(own := [p for s, p in group if s == split]) > 1]
        for split in preflight.datasets
    }
    kinds = {"in both": leaked} | {f"twice in {split}": found for split, found in within.items()}
    rows = [[kind, ", ".join(group)] for kind, found in kinds.items() for group in found]
    return Outcome(
        summary=f"{len(groups):,} contents are there more than once",
        fault=_describe_leak(leaked) if leaked else None,
        warnings=[
            f"data.{split} has {len(found):,} images more than once, first {first_names(found[0])}"
            for split, found in within.items()
            if found
        ],
        figures={"leaked": leaked, "duplicates": within},
        blocks=[table(["where", "files of the same content"], rows)],
    )


def _describe_leak(leaked: Sequence[Sequence[str]]) -> str:
    first, more = leaked[0], len(leaked) - 1
    likewise = f" ({more:,} more images are in both)" if more else ""
    return (
        f"the validation image {first[-1]} is in data.train too, as {first[0]}{likewise}: its "
        "score would say nothing about new images; take it out of one of the two."
    )


def same_content(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files with the same bytes, as indices into ``paths``, ascending.

    Only files of one size are read, at first their ends, and whole only where these are equal.
    """
    groups = [list(range(len(paths)))]
    for key in (lambda path: path.stat().st_size, _end, _digest):
        parts = defaultdict(list)
        for number, group in enumerate(groups):
            for index in group:
                parts[number, key(paths[index])].append(index)
        groups = [part for part in parts.values() if len(part) > 1]
    return groups


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_BYTES))
        return file.read()


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
