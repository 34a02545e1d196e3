"""What overfitting a few images makes of a config, and its upper bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.coco_files import write_coco
from tests.detectors import ONE_RANK
from yolo.apps.preflight.checks import Preflight, TrialRun
from yolo.apps.preflight.overfit import choose_images, overfitting_config
from yolo.apps.preflight.truth import find_bound
from yolo.config import REPOSITORY_ROOT, Resolved, load_config, resolved_yaml
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.factory.detector import build_coder
from yolo.factory.training import build_trainer

BUSY = [
    *("data.limit=50", "data.train_share=0.5", "data.sampling=repeat_factor", "data.mosaic={p: 1}"),
    *("data.mixup={p: 1}", "data.multi_scale={min: 64, max: 128}", "training.patience=3"),
    *("training.batch_size=64", "training.micro_batch_size=4", "evaluation.metric=voc"),
    *("evaluation.monitor=mAP_11", "evaluation.share=0.1"),
]
AUTO = "training.micro_batch_size=auto"


def write_images(folder: Path, boxes: dict[int, list[list[float]]]) -> CocoDataset:
    """64x64 px each: boxes xywh by image id, negative widths for crowds."""
    pictures = {number: np.zeros((64, 64, 3), np.uint8) for number in boxes}
    found = [(n, 0, [x, y, abs(w), h], w < 0) for n, some in boxes.items() for x, y, w, h in some]
    written = write_coco(folder, pictures, found)
    return CocoDataset(annotations=written["annotations"], images=folder)


def quickstart(folder: Path, *overrides: str) -> Resolved:
    data = f"{{type: coco, annotations: {folder}/annotations.json, images: {folder}}}"
    argv = [f"data.train={data}", "data.image_size=64", "data.workers=0", *overrides]
    argv += [f"logging.directory={folder}/logs", "training.precision=fp32"]
    return load_config(REPOSITORY_ROOT / "configs/quickstart.yaml", argv)


def test_everything_that_hinders_is_off_and_the_rest_stays(tmp_path: Path) -> None:
    before = quickstart(tmp_path, *BUSY)
    after = overfitting_config(before, [7, 3, 9, 4, 1, 8], steps=100)
    data, training, evaluation = (
        getattr(after.config, name) for name in ("data", "training", "evaluation")
    )
    assert data.val == data.train == before.config.data.train
    assert data.limit == (7, 3, 9, 4, 1, 8) and data.train_share == evaluation.share == 1
    assert data.augment == () and data.sampling == "uniform"
    assert data.mosaic is data.mixup is data.multi_scale is training.ema is training.patience
    assert data.mosaic is None
    # three of six divides the batch, four does not
    assert (training.steps, training.batch_size, training.micro_batch_size) == (100, 6, 3)
    assert training.optimizer == before.config.training.optimizer
    assert (training.schedule.factors, training.schedule.milestones) == ((1.0,), ())
    assert (evaluation.metric, evaluation.monitor) == ("coco", "AP50")
    assert after.config.logging.directory == tmp_path / "logs/overfit"
    assert after.config.model == before.config.model and after.config.loss == before.config.loss
    assert before.config.data.augment and before.config.data.limit == 50  # as it was
    auto = overfitting_config(quickstart(tmp_path, AUTO), [7, 3], steps=100).config
    assert auto.training.micro_batch_size == "auto"


def test_the_run_saves_a_config_with_the_place_that_its_values_came_from(tmp_path: Path) -> None:
    after = overfitting_config(quickstart(tmp_path, *BUSY), [7, 3], steps=100)
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(after))
    assert load_config(path).config == after.config
    assert "augment: []  # overfitting" in path.read_text()
    assert "warmup_steps: 10  # overfitting" in path.read_text()
    assert "image_size: 64  # command line" in path.read_text()


def test_a_trial_run_has_the_micro_batch_that_a_training_would_find(tmp_path: Path) -> None:
    images = write_images(tmp_path, {number: [[0, 0, 9, 9]] for number in range(1, 5)})
    resolved = quickstart(tmp_path, AUTO, "training.batch_size=4")
    preflight = Preflight(
        resolved=resolved, ranks=ONE_RANK, datasets={"train": images, "val": images}
    )
    trial = TrialRun(preflight)
    assert preflight.config.training.micro_batch_size == len(trial.batch) == 4


def test_images_with_something_to_find_are_chosen(tmp_path: Path) -> None:
    boxes = {5: [[0, 0, -9, 9]], 3: [[0, 0, 9, 9]], 8: [], 1: [[0, 0, -9, 9], [0, 0, 9, 9]]}
    dataset: DetectionDataset = write_images(tmp_path, {**boxes, 2: [[0, 0, 9, 9]]})
    assert choose_images(dataset, 2) == [3, 1]
    assert choose_images(dataset, 9) == [3, 1, 2]
    with pytest.raises(UserError, match=r"no image of data\.train has a box"):
        choose_images(dataset.limit([5, 8]), 9)


@pytest.mark.parametrize(
    ("boxes", "placed", "bound"),
    [
        ([[8, 8, 16, 16], [40, 40, 16, 16]], 2, 1.0),
        # of two boxes of one class, one in the other, suppression leaves one: recall 1/2, so the
        # precision is 1 at 51 of COCO's 101 places of recall
        ([[8, 8, 40, 40], [13, 13, 30, 30]], 2, 51 / 101),
        # the same one twice shares cell and anchor
        ([[8, 8, 40, 40], [8, 8, 40, 40]], 1, 51 / 101),
        ([[8, 8, 16, 16], [40, 40, -16, 16]], 1, 1.0),
    ],
)
def test_the_bound_is_what_maps_suppression_and_metric_leave(
    tmp_path: Path, boxes: list[list[float]], placed: int, bound: float
) -> None:
    write_images(tmp_path, {1: boxes})
    resolved = overfitting_config(quickstart(tmp_path), [1], steps=10)
    trainer = build_trainer(resolved, ONE_RANK, name=None)
    found = find_bound(trainer.evaluator, build_coder(resolved.config))
    assert found.placed == placed
    assert found.truths == sum(box[2] > 0 for box in boxes)
    assert found.stats["AP50"] == pytest.approx(bound, abs=1e-6)
