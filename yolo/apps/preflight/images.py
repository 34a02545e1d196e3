"""The stages on image files: each is there, of the size that is annotated, and decodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from yolo.apps.preflight.checks import Outcome, Preflight, within
from yolo.apps.preflight.datasets import find_copies
from yolo.apps.report.drawing import contact_sheet, draw_tile
from yolo.apps.report.page import picture, table
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.images import JPEG_END, JPEG_START, measure
from yolo.errors import UserError
from yolo.factory.data import Split

HEADER_SECONDS = DECODE_SECONDS = 15.0  # for each data set; of a larger one a sample is read
THREADS = 2  # OpenCV lets others run while it decodes
AT_ONCE = 16
SHOWN, SHOWN_PX = 12, 400
LISTED = 5  # images at fault on the terminal; page and json name all
FLAT_LEVELS = 16  # of 256: an image with 98 % of its pixels within them shows next to nothing
LOOK = (
    ": the page of --html shows whether the boxes sit on the objects; the data set's `upright` "
    "chooses the other reading"
)


class BadImage(NamedTuple):
    """A file that cannot be used, and the sentence on what is wrong with it."""

    split: Split
    file: str
    reason: str


def check_headers(preflight: Preflight) -> Outcome:
    """Sizes from the headers, before anything is decoded; then the contents, by digest."""
    counts, sound, bad = _look(preflight, _missing_first, _read_size, HEADER_SECONDS)
    sizes = Counter(size for found in sound.values() for size, _ in found)
    turns = Counter((split, note) for split, found in sound.items() for _, note in found if note)
    copies = find_copies(preflight, without={one.file for one in bad})
    total = sum(map(len, preflight.datasets.values()))
    return Outcome(
        summary=f"{sum(counts.values()):,} of {total:,} headers read, {len(sizes):,} "
        f"sizes, the most frequent {first_names([size for size, _ in sizes.most_common(3)])} px",
        fault=_fault(preflight, counts, bad) or copies.fault,
        warnings=[
            *_warnings(bad),
            *copies.warnings,
            *(f"data.{split}: {n:,} {note}{LOOK}" for (split, note), n in turns.items()),
        ],
        figures={
            "headers": counts,
            "sizes": dict(sizes.most_common()),
            "exif": {f"data.{split}: {note}": n for (split, note), n in turns.items()},
            "bad_images": [one._asdict() for one in bad],
            **copies.figures,
        },
        blocks=[_table(bad), *copies.blocks],
    )


def check_decoding(preflight: Preflight) -> Outcome:
    """Decode all images, or as many as the time allows, and show some with their boxes."""
    counts, sound, bad = _look(preflight, Preflight.shuffled, _decode, DECODE_SECONDS)
    flat = {split: [file for file in files if file] for split, files in sound.items()}
    decoded = (
        f"{counts[split]:,} of {len(dataset):,} of data.{split}"
        for split, dataset in preflight.datasets.items()
    )
    return Outcome(
        summary=f"{', '.join(decoded)} decoded",
        fault=_fault(preflight, counts, bad),
        warnings=[
            *_warnings(bad),
            *(
                f"data.{split}: {len(files):,} of {counts[split]:,} images are nearly of one "
                f"colour, first {first_names(files)}: were they converted to 8 bits as they should?"
                for split, files in flat.items()
                if files
            ),
        ],
        figures={"decoded": counts, "flat": flat, "broken": [one._asdict() for one in bad]},
        blocks=[_table(bad), _samples(preflight, without={one.file for one in bad})],
    )


def _look(
    preflight: Preflight,
    ordered: Callable[[Preflight, DetectionDataset], np.ndarray],
    check: Callable[[DetectionDataset, int], Any],
    seconds: float,
) -> tuple[dict[Split, int], dict[Split, list[Any]], list[BadImage]]:
    """Check the images of each data set in this order until the time is up.

    Returns:
        How many there was time for, what ``check`` gave of those that can be used, and the others.
    """

    def look(split: Split, index: int) -> Any:
        dataset = preflight.datasets[split]
        try:
            return check(dataset, index)
        except UserError as error:
            return BadImage(split, str(dataset.image_path(index)), str(error))

    counts, sound, bad = {}, {}, list[BadImage]()
    with ThreadPoolExecutor(THREADS) as pool:
        for split, dataset in preflight.datasets.items():
            order = ordered(preflight, dataset)
            parts = within(seconds, np.split(order, range(AT_ONCE, len(order), AT_ONCE)))
            found = [one for part in parts for one in pool.map(partial(look, split), part.tolist())]
            counts[split] = len(found)
            sound[split] = [one for one in found if not isinstance(one, BadImage)]
            bad += sorted(one for one in found if isinstance(one, BadImage))
    return counts, sound, bad


def _missing_first(preflight: Preflight, dataset: DetectionDataset) -> np.ndarray:
    order = preflight.shuffled(dataset)
    there = [dataset.image_path(index).is_file() for index in order.tolist()]
    return order[np.argsort(there, kind="stable")]


def _read_size(dataset: DetectionDataset, index: int) -> tuple[str, str]:
    """As "640x480", and the note on its EXIF; a ``UserError`` where it is not as annotated."""
    path, annotated = dataset.image_path(index), dataset.annotations.size_hw(index)
    found, note = measure(path, annotated, upright=dataset.upright)
    size = f"{found[1]}x{found[0]}"
    if found != annotated:
        raise UserError(
            f"the image {path} is {size} px large, but its annotations are for "
            f"{annotated[1]}x{annotated[0]} px; correct the size or restore the image."
        )
    return size, note


def _decode(dataset: DetectionDataset, index: int) -> str:
    """Read a whole image; of a JPEG cut off before its end OpenCV paints the rest grey.

    Gives the file's name if it is nearly of one colour.
    """
    pixels = dataset.load(index).image
    path = dataset.image_path(index)
    content = path.read_bytes()
    if content.startswith(JPEG_START) and not content.endswith(JPEG_END):
        try:
            with Image.open(path) as image:
                image.load()  # Pillow refuses what is cut off, and only that
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"the image {path} is damaged: {error}; fetch it again.") from None
    darkest, brightest = np.percentile(pixels[::4, ::4], (1, 99), axis=(0, 1))
    return str(path) if (brightest - darkest).max() < FLAT_LEVELS else ""


def _samples(preflight: Preflight, without: set[str]) -> Markup:
    """Some training images with their truth: what no figure shows is seen at once."""
    dataset = preflight.datasets["train"]
    sound = (
        index
        for index in preflight.shuffled(dataset).tolist()
        if str(dataset.image_path(index)) not in without
        and len(dataset.annotations.truth(index)[0])
    )
    tiles = []
    for index in islice(sound, SHOWN):
        one, title = dataset.load(index), dataset.annotations.file_name(index)
        truth = one.boxes_xyxy_px, one.labels, dataset.class_names
        tile = draw_tile(one.image, *truth, side_px=SHOWN_PX, title=title, ignored=one.ignored)
        tiles.append(tile)
    if not tiles:
        return Markup("")
    caption = "training images with their boxes: do they sit on the objects?"
    return picture(contact_sheet(tiles, columns=4), caption=caption, longest_px=1600)


def _fault(preflight: Preflight, counts: dict[Split, int], bad: Sequence[BadImage]) -> str | None:
    """The sentence on bad images, unless so few are skipped."""
    data, of_split = preflight.config.data, Counter(one.split for one in bad)
    worst = max(of_split[split] / max(looked, 1) for split, looked in counts.items())
    if not bad or (data.on_error == "skip" and worst <= data.max_bad_share):
        return None
    first, more = bad[0], len(bad) - 1
    likewise = f" ({more:,} more images are at fault)" if more else ""
    return f"data.{first.split}: {first.reason.rstrip('.')}{likewise}."


def _warnings(bad: Sequence[BadImage]) -> list[str]:
    lines = [f"data.{one.split}: {one.reason}" for one in bad[:LISTED]]
    more = len(bad) - LISTED
    return [*lines, f"{more:,} more images are at fault"] if more > 0 else lines


def _table(bad: Sequence[BadImage]) -> Markup:
    return table(["set", "file", "reason"], bad, caption="images at fault")
