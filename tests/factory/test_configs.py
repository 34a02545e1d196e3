"""Every YAML under configs/ builds, without data and without pretrained weights."""

import re

import pytest
import torch
import yaml

from yolo.config import REPOSITORY_ROOT, load_config
from yolo.factory.detector import (
    build_classifier,
    build_coder,
    build_detector,
    build_loss,
    build_postprocess,
)
from yolo.factory.learner import build_freeze, build_optimizer, build_schedule
from yolo.records import Targets

FOLDER = REPOSITORY_ROOT / "configs"
# parts to extend, which are no whole configs
RECIPES, SMALL_DATA = sorted((FOLDER / "recipes").glob("*.yaml")), FOLDER / "base/small_data.yaml"
PARTS = {FOLDER / "base", FOLDER / "recipes"}
CONFIGS = sorted(p for p in FOLDER.rglob("*.yaml") if p.parent not in PARTS)
CLASSIFIERS = [p for p in CONFIGS if p.parent.name == "pretrain"]
DETECTORS = [p for p in CONFIGS if p not in CLASSIFIERS]
CLASS_NAMES = [f"class {i}" for i in range(20)]


def name_of(path):
    return path.relative_to(FOLDER).as_posix()


def test_there_are_configs():
    folders = {p.parent.name for p in CONFIGS}
    assert {"configs", "yolov1", "yolov2", "yolov3", "pretrain"} <= folders
    assert {"quickstart", "darknet53_coco", "mobilenet_v3_small_coco"} <= {p.stem for p in CONFIGS}
    assert {p.stem for p in RECIPES} == {"modern", "paper", "strong_data"}
    assert sum(p.stem.endswith("_coco_modern") for p in CONFIGS) == 4


@pytest.mark.parametrize("path", DETECTORS, ids=name_of)
def test_a_detector_builds(path):
    build_and_run(load_config(path, ["model.encoder.weights=null", "model.init=null"]).config)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
@pytest.mark.parametrize("path", ["yolov3/yolov3_tiny_coco.yaml", "yolov2/darknet19_voc.yaml"])
def test_a_recipe_builds_over_other_detectors(path, recipe, tmp_path):
    """Those that extend it in configs/ are built as they are."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: [{FOLDER / path}, {recipe}]\n")
    resolved = load_config(file, ["model.encoder.weights=null"])
    assert not resolved.notes  # nothing of the recipe is without effect
    build_and_run(resolved.config)


def own_data_examples():
    """That of the README, and those of its page in docs/, one for each format."""
    readme = (REPOSITORY_ROOT / "README.md").read_text("utf-8").split("\n## Your own images\n")[1]
    page = (REPOSITORY_ROOT / "docs/own-images.md").read_text("utf-8")
    examples = [re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)[1]]
    return examples + re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)


def test_there_is_an_own_data_example_for_each_format():
    types = [yaml.safe_load(text)["data"]["train"]["type"] for text in own_data_examples()]
    assert types == ["coco", "coco", "voc", "yolo_text", "csv_boxes"]


@pytest.mark.parametrize(
    "text", own_data_examples(), ids=["README", "coco", "voc", "yolo_text", "csv_boxes"]
)
def test_an_own_data_example_builds(text, tmp_path):
    """With anchors from its boxes; nothing that people extend names the classes of other data."""
    assert "extends: base/small_data.yaml\n" in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("base/small_data.yaml", str(SMALL_DATA)))
    resolved = load_config(file)
    assert resolved.config.model.head.anchors == "auto" and resolved.config.training.ema is not None
    anchors = load_config(FOLDER / "yolov3/bccd.yaml").data["model"]["head"]["anchors"]
    build_and_run(resolved.with_values({"model.head.anchors": anchors}, "fitted").config)
    for part in (*RECIPES, SMALL_DATA):
        assert "class_names" not in part.read_text("utf-8")
    for steps in (500, 5000):  # the cycle has their length
        training = load_config(file, [f"training.steps={steps}"])
        factor = build_schedule(training.config)
        assert not training.notes and factor(steps - 1) < 1e-3 < 0.9 < factor(steps // 20)


def build_and_run(config):
    detector = build_detector(config, CLASS_NAMES)
    coder = build_coder(config)
    loss = build_loss(config, coder, CLASS_NAMES)
    build_freeze(config, detector)
    check_optimizer(config, detector)
    size_px = config.data.image_size if config.model.head.type == "yolov1" else 64
    with torch.inference_mode():
        raw = detector.eval()(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8))
        boxes, scores = coder(raw)
        terms = loss(raw, no_truth(), 1)
        found = build_postprocess(config)(boxes, scores)
    assert scores.shape == (1, boxes.shape[1], len(CLASS_NAMES))
    assert all(term.isfinite() for term in terms.values())
    assert len(found) == 1


@pytest.mark.parametrize("path", CLASSIFIERS, ids=name_of)
def test_a_classifier_builds(path):
    config = load_config(path, ["model.encoder.weights=null"]).config
    classifier = build_classifier(config, CLASS_NAMES)
    check_optimizer(config, classifier)
    with torch.inference_mode():
        logits = classifier.eval()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert logits.shape == (1, len(CLASS_NAMES))


def check_optimizer(config, model):
    optimizer, schedule = build_optimizer(config, model), build_schedule(config)
    rates = [schedule(step) for step in range(0, config.training.steps, 1000)]
    assert max(rates) > 0 and len(optimizer.param_groups) >= 2


def no_truth():
    nothing = torch.zeros(0, dtype=torch.int64)
    return Targets(torch.zeros(0, 4), nothing, nothing, nothing.bool(), max_per_image=0)
