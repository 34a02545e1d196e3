"""The stage on boxes: which were dropped or clipped, look wrong, or are wrong altogether."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import hotcoco
import numpy as np
from markupsafe import Markup

from yolo.apps.preflight.checks import Outcome, Preflight
from yolo.apps.preflight.datasets import count_labels
from yolo.apps.report.page import details, grid, histogram_chart, line_chart, table
from yolo.apps.report.plots import Line
from yolo.data.annotations import box_sizes_px
from yolo.data.formats.detection import DetectionDataset
from yolo.evaluate.metrics.coco import BoxTruth
from yolo.factory.data import Split

KEPT_SHARE = 0.9  # a box of which less of the area lies inside its image leaves it
SUSPECT_SHARE = 0.05  # of boxes that leave, from which on other readings are tried
FEWER_OUTSIDE = 4
"""The other reading must have so many times fewer of them. Where boxes are right, every wrong
reading sends a quarter of them out; where a reading is the right one, it sends out almost none."""

HOPELESS_SHARE = 0.2  # so many outside spoil a training even where no other reading explains them
FEWEST_OUTSIDE = 3  # fewer, a minority of all, prove nothing: one may be careless in a small set
SMALLEST_PX = 2.0  # no object is smaller on its longer side
TINY_SHARE = 0.5  # of boxes below ``SMALLEST_PX``, from which on they cannot be in pixels
LOST_SHARE = 0.2  # of boxes without an area inside their image, from which on the data is at fault
THIN = 20.0  # longer side over shorter one from which on a box is suspicious
FAINT_PX = 2.0  # a box whose longer side is smaller in the network's input shows nothing
LISTED = 1000  # suspicious boxes of a kind that page and json name; all are counted
PRINTED = 3  # of a kind, on the terminal
BINS = 40


class Suspect(NamedTuple):
    """A box, and why it is worth a look."""

    split: Split
    kind: str
    box: str


def check_boxes(preflight: Preflight) -> Outcome:
    """Judge the boxes as annotated, and show their classes and sizes."""
    datasets, size_px = preflight.datasets, preflight.config.data.image_size
    faults = ((split, _fault(dataset)) for split, dataset in datasets.items())
    fault = next((f"data.{split}: {what}." for split, what in faults if what), None)
    if any(dataset.annotations.ignored.all() for dataset in datasets.values()):
        return Outcome(summary="there is no box to judge", fault=fault)
    sizes = {split: box_sizes_px(data.annotations, size_px) for split, data in datasets.items()}
    suspects, counts = [], {}
    for split, dataset in datasets.items():
        found, numbers = _suspects(split, dataset, sizes[split], size_px)
        suspects += found
        counts.update({f"data.{split}, {kind}": count for kind, count in numbers.items()})
    sides = {split: np.sqrt(found.prod(axis=1)) for split, found in sizes.items()}
    quantiles = {
        split: {f"{q}%": round(float(np.percentile(side, q)), 2) for q in (0, 5, 50, 95, 100)}
        for split, side in sides.items()
    }
    small, half, large = (quantiles["train"][q] for q in ("5%", "50%", "95%"))
    summary = f"boxes that were corrected or are worth a look: {len(suspects):,}"
    listed = [details(summary, table(["set", "why", "box"], suspects))] if suspects else []
    return Outcome(
        summary=f"sides of {small:.0f} to {large:.0f} px, half of them below {half:.0f} px at "
        f"{size_px} px",
        fault=fault,
        warnings=[f"{kind}: {count:,} boxes" for kind, count in counts.items()],
        lines=list(_first_of_each_kind(suspects)),
        figures={
            "suspects": [suspect._asdict() for suspect in suspects],
            "counts": counts,
            "side_px_quantiles": quantiles,
        },
        blocks=[_charts(preflight, sizes), *listed],
    )


def _fault(dataset: DetectionDataset) -> str | None:
    """What is wrong where boxes mean something else than they should, or there is none to find."""
    truth, ignored = dataset.ground_truth(), dataset.annotations.ignored
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    boxes = np.array([entry["bbox"] for entry in truth["annotations"]], np.float64).reshape(-1, 4)
    owners = np.array([sizes[entry["image_id"]] for entry in truth["annotations"]])
    finite = np.isfinite(boxes).all(axis=1)
    if finite.any() and (wrong := measure_boxes(boxes[finite], owners[finite]).fault()):
        return wrong
    lost = dataset.findings.counts.get("no area", 0)
    share = lost / max(lost + len(ignored), 1)
    if share > LOST_SHARE and lost >= FEWEST_OUTSIDE:
        return (
            f"{share:.0%} of its boxes have no area inside their images; their unit is not the "
            "images' pixel, x and y are swapped, or they belong to other images"
        )
    if len(ignored) == 0:
        return f"none of its {len(dataset):,} images has a box"
    if ignored.all():
        return (
            f"all {len(ignored):,} boxes are ignored regions (crowd or difficult), so that no "
            'object is left; correct "iscrowd" or <difficult> in the annotations'
        )
    return None


def _suspects(
    split: Split, dataset: DetectionDataset, sizes_wh_px: np.ndarray, image_size_px: int
) -> tuple[list[Suspect], dict[str, int]]:
    """The boxes to look at, as many as are listed, and how many there are of each kind."""
    findings, owned = dataset.findings, np.flatnonzero(~dataset.annotations.ignored)
    longer, shorter = sizes_wh_px.max(axis=1), sizes_wh_px.min(axis=1)  # (n,) of the owned ones
    truth = BoxTruth(DetectionDataset.ground_truth(dataset))
    health = hotcoco.COCO(truth.content).healthcheck()
    twins = {w["code"]: w["affected_ids"] for w in health["warnings"]}.get("near_duplicate", [])
    kinds = {
        f"below {FAINT_PX:g} px at {image_size_px} px": owned[longer < FAINT_PX],
        f"over {THIN:g} times as long as wide": owned[longer > THIN * shorter],
        # an IoU above 0.95; the ground truth numbers the boxes from 1 in their order
        "nearly equal to another of their class": np.array(sorted(twins), np.int64) - 1,
    }
    suspects = [Suspect(split, "corrected while reading", text) for text in findings.texts]
    suspects += [
        Suspect(split, kind, _describe(dataset, place))
        for kind, places in kinds.items()
        for place in places[:LISTED].tolist()
    ]
    counts = {f"{kind} while reading": count for kind, count in findings.counts.items()}
    counts |= {kind: len(places) for kind, places in kinds.items() if len(places)}
    return suspects, counts


def _describe(dataset: DetectionDataset, place: int) -> str:
    packed = dataset.annotations
    image = int(np.searchsorted(packed.offsets, place, side="right")) - 1
    x1, y1, x2, y2 = packed.boxes_xyxy_px[place].tolist()
    height, width = packed.size_hw(image)
    name = dataset.class_names[int(packed.labels[place])]
    return (
        f"{packed.file_name(image)}: {name}, {x1:.1f}, {y1:.1f} to {x2:.1f}, {y2:.1f} "
        f"in {width}x{height} px"
    )


def _first_of_each_kind(suspects: Sequence[Suspect]) -> Iterator[str]:
    for (split, kind), group in groupby(suspects, key=lambda suspect: suspect[:2]):
        boxes = [suspect.box for suspect in group]
        yield from (f"data.{split}, {kind}: {box}" for box in boxes[:PRINTED])
        if len(boxes) > PRINTED:
            yield f"and {len(boxes) - PRINTED:,} more such (--html and --json list them)"


def _charts(preflight: Preflight, sizes_wh_px: dict[Split, np.ndarray]) -> Markup:
    """Boxes by class, by size and by shape."""
    counts = {split: count_labels(data)[0] for split, data in preflight.datasets.items()}
    order = np.argsort(-counts["train"], kind="stable")
    lines = [
        Line(
            name=split,
            x=np.arange(1, len(order) + 1),
            # a gap where there is none, which a logarithm could not show
            y=np.where(count[order] > 0, count[order] / max(count.sum(), 1), np.nan),
            colour=colour,
            marker="o" if len(order) <= BINS else "",
        )
        for colour, (split, count) in enumerate(counts.items())
    ]
    sides = {str(split): np.sqrt(found.prod(axis=1)) for split, found in sizes_wh_px.items()}
    ratios = {str(split): found[:, 0] / found[:, 1] for split, found in sizes_wh_px.items()}
    x, unit = "classes, the most frequent first", f"px of {preflight.config.data.image_size}"
    charts = [
        line_chart("Share of the boxes by class", lines, x=x, may_be_log=True),
        histogram_chart("Box sizes", sides, x=f"√(width × height), {unit}", bins=BINS),
        histogram_chart("Box shapes", ratios, x="width / height", bins=BINS),
    ]
    return grid(charts, least_px=340)


def _edges(boxes: np.ndarray) -> np.ndarray:
    """[x, y, w, h] -> xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


OTHER_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "[y, x, height, width]": lambda boxes: _edges(boxes[:, [1, 0, 3, 2]]),
    "the corners [x1, y1, x2, y2]": lambda boxes: boxes,
    "the corners [y1, x1, y2, x2]": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "[centre x, centre y, width, height]": lambda boxes: _edges(
        np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    ),
}
"""Of four numbers that should be [x, y, width, height] -> (N, 4) xyxy."""


class BoxStatistics(NamedTuple):
    """How boxes fit their images."""

    outside: float  # share of the boxes that leave their image
    tiny: float  # share of the boxes below ``SMALLEST_PX``
    few: bool = False  # those that leave are too few to prove anything
    better: str | None = None  # another reading that keeps (nearly) all inside
    better_outside: float = 0.0  # the share that leaves in that one

    def fault(self) -> str | None:
        """What is wrong with the boxes, without a full stop."""
        if self.tiny > TINY_SHARE:
            return (
                f"{self.tiny:.0%} of its boxes are smaller than {SMALLEST_PX:g} px on both sides, "
                "so their unit is not the pixel (relative to the image, 0 to 1?); write them in "
                "pixels"
            )
        leaving = f"{self.outside:.0%} of its boxes leave their images, "
        if self.better is not None:
            return (
                f"{leaving}but only {self.better_outside:.0%} if their numbers are read as "
                f"{self.better}; write them as [x, y, width, height]"
            )
        if self.outside > HOPELESS_SHARE and not self.few:
            return (
                f"{leaving}whatever their order; their unit is not the images' pixel, or they "
                "belong to other images"
            )
        return None


def measure_boxes(boxes_xywh_px: np.ndarray, sizes_wh: np.ndarray) -> BoxStatistics:
    """Measure boxes float (N, 4) as they were annotated, finite, N >= 1, in images of (N, 2) px."""
    leaving = _leave(_edges(boxes_xywh_px), sizes_wh)
    outside = float(leaving.mean())
    tiny = float((boxes_xywh_px[:, 2:].max(axis=1) < SMALLEST_PX).mean())
    few = bool(leaving.sum() < FEWEST_OUTSIDE and outside < 0.5)
    if outside <= SUSPECT_SHARE or few:
        return BoxStatistics(outside, tiny, few=few)
    shares = {
        name: float(_leave(read(boxes_xywh_px), sizes_wh).mean())
        for name, read in OTHER_READINGS.items()
    }
    best, share = min(shares.items(), key=lambda item: item[1])  # of equals the first
    if share * FEWER_OUTSIDE > outside:
        return BoxStatistics(outside, tiny)
    return BoxStatistics(outside, tiny, better=best, better_outside=share)


def _leave(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
    """Which boxes (N, 4) have too little of their area inside the image, or none: bool (N,)."""
    inside, whole = (
        (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
        for boxes in (boxes_xyxy.clip(0, np.tile(sizes_wh, 2)), boxes_xyxy)
    )
    return inside <= KEPT_SHARE * whole
