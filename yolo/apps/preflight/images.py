"""The stages on image files: each is there, of the size that is annotated, and decodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from yolo.apps.preflight.checks import Outcome, Preflight, within
from yolo.apps.preflight.copies import Copies
from yolo.apps.report.drawing import contact_sheet, draw_tile
from yolo.apps.report.page import picture, table
from yolo.config import Config
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.images import JPEG_END, JPEG_START, LARGEST_IMAGE_PX, size_hw
from yolo.errors import UserError
from yolo.factory.data import Split

HEADER_SECONDS = DECODE_SECONDS = 15.0
"""For each data set; of a larger one a sample is read, the same each time."""

THREADS = 2  # OpenCV lets others run while it decodes
AT_ONCE = 16
SHOWN, SHOWN_PX = 12, 400
LISTED = 5  # images at fault on the terminal; page and json name all


class BadImage(NamedTuple):
    """A file that cannot be used, and the sentence on what is wrong with it."""

    split: Split
    file: str
    reason: str


def check_headers(preflight: Preflight) -> Outcome:
    """Sizes from the headers, before anything is decoded; then the contents, by digest."""
    bad: list[BadImage] = []
    sizes: Counter[str] = Counter()
    looked_at: dict[Split, int] = {}
    for split, dataset in preflight.datasets.items():
        good, found = _read_headers(split, dataset, preflight.shuffled(len(dataset)))
        looked_at[split] = len(good) + len(found)
        sizes.update(f"{width}x{height}" for height, width in good)
        bad += found
    copies = Copies.find(preflight, without={one.file for one in bad})
    total = sum(map(len, preflight.datasets.values()))
    return Outcome(
        summary=f"{sum(looked_at.values()):,} of {total:,} headers read, {len(sizes):,} sizes, the "
        f"most frequent {first_names([size for size, _ in sizes.most_common(3)])} px",
        fault=_fault(preflight.config, bad, looked_at) or copies.fault(),
        warnings=[*_warnings(bad), *copies.warnings()],
        figures={
            "headers": looked_at,
            "sizes": dict(sizes.most_common()),
            "bad_images": [one._asdict() for one in bad],
            **copies.figures(),
        },
        blocks=[_table(bad), copies.table()],
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
            bad.append(BadImage(split, str(path), str(error)))
    return sizes, sorted(bad, key=lambda one: one.file)


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


def check_decoding(preflight: Preflight) -> Outcome:
    """Decode all images, or as many as the time allows, and show some with their boxes."""
    bad: list[BadImage] = []
    decoded: dict[Split, int] = {}
    for split, dataset in preflight.datasets.items():
        order = preflight.shuffled(len(dataset)).tolist()
        found = list(_decode_all(split, dataset, order))
        decoded[split] = len(found)
        bad += [one for one in found if one is not None]
    counts = ", ".join(
        f"{count:,} of {len(preflight.datasets[split]):,} of data.{split}"
        for split, count in decoded.items()
    )
    return Outcome(
        summary=f"{counts} decoded",
        fault=_fault(preflight.config, bad, decoded),
        warnings=_warnings(bad),
        figures={"decoded": decoded, "broken": [one._asdict() for one in bad]},
        blocks=[_table(bad), _samples(preflight, without={one.file for one in bad})],
    )


def _decode_all(
    split: Split, dataset: DetectionDataset, order: Sequence[int]
) -> Iterator[BadImage | None]:
    """One item for each image that was looked at: None where it is sound."""

    def look(index: int) -> BadImage | None:
        path = dataset.image_path(index)
        try:
            dataset.load(index)
            _check_end(path)
        except UserError as error:
            return BadImage(split, str(path), str(error))
        return None

    parts = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        for part in within(DECODE_SECONDS, parts):
            yield from pool.map(look, part)


def _check_end(path: Path) -> None:
    """Whether a JPEG that does not end as one should lacks pixels: OpenCV paints them grey.

    Raises:
        UserError: it is cut off.
    """
    with path.open("rb") as file:
        if file.read(2) != JPEG_START:
            return
        file.seek(-2, 2)
        if file.read() == JPEG_END:
            return
    try:
        with Image.open(path) as image:
            image.load()  # Pillow refuses what is cut off, and only that
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"the image {path} is damaged: {error}; fetch it again.") from None


def _samples(preflight: Preflight, without: set[str]) -> Markup:
    """Some training images with their truth: what no figure tells is seen at once."""
    dataset = preflight.datasets["train"]
    sound = (
        index
        for index in preflight.shuffled(len(dataset)).tolist()
        if str(dataset.image_path(index)) not in without
        and len(dataset.annotations.truth(index)[0])
    )
    tiles = [_tile(dataset, index) for _, index in zip(range(SHOWN), sound, strict=False)]
    if not tiles:
        return Markup("")
    caption = "training images with their boxes: do they sit on the objects?"
    return picture(contact_sheet(tiles, columns=4), caption=caption, longest_px=1600)


def _tile(dataset: DetectionDataset, index: int) -> np.ndarray:
    sample, title = dataset.load(index), dataset.annotations.file_name(index)
    boxes, labels, names = sample.boxes_xyxy_px, sample.labels, dataset.class_names
    return draw_tile(
        sample.image, boxes, labels, names, side_px=SHOWN_PX, title=title, ignored=sample.ignored
    )


def _fault(config: Config, bad: Sequence[BadImage], looked_at: Mapping[Split, int]) -> str | None:
    """The sentence on bad images, unless so few are to be skipped.

    Args:
        config: sets what becomes of them.
        bad: of all data sets.
        looked_at: images of each data set, the bad ones among them.
    """
    if not bad:
        return None
    shares = [
        sum(one.split == split for one in bad) / max(count, 1) for split, count in looked_at.items()
    ]
    if config.data.on_error == "skip" and max(shares) <= config.data.max_bad_share:
        return None
    more = len(bad) - 1
    likewise = f" ({more:,} more images are at fault)" if more else ""
    return f"data.{bad[0].split}: {bad[0].reason.rstrip('.')}{likewise}."


def _warnings(bad: Sequence[BadImage]) -> list[str]:
    lines = [f"data.{one.split}: {one.reason}" for one in bad[:LISTED]]
    more = len(bad) - LISTED
    return [*lines, f"{more:,} more images are at fault"] if more > 0 else lines


def _table(bad: Sequence[BadImage]) -> Markup:
    return table(["set", "file", "reason"], bad, caption="images at fault")
