"""Data sets from a config."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from tests.data.voc_files import voc_object, voc_xml, write_image, write_voc
from yolo.build import data as build
from yolo.config import REPOSITORY_ROOT, Config, config_from_dict
from yolo.config.schema.classification import ClassDataset
from yolo.config.schema.data import Dataset
from yolo.errors import UserError

SECTIONS = [section for kind in (Dataset, ClassDataset) for section in get_args(get_args(kind)[0])]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of these tests writes into the repository."""
    cache = tmp_path / "cache"
    for opened in build.DATASETS.values():
        if hasattr(opened, "keywords"):
            monkeypatch.setitem(opened.keywords, "cache", cache)
    return cache


def make_config(**data: Any) -> Config:
    return config_from_dict(
        {
            "model": {
                "encoder": {"type": "darknet_tiny"},
                "neck": {"type": "yolov3"},
                "head": {"type": "yolov3"},
            },
            "loss": {"type": "yolov3"},
            "data": data,
            "training": {
                "steps": 1,
                "optimizer": {"type": "adam", "learning_rate": 1e-3},
                "schedule": {"type": "step", "milestones": [], "factors": [1]},
            },
            "evaluation": {"every": 1},
        }
    )


def test_every_type_of_the_schema_opens_with_its_fields() -> None:
    kinds = {get_args(section.model_fields["type"].annotation)[0]: section for section in SECTIONS}
    assert kinds.keys() == build.DATASETS.keys()
    for kind, section in kinds.items():
        accepted = set(inspect.signature(build.DATASETS[kind]).parameters) - {"cache"}
        assert accepted == {*section.model_fields, "class_names"} - {"type"}, kind


def test_splits_of_every_file_format(tmp_path: Path, own_cache: Path) -> None:
    objects = [voc_object("dog", (1, 1, 30, 20)), voc_object("cat", (1, 1, 60, 40))]
    write_voc(tmp_path / "voc", {"1": voc_xml(*objects), "2": voc_xml()}, "train")
    for name in ("1.jpg", "2.jpg"):
        write_image(tmp_path / "images" / name)
        text = (tmp_path / "labels" / name).with_suffix(".txt")
        text.parent.mkdir(exist_ok=True)
        text.write_text("1 0.25 0.25 0.5 0.5\n")
    (tmp_path / "list.csv").write_text("1.jpg,1.txt\n2.jpg,2.txt\n")
    folders = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels")}
    config = make_config(
        train={"type": "voc", "root": str(tmp_path / "voc"), "image_sets": ["train"]},
        val={"type": "yolo_text", **folders},
        test={"type": "csv_list", "list": str(tmp_path / "list.csv"), **folders},
        class_names=["cat", "dog"],
        limit=1,
    )
    train, val, test = (build.build_dataset(config, split) for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [1, 1, 2]
    for split, dataset in (("val", val), ("test", test)):
        ids, names = train.category_ids, train.class_names
        build.check_same_classes(dataset, split, ids, names, owner="data.train")
        assert dataset.load(0).boxes_xyxy_px.tolist() == [[0, 0, 30, 20]]
    assert train.load(0).labels.tolist() == [1, 0]
    assert len(list(own_cache.glob("*.npz"))) == 3


def test_classes_that_were_found_and_differ_can_be_named(tmp_path: Path) -> None:
    write_voc(tmp_path, {"1": voc_xml(voc_object("dog", (1, 1, 30, 20)))}, "train")
    write_voc(tmp_path, {"2": voc_xml(voc_object("cat", (1, 1, 30, 20)))}, "val")
    spec = {"type": "voc", "root": str(tmp_path)}
    data = {"train": {**spec, "image_sets": ["train"]}, "val": {**spec, "image_sets": ["val"]}}
    config = make_config(**data)
    train, val = build.build_dataset(config, "train"), build.build_dataset(config, "val")
    with pytest.raises(UserError, match=r"differ from number 1 on; .*; data\.class_names gives"):
        build.check_same_classes(
            val, "val", train.category_ids, train.class_names, owner="data.train"
        )


@pytest.mark.parametrize(
    ("image_sets", "name"),
    [
        (["2007/test"], "test"),
        (["2007/trainval", "2012/trainval"], "trainval"),
        (["2007/test", "2012/val"], "val"),
        (["*"], "val"),
    ],
)
def test_the_image_set_that_voc_names_a_file_after(image_sets: list[str], name: str) -> None:
    voc = {"type": "voc", "root": "/voc", "image_sets": image_sets}
    shapes = {"type": "shapes", "images": 1, "split": "train"}
    config = make_config(train=shapes, val=voc)
    assert build.image_set(config, "val") == name
    assert build.image_set(config, "train") == "train"


def test_the_voc_config_has_the_classes_in_darknets_order() -> None:
    data = yaml.safe_load((REPOSITORY_ROOT / "configs/base/voc.yaml").read_text())["data"]
    assert len(data["class_names"]) == len(set(data["class_names"])) == 20
    assert data["class_names"] == sorted(data["class_names"])
    assert [data["class_names"][i] for i in (0, 6, 14, 19)] == [
        "aeroplane",
        "car",
        "person",
        "tvmonitor",
    ]
    sets = [
        image_set for split in ("train", "val", "test") for image_set in data[split]["image_sets"]
    ]
    assert sets == ["2007/trainval", "2012/trainval", "2007/test", "2007/test"]


def test_the_voc_config_fits_real_images(real_data: Path) -> None:
    base = yaml.safe_load((REPOSITORY_ROOT / "configs/base/voc.yaml").read_text())["data"]
    spec = {"type": "voc", "root": str(real_data / "voc-sample"), "image_sets": ["*"]}
    config = make_config(train=spec, val=spec, class_names=base["class_names"], train_share=0.08)
    train = build.build_dataset(config, "train")
    assert len(train) == 8
    assert list(train.class_names) == base["class_names"]
