"""What only a training of minutes can show: `make test-slow`."""

import json

import pytest

import main as training
from yolo.config import REPOSITORY_ROOT


def best_ap50(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(record["AP50"] for record in records if record["phase"] == "validation")


@pytest.mark.slow
def test_eight_real_images_can_be_overfitted(real_data, tmp_path):
    root = real_data / "coco-mini"
    images = {
        "type": "coco",
        "annotations": str(root / "annotations/instances_train2017.json"),
        "images": str(root / "train2017"),
    }
    config = {
        "extends": str(REPOSITORY_ROOT / "configs/yolov3/mobilenet_v3_small_coco.yaml"),
        "model": {"encoder": {"type": "mobilenet_v3_small", "weights": None}},
        "data": {"train": images, "val": images, "limit": 8, "augment": []},
        "training": {
            "steps": 200,
            "batch_size": 8,
            "micro_batch_size": 8,
            "optimizer": {"type": "adam", "learning_rate": 1e-3},
            "schedule": {"type": "cosine_restarts", "t_0": 200, "warmup_steps": 20},
        },
        "evaluation": {"every": 200, "conf": 0.001},
        "logging": {"directory": str(tmp_path)},
    }
    (tmp_path / "overfit.yaml").write_text(json.dumps(config))  # json is YAML
    argv = ["--config", str(tmp_path / "overfit.yaml"), "--gpu", "cpu", "--name", "run"]
    assert training.main(argv) == 0
    assert best_ap50(tmp_path / "run") >= 0.95


@pytest.mark.slow
def test_the_quickstart_reaches_its_figure(tmp_path):
    argv = ["--gpu", "cpu", "--name", "run", f"logging.directory={tmp_path}"]
    assert training.main(argv) == 0
    assert best_ap50(tmp_path / "run") >= 0.83
