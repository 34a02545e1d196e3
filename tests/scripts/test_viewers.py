"""scripts/visualize_dataset.py and scripts/visualize_batch.py as a user runs them, in process."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from scripts import visualize_batch, visualize_dataset
from tests.checkpoints import write_checkpoint
from yolo.config import REPOSITORY_ROOT


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of the quickstart: 12 images of its own, 64 px."""
    root = tmp_path_factory.mktemp("shapes")
    return [f"data.train.root={root}", "data.train.images=12", "data.image_size=64"]


def sheets(folder: Path) -> dict[str, tuple[int, ...]]:
    return {path.name: cv2.imread(str(path)).shape[:2] for path in sorted(folder.iterdir())}


def test_a_data_set_on_sheets(shapes, tmp_path, capsys):
    argv = ["-n", "5", "--tile", "200", "--output", str(tmp_path / "a"), *shapes]
    assert visualize_dataset.main(argv) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'sheet_01.jpg'}\n"
    ((height, width),) = sheets(tmp_path / "a").values()
    assert width == 4 * 200 + 3 * 4 and height > 2 * 60
    argv = ["--ids", "3,7", "--tile", "200", "--output", str(tmp_path / "b"), *shapes]
    assert visualize_dataset.main(argv) == 0
    ((_, width),) = sheets(tmp_path / "b").values()
    assert width == 2 * 200 + 4
    argv = ["--ids", "99", "--output", str(tmp_path / "c"), *shapes]
    assert visualize_dataset.main(argv) == 1
    assert "has none of the listed image ids (99)" in capsys.readouterr().err


def test_predictions_stand_beside_the_truth(shapes, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best.pt")
    common = ["-n", "1", "--tile", "200", *shapes]
    predicting = ["--checkpoint", str(checkpoint), "--gpu", "cpu", "--conf"]
    pictures = []
    for name, more in {
        "truth": [],
        "all": [*predicting, "0.1"],
        "none": [*predicting, "1"],
    }.items():
        argv = ["--output", str(tmp_path / name), *common, *more]
        assert visualize_dataset.main(argv) == 0
        pictures.append(cv2.imread(str(tmp_path / name / "sheet_01.jpg")))
    truth, found, nothing = pictures
    assert found.shape == (truth.shape[0], 404, 3)
    assert abs(found[:, :192].astype(int) - truth[:, :192]).mean() < 1  # JPEG blurs the border
    assert abs(found[24:, 212:].astype(int) - nothing[24:, 212:]).mean() > 1


def test_a_training_batch_on_sheets(shapes, tmp_path, capsys):
    batch = ["training.batch_size=20", "training.micro_batch_size=10"]
    argv = ["--step", "2", "-n", "18", "--output", str(tmp_path), *shapes, *batch]
    assert visualize_batch.main(argv) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "step 2: 20 images of 64 px in 2 part(s)"
    assert [Path(line).name for line in printed[1:]] == ["sheet_01.jpg", "sheet_02.jpg"]
    (high, wide), (low, narrow) = sheets(tmp_path).values()
    assert (wide, narrow) == (4 * 320 + 3 * 4, 2 * 320 + 4) and high == 4 * low + 3 * 4


def test_a_classifier_has_pictures_too(tmp_path):
    config = REPOSITORY_ROOT / "configs/pretrain/shapes_darknet53.yaml"
    data = [f"data.train.root={tmp_path}", "data.train.images=6", "data.image_size=64"]
    model = "model.encoder={type: darknet_tiny, width: 0.25}"
    argv = ["--config", str(config), "-n", "2", *data]
    assert visualize_batch.main([*argv, model, "--output", str(tmp_path / "batch")]) == 0
    assert visualize_dataset.main([*argv, "--output", str(tmp_path / "data")]) == 0
    assert len(sheets(tmp_path / "batch")) == len(sheets(tmp_path / "data")) == 1


@pytest.mark.parametrize("script", [visualize_batch, visualize_dataset])
def test_bad_usage(script, usage_error):
    error = usage_error(script.main, "training.steps=none")
    assert "command line: training.steps: 'none': must be" in error
    assert "-n" in usage_error(script.main, "-n", "0")
    error = usage_error(visualize_dataset.main, "--ids", "1,x")
    assert "'1,x' must be a list of ids such as 139,285" in error
