"""Configs of `task: classify`: what they fill in, and what they refuse."""

import pytest

from yolo.config import REPOSITORY_ROOT, ClassificationConfig, load_config

SHAPES = REPOSITORY_ROOT / "configs" / "pretrain" / "shapes_darknet53.yaml"
WHOLE = """
task: classify
model: {encoder: {type: darknet53}}
data: {train: {type: class_folder, root: images}, val: {type: class_folder, root: /images}}
training:
  steps: 5
  optimizer: {type: sgd, learning_rate: 1}
  schedule: {type: cosine_restarts, t_0: 5}
evaluation: {every: 5}
"""


def test_what_is_missing_is_filled_in(write, tmp_path):
    config = load_config(write(WHOLE, whole=True)).config
    assert isinstance(config, ClassificationConfig)
    assert (config.loss.type, config.loss.label_smoothing) == ("cross_entropy", 0)
    assert (config.data.image_size, config.evaluation.monitor) == (224, "top1")
    assert config.data.train.root == tmp_path / "images"
    assert config.data.augment[0].type == "RandomResizedCrop"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.val.type=coco", "data.val.type: 'coco': must be 'class_folder' or 'class_shapes'"),
        ("evaluation.monitor=AP", "evaluation.monitor: 'AP': must be 'top1' or 'top5'"),
        ("loss.label_smoothing=1", "label_smoothing: 1: must be a number of at least 0 and below"),
        ("model.dropout=-1", "model.dropout: -1: must be a number of at least 0 and below 1"),
        ("model.neck={type: yolov3}", "model.neck: {type: 'yolov3'}: unknown key, allowed are "),
        ("data.min_visibility=0.5", "data.min_visibility: 0.5: unknown key, allowed are train"),
    ],
)
def test_wrong_values(override, expected, problems):
    (line,) = problems(SHAPES, override)
    assert expected in line
