"""The generated JSON files: current, and of one mind with the loader."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.config.conftest import CONFIGS, EXPERIMENTS, FILES
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.config.read import read_yaml_file
from yolo.config.schema import TASKS
from yolo.config.schema.transforms import transforms
from yolo.data.transforms.transform_list import TRANSFORMS

SCHEMA_FILE = CONFIGS / "schema.json"


@pytest.fixture(scope="module")
def editor() -> Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_generated_files_are_current():
    command = [sys.executable, "scripts/make_schema.py", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_editors_accept_every_file_and_find_their_schema(path, editor):
    wrong = [error.message for error in editor.iter_errors(read_yaml_file(path, path.name))]
    assert not wrong, f"{path}: configs/schema.json does not accept it: {wrong}"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    start = "# yaml-language-server: $schema="
    target = (path.parent / first.removeprefix(start)).resolve()
    wanted = start + os.path.relpath(SCHEMA_FILE, path.parent)
    assert first.startswith(start) and target == SCHEMA_FILE, f"{path}: line 1 must be {wanted!r}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_json_schema_accepts_every_resolved_config(path, editor):
    data = load_config(path).data
    assert not list(editor.iter_errors(data))
    schema = TASKS[data["task"]].model_json_schema()
    assert not list(Draft202012Validator(schema).iter_errors(data))


@pytest.mark.parametrize(
    "text",
    [
        "training: {stepz: 3}",
        "training: {steps: many}",
        "model: {encoder: {type: darknet35}}",
        "data: {augment: [{type: Affine, scal: 1}]}",
        "data: {augment: [{type: RandomCrop, height: 32}]}",
        "data: {augment: [{type: HSVJitter, hue: 0.6}]}",
        "extends: {a: b}",
    ],
)
def test_editors_mark_what_is_wrong(text, editor):
    assert list(editor.iter_errors(yaml.safe_load(text)))


def test_transforms_of_the_list_and_no_others():
    assert list(transforms()) == sorted(TRANSFORMS)
    assert len(TRANSFORMS) == 22


def test_default_transforms():
    resolved = load_config(CONFIGS / "yolov3" / "darknet53_coco.yaml")
    chances = {item["type"]: item["p"] for item in resolved.data["data"]["augment"]}
    rare = {"ToGray": 0.05, "HorizontalFlip": 0.5, "Affine": 1}
    common = (
        "MultiplicativeNoise CLAHE Posterize RandomBrightnessContrast RGBShift ColorJitter "
        "GaussNoise Haze Resize"
    )
    assert chances == {**dict.fromkeys(common.split(), 0.1), **rare}
