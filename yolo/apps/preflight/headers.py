"""The second stage: every image's file is there, of the size that is annotated, and in one set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolo.apps.preflight.bad_images import (
    BadImage,
    fault_of_images,
    table_of_images,
    warnings_of_images,
)
from yolo.apps.preflight.content import same_content
from yolo.apps.preflight.flight import Flight, Outcome, Split, within
from yolo.apps.report.page import Cell, Html, table
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.images import LARGEST_IMAGE_PX, size_hw
from yolo.errors import UserError

HEADER_SECONDS = 15.0
"""For each data set; of a larger one a sample is read."""


def check_headers(flight: Flight) -> Outcome:
    """Sizes from the headers, before anything is decoded; then the contents, by digest."""
    bad: list[BadImage] = []
    sizes: Counter[str] = Counter()
    looked_at: dict[Split, int] = {}
    for split, dataset in flight.datasets.items():
        good, found = _read_headers(split, dataset, flight.shuffled(len(dataset)))
        looked_at[split] = len(good) + len(found)
        sizes.update(f"{width}x{height}" for height, width in good)
        bad += found
    copies = _Copies.find(flight, without={one.path for one in bad})
    total = sum(map(len, flight.datasets.values()))
    return Outcome(
        summary=f"{sum(looked_at.values()):,} of {total:,} headers read, {len(sizes):,} sizes, the "
        f"most frequent {first_names([size for size, _ in sizes.most_common(3)])} px",
        fault=fault_of_images(flight.config, bad, looked_at) or copies.fault(),
        warnings=[*warnings_of_images(bad), *copies.warnings()],
        figures={
            "headers": looked_at,
            "sizes": dict(sizes.most_common()),
            "bad_images": [one.plain() for one in bad],
            "leaked": [list(map(str, group)) for group in copies.leaked],
            "duplicates": {s: [list(map(str, g)) for g in d] for s, d in copies.within.items()},
        },
        blocks=[*table_of_images(bad), *copies.tables()],
    )


def _read_headers(
    split: Split, dataset: DetectionDataset, order: np.ndarray
) -> tuple[list[tuple[int, int]], list[BadImage]]:
    """Heights and widths of the good ones, and the bad ones: those that are missing first."""
    missing_first = sorted(order.tolist(), key=lambda index: dataset.image_path(index).is_file())
    sizes, bad = [], []
    for index in within(HEADER_SECONDS, missing_first):
        path, annotated = dataset.image_path(index), dataset.annotations.size_hw(index)
        try:
            found = size_hw(path, annotated)
            _check_size(path, found, annotated)
            sizes.append(found)
        except UserError as error:
            bad.append(BadImage(split, path, str(error)))
    return sizes, sorted(bad, key=lambda one: one.path)


def _check_size(path: Path, found: tuple[int, int], annotated: tuple[int, int]) -> None:
    height, width = found
    if height * width > LARGEST_IMAGE_PX:
        raise UserError(
            f"the image {path} is {width}x{height} px large, more than the {LARGEST_IMAGE_PX:,} "
            "pixels that are decoded; shrink it."
        )
    if found != annotated:
        raise UserError(
            f"the image {path} is {width}x{height} px large, but its annotations are for "
            f"{annotated[1]}x{annotated[0]} px; correct the size or restore the image."
        )


@dataclass(frozen=True, slots=True)
class _Copies:
    """Groups of files with the same bytes.

    Attributes:
        leaked: those with members in train and in val.
        within: by data set, those with several members in it.
    """

    leaked: list[list[Path]]
    within: dict[Split, list[list[Path]]]

    @classmethod
    def find(cls, flight: Flight, *, without: Set[Path]) -> _Copies:
        """Compare all files that are there but those at fault, which may all be empty."""
        paths = [
            (split, dataset.image_path(index))
            for split, dataset in flight.datasets.items()
            for index in range(len(dataset))
        ]
        paths = [(split, path) for split, path in paths if path not in without and path.is_file()]
        groups = [[paths[i] for i in group] for group in same_content([p for _, p in paths])]
        inside: dict[Split, list[list[Path]]] = {}
        for split in flight.datasets:
            members = [[path for of, path in group if of == split] for group in groups]
            inside[split] = [group for group in members if len(group) > 1]
        leaked = [[p for _, p in group] for group in groups if len({s for s, _ in group}) > 1]
        return cls(leaked, inside)

    def fault(self) -> str | None:
        """A validation on what was trained on says nothing."""
        if not self.leaked:
            return None
        first = self.leaked[0]
        more = len(self.leaked) - 1
        likewise = f" ({more:,} more images are in both)" if more else ""
        return (
            f"the validation image {first[-1]} is in data.train too, as {first[0]}{likewise}: its "
            "score would say nothing about new images; take it out of one of the two."
        )

    def warnings(self) -> list[str]:
        """Images that a set has twice weigh double."""
        return [
            f"data.{split} has {len(groups):,} images more than once, first "
            f"{first_names(map(str, groups[0]))}"
            for split, groups in self.within.items()
            if groups
        ]

    def tables(self) -> list[Html]:
        kinds = {"in both": self.leaked} | {
            f"twice in {split}": groups for split, groups in self.within.items()
        }
        rows: list[list[Cell]] = [
            [kind, ", ".join(map(str, group))] for kind, groups in kinds.items() for group in groups
        ]
        return [table(["where", "files of the same content"], rows)] if rows else []
