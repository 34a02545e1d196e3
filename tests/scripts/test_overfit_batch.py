"""scripts/overfit_batch.py as a user runs it, in process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import overfit_batch
from yolo.config import REPOSITORY_ROOT, load_config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of the quickstart: its shapes at 96 px, for a network with few channels."""
    root = tmp_path_factory.mktemp("shapes")
    data = f"data.train.root={root} data.train.images=8 data.image_size=96 data.workers=0"
    training = "training.precision=fp32 training.optimizer.learning_rate=5e-3"
    sides = (5, 6, 8, 10, 14, 19, 27, 39, 56)  # the quickstart's, for this size
    anchors = f"model.head.anchors={[[side, side] for side in sides]}"
    return [*f"--gpu=cpu {data} {training} model.encoder.width=0.25".split(), anchors]


def records(run: Path, phase: str) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["phase"] == phase]


def test_two_images_are_learnt(tiny, tmp_path, capsys):
    argv = ["-n", "2", "--steps", "500", *tiny, f"logging.directory={tmp_path}"]
    assert overfit_batch.main(argv) == 0
    printed = capsys.readouterr().out
    (bound,) = re.findall(r"the truth itself, encoded .* reaches mAP@0\.5 (\S+) \(", printed)
    assert "learnt: mAP@0.5 " in printed and "NOT" not in printed
    (run,) = (tmp_path / "overfit").iterdir()
    config = load_config(run / "config.yaml").config
    assert config.training.batch_size == len(config.data.limit) == 2
    last = records(run, "validation")[-1]
    assert last["step"] < 500 and last["AP50"] >= min(0.99, float(bound) - 0.0101)
    assert f"step {last['step']}, " in printed.splitlines()[-1]
    rates = [r["learning_rate"] for r in records(run, "training")]
    assert rates[0] < 5e-3 and set(rates[1:]) == {5e-3}  # constant, once it is warm


def test_what_is_not_learnt_ends_with_1(tiny, tmp_path, capsys):
    argv = ["-n", "1", "--steps", "3", *tiny, f"logging.directory={tmp_path}"]
    # fitted to all training images, for a single one has too few boxes for nine anchors
    assert overfit_batch.main([*argv, "model.head.anchors=auto"]) == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("NOT learnt: mAP@0.5 ") and "in 3 steps" in last[0]
    assert "give it more --steps" in last[1]


def test_bad_usage(capsys, usage_error):
    assert "must be at least 1" in usage_error(overfit_batch.main, "-n", "0")
    assert "a few images need one device" in usage_error(overfit_batch.main, "--gpu", "0,1")
    config = REPOSITORY_ROOT / "configs/pretrain/shapes_darknet53.yaml"
    error = usage_error(overfit_batch.main, "--config", str(config))
    assert "name a detector's config" in error
    assert overfit_batch.main(["data.train.root=/proc/none"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
