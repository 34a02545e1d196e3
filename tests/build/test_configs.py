"""Every YAML under configs/ builds, without data and without pretrained weights."""

import pytest
import torch

from yolo.build.detector import build_coder, build_detector, build_loss, build_postprocess
from yolo.build.optimizer import build_optimizer, build_schedule
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.records import Targets

FOLDER = REPOSITORY_ROOT / "configs"
# base/ holds parts to extend, which are no whole configs
CONFIGS = sorted(p for p in FOLDER.rglob("*.yaml") if p.parent != FOLDER / "base")
CLASS_NAMES = [f"class {i}" for i in range(80)]


def test_there_are_configs():
    assert {"quickstart", "darknet53_coco", "mobilenet_v3_small_coco"} <= {p.stem for p in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_builds(path):
    config = load_config(path, ["model.encoder.weights=null"]).config
    detector = build_detector(config, CLASS_NAMES)
    coder = build_coder(config)
    loss = build_loss(config, coder, CLASS_NAMES)
    optimizer, schedule = build_optimizer(config, detector), build_schedule(config)
    with torch.inference_mode():
        raw = detector.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        boxes, scores = coder(raw)
        terms = loss(raw, no_truth(), 1)
        found = build_postprocess(config)(boxes, scores)
    assert scores.shape == (1, 3 * (8 * 8 + 4 * 4 + 2 * 2), len(CLASS_NAMES))
    assert all(term.isfinite() for term in terms.values())
    assert len(found) == 1
    rates = [schedule(step) for step in range(0, config.training.steps, 1000)]
    assert max(rates) > 0 and len(optimizer.param_groups) == 2


def no_truth():
    nothing = torch.zeros(0, dtype=torch.int64)
    return Targets(torch.zeros(0, 4), nothing, nothing, nothing.bool(), max_per_image=0)
