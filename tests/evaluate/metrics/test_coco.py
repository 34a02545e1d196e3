import contextlib
import copy
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo.evaluate.metrics.coco import MONITORS, CocoMetric
from yolo.evaluate.metrics.metric import DetectedBoxes, MetricResult

BACKENDS = ("hotcoco", "pycocotools")
NOTHING = DetectedBoxes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))


def small_truth() -> dict[str, Any]:
    """Two images; one class with a small and a large object, one class with none."""
    return {
        "images": [{"id": 7, "height": 200, "width": 300}, {"id": 9, "height": 200, "width": 300}],
        "annotations": [
            {"id": 0, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20]},
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [50, 50, 100, 100]},
        ],
        "categories": [{"id": 5, "name": "absent"}, {"id": 3, "name": "present"}],
    }


def coco_mini() -> dict[str, Any]:
    root = os.environ.get("YOLO_TEST_DATA")
    if not root or not (Path(root) / "coco-mini").is_dir():
        pytest.skip("YOLO_TEST_DATA names no folder with coco-mini")
    return json.loads((Path(root) / "coco-mini/annotations/instances_val2017.json").read_text())


def random_truth(rng: np.random.Generator) -> dict[str, Any]:
    """Truth of all sizes, with crowds, with classes and images that have none."""
    sizes = np.exp(rng.uniform(np.log(4), np.log(300), (300, 2)))
    corners = rng.uniform(0, 300, (300, 2))
    return {
        "images": [{"id": i * 3, "height": 600, "width": 600} for i in range(40)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(rng.integers(30)) * 3,
                "category_id": int(rng.integers(1, 8)) * 2,
                "bbox": [*corners[n].tolist(), *sizes[n].tolist()],
                "area": float(sizes[n].prod() * rng.uniform(0.5, 1)),
                "iscrowd": int(rng.random() < 0.1),
            }
            for n in range(300)
        ],
        "categories": [{"id": i * 2, "name": f"class {i}"} for i in range(1, 10)],
    }


def detections_from(truth: dict[str, Any], rng: np.random.Generator, copies: int) -> DetectedBoxes:
    """Each truth several times, displaced; some of another class; many with the same score."""
    annotations = truth["annotations"] * copies
    boxes = np.array([a["bbox"] for a in annotations])
    boxes[:, 2:] += boxes[:, :2]
    boxes += rng.normal(0, 0.06, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    categories = np.array([a["category_id"] for a in annotations])
    swapped = rng.random(len(categories)) < 0.2
    categories[swapped] = rng.permutation(categories[swapped])
    images = np.array([a["image_id"] for a in annotations])
    scores = rng.random(len(images)).round(2)
    return DetectedBoxes(images, categories, boxes.astype(np.float32), scores.astype(np.float32))


def random_detections(truth: dict[str, Any], rng: np.random.Generator) -> DetectedBoxes:
    images = rng.choice([image["id"] for image in truth["images"]], 3000)
    categories = rng.choice([category["id"] for category in truth["categories"]], 3000)
    boxes = rng.uniform(0, 300, (3000, 4))
    boxes[:, 2:] += boxes[:, :2]
    return DetectedBoxes(images, categories, boxes, rng.random(3000))


def reference(truth: dict[str, Any], found: DetectedBoxes) -> tuple[np.ndarray, str]:
    """pycocotools as its demo uses it: json files in, printed lines out."""
    images, categories, boxes, scores = found
    results = [
        {
            "image_id": int(images[n]),
            "category_id": int(categories[n]),
            "bbox": [*boxes[n, :2].tolist(), *(np.float64(boxes[n, 2:]) - boxes[n, :2]).tolist()],
            "score": float(scores[n]),
        }
        for n in range(len(scores))
    ]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats, "\n".join(out.getvalue().splitlines()[-12:])


def evaluate(truth: dict[str, Any], found: DetectedBoxes, backend: str) -> MetricResult:
    return CocoMetric(ground_truth=truth, backend=backend).evaluate(found)


@pytest.mark.parametrize("make_truth", [coco_mini, lambda: random_truth(np.random.default_rng(0))])
@pytest.mark.parametrize("kind", ["noisy", "random"])
def test_backends_equal_pycocotools_to_the_last_bit(make_truth: Any, kind: str) -> None:
    truth, rng = make_truth(), np.random.default_rng(1)
    noisy = kind == "noisy"
    found = detections_from(truth, rng, 4) if noisy else random_detections(truth, rng)
    stats, table = reference(truth, found)
    hot, slow = (evaluate(truth, found, backend) for backend in BACKENDS)
    assert list(hot.stats) == list(MONITORS)
    assert list(hot.stats.values()) == list(slow.stats.values()) == stats.tolist()
    assert hot.table == slow.table == table
    assert hot.per_class == slow.per_class
    assert not noisy or 0.1 < hot.stats["AP"] < 0.9
    defined = [figures["AP"] for figures in hot.per_class.values() if figures["AP"] >= 0]
    assert np.mean(defined) == pytest.approx(hot.stats["AP"], abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_truth_as_detections_is_perfect(backend: str) -> None:
    truth = coco_mini()
    kept = [a for a in truth["annotations"] if not a["iscrowd"]]
    boxes = np.array([a["bbox"] for a in kept])
    boxes[:, 2:] += boxes[:, :2]
    ids = [np.array([a[key] for a in kept]) for key in ("image_id", "category_id")]
    result = evaluate(truth, DetectedBoxes(*ids, boxes, np.ones(len(kept))), backend)
    assert result.stats["AP"] == result.stats["AP50"] == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The small object found (id 0, no area, no iscrowd in the json), the large one missed.

    Recall reaches 0.5, which is 51 of the 101 recall thresholds, all at precision 1.
    """
    truth = small_truth()
    before = copy.deepcopy(truth)
    metric = CocoMetric(ground_truth=truth, backend=backend)
    found = DetectedBoxes(
        np.array([7]), np.array([3]), np.array([[10, 10, 30, 30]]), np.array([0.5])
    )
    for _ in range(2):  # the second evaluation is not changed by the first
        result = metric.evaluate(found)
        assert result.stats["AP"] == result.stats["AP50"] == pytest.approx(51 / 101)
        sizes = [result.stats[key] for key in ("APs", "APm", "APl")]
        assert sizes == pytest.approx([1, -1, 0])
        assert (result.stats["AR1"], result.stats["ARl"]) == (0.5, 0)
        assert result.per_class[3] == pytest.approx({"AP": 51 / 101, "AP50": 51 / 101})
        assert result.per_class[5] == {"AP": -1, "AP50": -1}
        assert result.table.splitlines()[0] == (
            " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505"
        )
    assert truth == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_is_zero_where_there_is_truth(backend: str) -> None:
    result = evaluate(small_truth(), NOTHING, backend)
    assert result.stats == {key: -1 if key in ("APm", "ARm") else 0 for key in MONITORS}
    assert result.per_class[3] == {"AP": 0, "AP50": 0}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", [("annotations",), ("annotations", "images", "categories")])
def test_no_truth_is_minus_one(backend: str, empty: tuple[str, ...]) -> None:
    truth = small_truth() | {key: [] for key in empty}
    found = DetectedBoxes(np.array([7]), np.array([3]), np.array([[1, 1, 9, 9]]), np.array([0.5]))
    for detections in (NOTHING, found) if "images" not in empty else (NOTHING,):
        result = evaluate(truth, detections, backend)
        assert result.stats == dict.fromkeys(MONITORS, -1)
        assert len(result.table.splitlines()) == 12


@pytest.mark.parametrize("backend", BACKENDS)
def test_detections_that_cannot_be_matched(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Not finite: found nowhere. Unknown category: left out. Unknown image: a bug of the caller."""
    truth = small_truth()
    nan, inf = float("nan"), float("inf")
    boxes = np.array([[10, 10, 30, 30], [nan, 0, 5, 5], [0, 0, inf, 9], [10, 10, 30, 30]])
    found = DetectedBoxes(
        np.array([7, 7, 9, 7]),
        np.array([3, 3, 3, 99]),
        boxes,
        np.array([0.5, 0.9, 0.8, 1]),
    )
    result = evaluate(truth, found, backend)
    assert result.stats["AP50"] == pytest.approx(51 / 101 / 3)  # two false ones come before it
    assert np.isfinite(list(result.stats.values())).all()
    last = DetectedBoxes(found[0][:2], found[1][:2], boxes[:2], np.array([nan, 0.1]))
    assert evaluate(truth, last, backend).stats["AP50"] == pytest.approx(51 / 101 / 2)
    with pytest.raises(AssertionError, match="images without truth"):
        evaluate(truth, DetectedBoxes(np.array([8]), np.array([3]), boxes[:1], np.ones(1)), backend)
    assert capfd.readouterr() == ("", "")


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="unknown backend 'fast': choose one of hotcoco, pycoc"):
        CocoMetric(ground_truth=small_truth(), backend="fast")
