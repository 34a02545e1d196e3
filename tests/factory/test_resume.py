"""What may change when a run goes on, and what is said of it."""

import copy
import json
from pathlib import Path

import pytest
import torch

import main as training
import validation
from tests.train import toys
from yolo.config import REPOSITORY_ROOT, config_from_dict, load_config
from yolo.errors import UserError
from yolo.factory import initial_weights, resume
from yolo.factory.detector import build_detector
from yolo.factory.resume import describe_changed_data, describe_origin
from yolo.train.checkpoint import load_checkpoint, save_checkpoint
from yolo.train.run_folder import Origin

RUN = Path("logs/run")


def quickstart(*overrides):
    return load_config(REPOSITORY_ROOT / "configs/quickstart.yaml", overrides)


@pytest.fixture
def config():
    return quickstart().data


@pytest.fixture
def other(config):
    return copy.deepcopy(config)


def check_same_config(before, now):
    resume.check_same_config(RUN, before, config_from_dict(now))


def describe(before, config):
    origin = Origin(RUN / "last.pt", {"config": before, "progress": {"step": 30}}, None)
    return list(describe_origin(origin, config))


def test_what_may_change_and_what_may_not(config, other):
    other["training"]["steps"] += 1
    other["evaluation"]["both"] = True  # another figure beside those that decide
    other["data"]["on_error"] = "skip"  # what stopped on a bad image may go on without it
    other["data"]["max_bad_share"] = 0.5
    check_same_config(config, other)
    other["training"]["encoder_learning_rate"] = 1e-5
    other["training"]["freeze"] = {"until": "encoder", "batch_norm": "trained"}
    with pytest.raises(UserError) as error:
        check_same_config(config, other)
    message = str(error.value)
    assert "training.encoder_learning_rate: None -> 1e-05" in message
    assert "training.freeze.until: None -> encoder" in message and "training.steps:" not in message


def test_data_may_stand_elsewhere(config, other):
    other["data"]["train"]["root"] = "/new"
    other["data"]["test"] = None
    check_same_config(config, other)
    lines = describe(config, config_from_dict(other))
    old = config["data"]["train"]["root"]
    assert f"data.train.root: {old} -> /new" in lines
    assert lines[-1].endswith("the run goes on exactly if images and boxes are too")
    other["data"]["val"]["seed"] = 9
    with pytest.raises(UserError, match=r"data\.val\.seed: 0 -> 9; only .* and the paths of data"):
        check_same_config(config, other)


def test_a_checkpoint_older_than_a_setting_has_its_default(config, other):
    for section, names in {
        "training": ("freeze", "encoder_learning_rate"),
        "model": ("init", "preprocessing"),
        "evaluation": ("metric", "voc_iou"),
    }.items():
        for name in names:
            del other[section][name]
    check_same_config(other, config)
    config["evaluation"]["voc_iou"] = 0.7
    with pytest.raises(UserError, match=r"evaluation\.voc_iou: 0\.5 -> 0\.7"):
        check_same_config(other, config)


def test_a_config_of_another_version_is_compared_as_it_stands(config, other):
    other["training"]["forgotten"] = 3
    with pytest.raises(UserError, match=r"training\.forgotten: 3 -> None"):
        check_same_config(other, config)


@pytest.mark.parametrize(
    ("schedule", "was", "now"),
    [
        # half a cosine from the peak at 0 to 1/250000 of it, at 3/4 and at 3/8 of the way
        ("{type: one_cycle, warm_share: 0.0}", "1.46e-01", "6.91e-01"),
        ("{type: linear, end_factor: 0.0}", "2.50e-01", "6.25e-01"),
    ],
)
def test_a_schedule_that_is_stretched_is_described(schedule, was, now):
    overrides = [f"training.schedule={schedule}", "training.optimizer.learning_rate=1.0"]
    overrides += ["data.mosaic={off_for_last: 41}"]
    before, longer = (quickstart(*overrides, f"training.steps={steps}") for steps in (41, 81))
    lines = describe(before.data, longer.config)
    assert lines[0] == "training.steps: 41 -> 81"
    assert f"at step 30 the learning rate is {now} where it was to be {was};" in lines[1]
    assert lines[2:] == ["  data.mosaic ends at step 40 instead of 0"]
    assert describe(before.data, before.config) == []


def test_other_schedules_do_not_depend_on_the_number_of_steps(config):
    longer = quickstart("training.steps=77")
    assert config["training"]["schedule"]["type"] == "cosine_restarts"
    assert config["data"]["mosaic"] is None
    (line,) = describe(config, longer.config)
    assert line.endswith("-> 77")


FINGERPRINT = {"images": 7000, "boxes": 40, "order": "a", "truth": "b", "files": "c"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"images": 6000, "boxes": 39}, "7000 images -> 6000, 40 boxes -> 39"),
        ({"order": "x"}, "other ids, image sizes or order"),
        ({"files": "y"}, "image files of other sizes in bytes"),
        ({"truth": "x", "order": "y"}, "other ids, image sizes or order, other boxes or labels"),
    ],
)
def test_data_that_changed_is_refused_unless_accepted(changes, told):
    now = {"train": FINGERPRINT, "val": FINGERPRINT | changes}
    origin = Origin(RUN / "last.pt", {"data": {"train": FINGERPRINT, "val": FINGERPRINT}}, None)
    older = Origin(RUN / "last.pt", {}, None)
    assert list(describe_changed_data(older, now, accepted=False)) == []
    strange = Origin(RUN / "last.pt", {"data": {"train": 3, "val": None}}, None)
    assert list(describe_changed_data(strange, now, accepted=False)) == []
    line = f"data.val is not what {RUN / 'last.pt'} was trained on: {told}"
    lines = list(describe_changed_data(origin, now, accepted=True))
    assert lines == ([f"{line}; going on with it, as asked for"] if told else [])
    if told:
        with pytest.raises(UserError, match=r"; put the old data back, or add --accept"):
            list(describe_changed_data(origin, now, accepted=False))


def test_a_prepared_run_is_refused_before_its_model_is_built(tmp_path, capsys, monkeypatch):
    """Of a config that describes a model of gigabytes the tensors may be one number each."""
    assert training.main([*toys.quickstart(tmp_path), "--name=run", "training.steps=1"]) == 0
    last = tmp_path / "run/last.pt"
    content = load_checkpoint(last)
    name, weight = next(iter(content["model"].items()))
    content["model"][name] = torch.zeros(()).expand(weight.shape)
    save_checkpoint(last, content)
    places = []

    def build(*given):
        places.append(torch.get_default_device().type)
        return build_detector(*given)

    monkeypatch.setattr(initial_weights, "build_detector", build)
    capsys.readouterr()
    assert training.main(["--resume", str(tmp_path / "run"), "--gpu=cpu"]) == 1
    assert f"{last}: its weights do not fit the model" in capsys.readouterr().err
    assert places == ["meta"]


def test_a_run_on_a_coco_set_whose_ids_are_texts_goes_on(tmp_path):
    argv = [*toys.quickstart(tmp_path), "training.steps=1", "--name"]
    assert training.main([*argv, "drawn"]) == 0
    sections = []
    for split, folder in (("train", "train-8-0"), ("val", "val-4-0")):
        path = tmp_path / "shapes" / folder / "instances.json"
        coco = json.loads(path.read_text())
        for entry, key in (
            *((category, "id") for category in coco["categories"]),
            *((annotation, "category_id") for annotation in coco["annotations"]),
        ):
            entry[key] = f"class {entry[key]}"
        path.write_text(json.dumps(coco))
        places = f"annotations: {path}, images: {path.parent}"
        sections.append(f"data.{split}={{type: coco, {places}}}")
    own = [each for each in argv if not each.startswith(("data.train.", "data.val."))]
    assert training.main([*own, "texts", *sections]) == 0
    run = tmp_path / "texts"
    assert load_checkpoint(run / "last.pt")["category_ids"][0] == "class 1"
    assert training.main(["--resume", str(run), "--gpu=cpu", "training.steps=2"]) == 0
    assert validation.main([str(run), "--gpu=cpu"]) == 0
