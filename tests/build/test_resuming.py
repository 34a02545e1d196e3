import copy
from pathlib import Path

import pytest

from yolo.build.resuming import check_same_config
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.errors import UserError

RUN = Path("logs/run")


@pytest.fixture
def config():
    return load_config(REPOSITORY_ROOT / "configs/quickstart.yaml").data


def test_what_may_change_and_what_may_not(config):
    changed = copy.deepcopy(config)
    changed["training"]["steps"] += 1
    changed["evaluation"]["both"] = True  # another figure beside those that decide
    check_same_config(RUN, config, changed)
    changed["training"]["encoder_learning_rate"] = 1e-5
    changed["training"]["freeze"] = {"until": "encoder", "batch_norm": "trained"}
    with pytest.raises(UserError) as error:
        check_same_config(RUN, config, changed)
    told = str(error.value)
    assert "training.encoder_learning_rate: None -> 1e-05" in told
    assert "training.freeze.until: None -> encoder" in told and "training.steps:" not in told


def test_a_checkpoint_older_than_a_setting_has_its_default(config):
    old = copy.deepcopy(config)
    for section, names in {
        "training": ("freeze", "encoder_learning_rate"),
        "model": ("init", "preprocessing"),
        "evaluation": ("metric", "voc_iou"),
    }.items():
        for name in names:
            del old[section][name]
    check_same_config(RUN, old, config)
    changed = copy.deepcopy(config)
    changed["evaluation"]["voc_iou"] = 0.7
    with pytest.raises(UserError, match=r"evaluation\.voc_iou: 0\.5 -> 0\.7"):
        check_same_config(RUN, old, changed)


def test_a_config_of_another_version_is_compared_as_it_stands(config):
    old = copy.deepcopy(config)
    old["training"]["forgotten"] = 3
    with pytest.raises(UserError, match=r"training\.forgotten: 3 -> None"):
        check_same_config(RUN, old, config)
