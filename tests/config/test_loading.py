"""What is read, merged, made absolute and remembered."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.config.conftest import CONFIGS, EXPERIMENTS, QUICKSTART
from yolo.config import (
    REPOSITORY_ROOT,
    ConfigError,
    config_from_dict,
    load_config,
    resolved_yaml,
)
from yolo.config.load import portable, with_overrides
from yolo.config.read import read_yaml
from yolo.config.schema import TASKS


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_experiment_loads(path):
    resolved = load_config(path)
    assert isinstance(resolved.config, TASKS[resolved.config.task])
    assert resolved.notes == ()
    assert resolved.config == config_from_dict(resolved.data)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_portable_config_holds_no_folder_of_this_machine(path, tmp_path):
    """And leads to the same files below the repository."""
    resolved = load_config(path)
    values = portable(resolved.config.model_dump())
    assert str(REPOSITORY_ROOT) not in json.dumps(values)
    assert with_overrides(values, (), path) == resolved.config
    there = load_config(path, [f"logging.directory={tmp_path / 'there'}"])
    assert portable(there.config.model_dump())["logging"]["directory"] == "data/there"


def test_every_base_is_extended_by_an_experiment():
    assert len(EXPERIMENTS) >= 11
    used = {origin for path in EXPERIMENTS for origin in load_config(path).origins.values()}
    bases = {path.relative_to(REPOSITORY_ROOT).as_posix() for path in CONFIGS.glob("base/*.yaml")}
    assert bases and bases <= used


def test_settings_of_the_reference_run():
    for encoder in ("darknet53", "mobilenet_v3_large", "mobilenet_v3_small"):
        config = load_config(CONFIGS / "yolov3" / f"{encoder}_coco.yaml").config
        training = config.training
        assert config.model.encoder.type == encoder
        assert (config.data.image_size, training.batch_size, training.steps) == (416, 64, 150_000)
        adam = {"learning_rate": 1e-4, "weight_decay": 1e-4, "betas": (0.9, 0.999)}
        assert training.optimizer.model_dump() == {"type": "adam", **adam}
        steps = {"milestones": (75_000, 100_000, 125_000), "factors": (1, 0.5, 0.1, 0.05)}
        assert training.schedule.model_dump() == {"type": "step", **steps, "warmup_steps": 1000}
        assert config.evaluation.every == 5000
        for t_mult in (1, 2):
            file = CONFIGS / "yolov3" / f"{encoder}_coco_cosine_t{t_mult}.yaml"
            variant = load_config(file).config
            cosine = {"t_0": 10_000, "t_mult": t_mult, "eta_min": 1e-6, "warmup_steps": 1000}
            schedule = variant.training.schedule.model_dump()
            assert schedule == {"type": "cosine_restarts", **cosine}
            same = {"schedule": training.schedule}
            assert variant.training.model_copy(update=same) == training


def test_later_bases_win_and_mappings_merge(write):
    write("training: {steps: 500, patience: 3, optimizer: {learning_rate: 0.5}}", name="a.yaml")
    write("training: {steps: 700}\ndata: {class_names: [x, y]}", name="b/b.yaml", whole=True)
    file = write("extends: [a.yaml, b/b.yaml]\ndata: {class_names: [z]}", whole=True)
    resolved = load_config(file, ["training.patience=4"])
    training = resolved.config.training
    assert (training.steps, training.patience) == (700, 4)
    assert training.optimizer.learning_rate == 0.5
    assert resolved.config.data.class_names == ("z",)
    assert (
        resolved.origins.items()
        >= {
            "training.steps": f"{file.parent}/b/b.yaml",
            "training.patience": "command line",
            "training.optimizer.learning_rate": f"{file.parent}/a.yaml",
            "training.optimizer.type": "configs/quickstart.yaml",
            "training.optimizer.weight_decay": "default",
            "data.class_names": f"{file.parent}/test.yaml",
        }.items()
    )


def test_another_type_replaces_the_mapping(write):
    file = write("training: {optimizer: {type: sgd, learning_rate: 0.1}}")
    assert load_config(file).config.training.optimizer.momentum == 0.9
    # In any order: all overrides together are laid over the file.
    overrides = ["model.encoder.weights=imagenet", "model.encoder.type=mobilenet_v3_small"]
    encoder = load_config(file, overrides).data["model"]["encoder"]
    assert encoder == {"type": "mobilenet_v3_small", "weights": "imagenet"}


def test_class_names_go_with_the_training_set_of_another_type(write):
    voc = "{type: voc, root: r, image_sets: [a]}"
    text = "{type: yolo_text, images: i, labels: l}"
    write(f"data: {{train: {voc}, val: {voc}, class_names: [a, b]}}", "base.yaml")
    for changes, names in (
        (f"train: {text}, val: {text}", None),
        (f"train: {text}, val: {text}, class_names: [c]", ("c",)),
        (f"val: {text}", ("a", "b")),
        ("train: {type: voc, root: other}", ("a", "b")),
    ):
        path = write(f"extends: base.yaml\ndata: {{{changes}}}", "mine.yaml", whole=True)
        resolved = load_config(path)
        assert resolved.config.data.class_names == names
        assert any("class_names: ['a', 'b'] of" in n for n in resolved.notes) == (names is None)
        above = write("extends: mine.yaml\ndata: {image_size: 64}", whole=True)
        assert load_config(above).config.data.class_names == names


@pytest.mark.parametrize(
    ("changes", "is_noted"),
    [
        ("train: {labels: other}", True),
        ("train: {images: other}", False),
        ("train: {labels: other}, class_names: [c, d]", False),
        ("val: {labels: other}", False),
    ],
)
def test_class_names_that_number_the_classes_of_other_labels_are_noted(write, changes, is_noted):
    text = "{type: yolo_text, images: i, labels: l}"
    write(f"data: {{train: {text}, val: {text}, class_names: [a, b]}}", "base.yaml")
    path = write(f"extends: base.yaml\ndata: {{{changes}}}", "mine.yaml", whole=True)
    note = (
        f"data.class_names: ['a', 'b'] of {path.with_name('base.yaml')} name the classes of "
        f"data.train.labels of {path} too: set them, if they differ"
    )
    assert load_config(path).notes == ((note,) if is_noted else ())


def test_relative_paths_start_from_where_they_are_written(write):
    write("data: {train: {root: ../drawn}}", name="sub/base.yaml")
    file = write("extends: sub/base.yaml\ndata: {val: {root: /tmp/drawn}}", whole=True)
    resolved = load_config(file, ["logging.directory=runs/here"])
    config = resolved.config
    assert config.data.train.root == file.parent / "drawn"
    assert config.data.val.root == Path("/tmp/drawn")
    assert config.data.test.root == REPOSITORY_ROOT / "data" / "shapes"
    assert config.logging.directory == REPOSITORY_ROOT / "runs" / "here"
    assert resolved.data["data"]["train"]["root"] == str(file.parent / "drawn")


def test_working_directory_does_not_matter(tmp_path, monkeypatch):
    given = (CONFIGS / "yolov3" / "darknet53_coco.yaml", ["data.train.images=x"])
    here = load_config(*given)
    monkeypatch.chdir(tmp_path)
    assert here == load_config(*given)
    assert here.config.data.train.images == REPOSITORY_ROOT / "x"
    assert here.config.data.val.images == REPOSITORY_ROOT / "data" / "coco" / "val2017"


@pytest.mark.parametrize("value", ["imagenet", None, "weights/mine.pth"])
def test_weights_of_a_mobilenet(value):
    override = f"model.encoder.weights={'null' if value is None else value}"
    resolved = load_config(CONFIGS / "yolov3" / "mobilenet_v3_small_coco.yaml", [override])
    weights = resolved.config.model.encoder.weights
    assert weights == (REPOSITORY_ROOT / value if value and "/" in value else value)


def test_values_of_overrides_are_yaml(write):
    overrides = [
        "training.optimizer.learning_rate=1e-3",
        "training.ema={decay: 0.99}",
        "data.limit=[3, 5]",
        "data.class_names=[yes, no, 1e, '2']",
        "training.gradient_clip=",
    ]
    config = load_config(write("training: {gradient_clip: 1}"), overrides).config
    assert config.training.optimizer.learning_rate == 1e-3
    assert config.training.ema.decay == 0.99
    assert config.data.limit == (3, 5)
    assert config.data.class_names == ("yes", "no", "1e", "2")
    assert config.training.gradient_clip is None


SCALARS = {
    "1e-4": 1e-4,
    "5E3": 5000.0,
    "-1.5e+2": -150.0,
    ".5": 0.5,
    "1_000": 1000,
    "010": 10,
    "0x1F": 31,
    "0o17": 15,
    "1:30": "1:30",
    "no": "no",
    "2020-01-01": "2020-01-01",
    "TRUE": True,
    "~": None,
    "e5": "e5",
    "{on: 1, 2: x}": {"on": 1, "2": "x"},
    "{a: &a {b: 1}, c: {<<: *a, d: 2}}": {"a": {"b": 1}, "c": {"b": 1, "d": 2}},
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text):
    read = read_yaml(text, "text")
    assert (read, type(read)) == (SCALARS[text], type(SCALARS[text]))


def test_resolved_yaml_loads_to_the_same_config(write):
    names = ["1e-4", "null", "a: b", "tür # 2", "true", "012", "line\nbreak", "'", "日本", ""]
    values = {"data": {"class_names": names}, "loss": {"class_weights": {"1": 2, "x.y": 3}}}
    extending = {"extends": str(QUICKSTART), **values}
    before = load_config(write(json.dumps(extending), whole=True))
    assert before.config.data.class_names == tuple(names)
    saved = resolved_yaml(before)
    again = load_config(write(saved, name="run/config.yaml", whole=True))
    assert again.config == before.config
    assert again.data == before.data
    assert yaml.safe_load(saved).keys() == before.data.keys()


def test_resolved_yaml_has_the_origin_of_each_value():
    overrides = ["seed=7", "data.image_size=96"]
    lines = resolved_yaml(load_config(QUICKSTART, overrides)).splitlines()
    assert set(lines) >= {
        "seed: 7  # command line",
        "  image_size: 96  # command line",
        "    type: cosine_restarts  # configs/quickstart.yaml",
        "  compile: false  # default",
        "  augment:  # configs/quickstart.yaml",
        "    - {type: HorizontalFlip, p: 0.5}",
    }
    commented = [line for line in lines if "  # " in line]
    assert len(commented) == len(load_config(QUICKSTART).origins)


def test_labels_of_a_box_are_saved_and_those_of_before_stay():
    """New runs score all classes; a saved config without the key is from before that."""
    for path in EXPERIMENTS:
        resolved = load_config(path)
        if resolved.config.task == "detect":
            assert resolved.data["evaluation"]["labels"] == "all_classes"
            resolved.data["evaluation"].pop("labels")
            assert config_from_dict(resolved.data).evaluation.labels == "best_class"


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config(QUICKSTART).config.seed = 3


def test_every_field_has_a_description():
    for model in TASKS.values():
        schema = model.model_json_schema()
        sections = {"": schema, **schema["$defs"]}
        del sections["Transform"]
        for name, section in sections.items():
            for field, inner in section["properties"].items():
                assert inner.get("description"), f"{name}.{field}"


def test_no_torch_is_imported():
    code = (
        "import sys, yolo.config, yolo.config.command_line\n"
        "yolo.config.load_config(sys.argv[1])\n"
        "heavy = {'torch', 'numpy', 'cv2', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, str(QUICKSTART)]
    done = subprocess.run(command, cwd=REPOSITORY_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FREEZE = "what is frozen keeps random weights, for neither model.encoder.weights nor "
NOTES = {
    "training.steps=1200 training.schedule.t_0=1300": "training.schedule.t_0: the rate does not "
    "fall to its end, for the first cycle has 1,300 steps and training.steps is 1,200",
    "training.steps=199 training.schedule={type: linear, warmup_steps: 100}": "training.schedule."
    "warmup_steps: 100 are more than half, for training.steps is 199",
    "training.steps=20 training.schedule={type: step, milestones: [10, 20, 1000], factors: "
    "[1, 1, 1, 1], warmup_steps: 0}": "training.schedule.milestones: 20, 1,000 never come, for "
    "training.steps is 20",
    "data.mixup={off_for_last: 1170}": "data.mixup: is off in all steps: off_for_last is 1,170, "
    "training.steps is 1,170",
    "data.multi_scale={min: 96, max: 128, until_step: 1170}": "data.multi_scale.until_step: 1,170 "
    "never comes, for training.steps is 1,170",
    "training.freeze={unfreeze_at: 1170} model.encoder.weights=x": "training.freeze.unfreeze_at: "
    "1,170 never comes, for training.steps is 1,170",
    "training.freeze={until: encoder}": f"training.freeze: {FREEZE}model.init.weights is set",
    "model.encoder={type: darknet53, weights: x} training.freeze={until: encoder}": None,
    "model.init.weights=x training.freeze={until: encoder}": None,
}


@pytest.mark.parametrize("line", NOTES)
def test_what_has_no_effect_is_noted(line):
    overrides = re.split(r" (?=[a-z_.0-9]+=)", line)
    assert load_config(QUICKSTART, overrides).notes == tuple(filter(None, [NOTES[line]]))


def test_settings_that_went_with_their_type_are_noted(write):
    """Only those that the new type has too, with another default."""
    file = write("training: {optimizer: {weight_decay: 0.5, betas: [0.9, 0.999]}}")
    adamw = "training.optimizer={type: adamw, learning_rate: 1"
    (note,) = load_config(file, [adamw + "}"]).notes
    assert note == (
        "training.optimizer.type: 'adam' -> 'adamw': the default of weight_decay is 0.0, not 0.5 "
        f"as in {file}"
    )
    assert load_config(file, [adamw + ", weight_decay: 0.5}"]).notes == ()


def test_overrides_of_a_saved_config():
    saved = load_config(QUICKSTART).data
    overrides = ["data.val.images=7", "data.train.root=here"]
    changed = with_overrides(saved, overrides, Path("best.pt")).model_dump(mode="json")
    assert changed["data"]["val"] == {**saved["data"]["val"], "images": 7}
    assert changed["data"]["train"]["root"] == str(REPOSITORY_ROOT / "here")
    assert {**changed, "data": None} == {**saved, "data": None}
    with pytest.raises(ConfigError, match=r"^command line: data\.val\.size: 3: unknown key"):
        with_overrides(saved, ["data.val.size=3"], Path("best.pt"))
