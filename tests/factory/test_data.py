"""Data sets from a config."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml

from tests import coco_files, detectors
from tests.data.voc_files import voc_object, voc_xml, write_image, write_voc
from tests.detectors import ONE_RANK
from yolo.config import REPOSITORY_ROOT, Config
from yolo.config.schema.classification import ClassDataset
from yolo.config.schema.data import Dataset
from yolo.data.sampling import RandomSizes
from yolo.data.transforms.augment import MixUp, Mosaic
from yolo.errors import UserError
from yolo.factory import data as build

SECTIONS = [section for kind in (Dataset, ClassDataset) for section in get_args(get_args(kind)[0])]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of these tests writes into the repository."""
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    return build.CACHE


def make_config(**data: Any) -> Config:
    return detectors.make_config(data=data)


def test_every_type_of_the_schema_opens_with_its_fields() -> None:
    kinds = {get_args(section.model_fields["type"].annotation)[0]: section for section in SECTIONS}
    assert kinds.keys() == build.DATASETS.keys()
    for kind, opened in build.DATASETS.items():
        sections = [section for k, section in kinds.items() if build.DATASETS[k] is opened]
        fields = {field for section in sections for field in section.model_fields}
        accepted = set(inspect.signature(opened).parameters)
        by_headers = {"cache", "on_bad_image"} if kind in build.SIZED_BY_HEADERS else set()
        assert accepted == fields - {"type"} | {"class_names"} | by_headers, kind


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
        assert build.match_classes(dataset, split, ids, names, owner="data.train") is dataset
        assert dataset.load(0).boxes_xyxy_px.tolist() == [[0, 0, 30, 20]]
    assert train.load(0).labels.tolist() == [1, 0]
    assert len(list(own_cache.glob("*.npz"))) == 3


def test_broken_headers_are_passed_over_up_to_the_share(tmp_path: Path, caplog) -> None:
    """Two of ten images; the run goes on without them, and names each when it meets it."""
    write_voc(tmp_path, {f"{n}": voc_xml(voc_object("dog", (1, 1, 30, 20))) for n in range(10)})
    (tmp_path / "JPEGImages/3.jpg").write_bytes(b"no image")
    (tmp_path / "JPEGImages/7.jpg").unlink()
    voc = {"type": "voc", "root": str(tmp_path), "image_sets": ["train"]}
    data: dict[str, Any] = {"train": voc, "val": voc, "image_size": 32, "workers": 0}
    with pytest.raises(UserError, match=r"the size of the image .*3\.jpg cannot be read"):
        build.build_dataset(make_config(**data), "val")
    data["on_error"] = "skip"
    strict = make_config(**data, max_bad_share=0.1)
    allowed = r"2 of the 10 .* data\.max_bad_share 0.1 allows 1; .*7\.jpg"
    with pytest.raises(UserError, match=allowed):
        build.build_dataset(strict, "val")
    config = make_config(**data, max_bad_share=0.2)
    dataset = build.build_dataset(config, "val")
    assert caplog.messages == [
        "2 of the 10 images of data.val cannot be read; each is named where it is met"
    ]
    evaluation = build.build_evaluation_batches(config, dataset, ONE_RANK)
    for _ in range(2):
        batches = [*evaluation]
        assert sum(len(batch) for batch in batches) == 10
        assert sum(len(batch.targets) for batch in batches) == 10
    messages = caplog.messages[1:]
    assert len(messages) == 2 and "3.jpg" in messages[0] and "7.jpg" in messages[1]
    batches = build.build_training_batches(strict, dataset, ONE_RANK).from_step(0)
    for each in (build.build_evaluation_batches(strict, dataset, ONE_RANK), batches):
        with pytest.raises(UserError, match=r"repair them or raise data\.max_bad_share"):
            next(iter(each))


@pytest.mark.parametrize(
    ("val", "labels", "ids"),  # names by id; train has 1: cat, 2: dog, 3: fox; val's boxes cat, dog
    [
        ({1: "cat", 2: "dog", 3: "fox"}, [0, 1], (1, 2, 3)),
        ({1: "cat", 2: "dog"}, [0, 1], (1, 2, 3)),
        ({3: "cat", 1: "dog"}, [0, 1], (3, 1, 4)),  # dog and cat change places, 3 is taken
        ({5: "cat", 2: "dog", 9: "void", 1: "fox"}, [0, 1], (5, 2, 1)),
        ({5: "cat", 2: "dog", 9: "void"}, [0, 1], (5, 2, 10)),
    ],
)
def test_names_decide_what_a_label_means(val, labels, ids, tmp_path, caplog) -> None:
    """And a data set's own ids stay those of its files."""
    names = {1: "cat", 2: "dog", 3: "fox"}
    picture = np.zeros((40, 60, 3), np.uint8)
    config: dict[str, Any] = {}
    for split, classes in (("train", names), ("val", val)):
        (tmp_path / split).mkdir()
        config[split] = coco_files.write_coco(tmp_path / split, {1: picture}, [])
        path = Path(config[split]["annotations"])
        data = json.loads(path.read_text())
        data["categories"] = [{"id": i, "name": name} for i, name in classes.items()]
        own = {name: i for i, name in classes.items()}
        data["annotations"] = [
            {"id": own[name], "image_id": 1, "category_id": own[name], "bbox": [1, 2, 3, 4]}
            for name in ("cat", "dog")
        ]
        path.write_text(json.dumps(data))
    train, val = (build.build_dataset(make_config(**config), split) for split in ("train", "val"))
    of_train = train.category_ids, train.class_names
    matched = build.match_classes(val, "val", *of_train, owner="data.train")
    assert (matched.class_names, matched.category_ids) == (("cat", "dog", "fox"), ids)
    assert matched.annotations.labels.tolist() == labels
    truth = matched.ground_truth()
    assert [entry["category_id"] for entry in truth["annotations"]] == labels
    assert [entry["name"] for entry in truth["categories"]] == ["cat", "dog", "fox"]
    lacks = f"data.val: {val.source} lacks 'fox' of data.train; what is of these classes is left"
    told = [lacks in message for message in caplog.messages]
    assert told == [True] * ("fox" not in val.class_names)
    sentence = rf"data\.val: {val.source} has the classes .*, which a\.pt lacks \(its classes are f"
    with pytest.raises(UserError, match=sentence):
        build.match_classes(val, "val", [3], ["fox"], owner="a.pt")
    if (val.category_ids, val.class_names) != of_train:
        restore = r"data\.train: the classes of .* are no longer those of a\.pt"
        with pytest.raises(UserError, match=restore):
            build.match_classes(val, "train", *of_train, owner="a.pt")


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


FULL_CACHE = {
    "none": None,
    "ram": "data.cache: 0 of 4 images fit into memory of data.cache_limit_gb; the others",
    "disk": "it has reached data.cache_limit_gb (1e-09 GB); those missing",
}


@pytest.mark.parametrize("kind", FULL_CACHE)
def test_training_keeps_images_of_its_largest_size(kind, tmp_path, own_cache, monkeypatch, caplog):
    """128 px are the largest of the sizes; the drawn images are larger."""
    monkeypatch.setattr(build, "TrainingBatches", lambda dataset, **others: dataset)
    shapes = {"type": "shapes", "root": str(tmp_path), "images": 4, "split": "train"}
    data: dict[str, Any] = {
        "train": shapes,
        "val": shapes,
        "image_size": 96,
        "multi_scale": {"min": 64, "max": 128, "step": 64, "every": 1},
        "cache": kind,
        "augment": [],
        "workers": 0,
    }
    config = make_config(**data)
    dataset = build.build_dataset(config, "train")
    images: Any = build.build_training_batches(config, dataset, ONE_RANK)
    largest = max(max(images.load(index).image.shape) for index in range(4))
    assert max(max(dataset.load(index).image.shape) for index in range(4)) > 128
    assert (largest == 128) == (kind != "none")
    assert len(list(own_cache.glob("images/*/*.pixels"))) == (4 if kind == "disk" else 0)
    assert not caplog.messages
    monkeypatch.setattr(build, "CACHE", tmp_path / "another")
    config = make_config(**data, cache_limit_gb=1e-9)
    images = build.build_training_batches(config, dataset, ONE_RANK)
    images.load(0)
    warning = FULL_CACHE[kind]
    assert [str(warning) in message for message in caplog.messages] == [True] * bool(warning)


def test_mixing_and_sizes_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config counts the last steps, the loader the first ones."""
    monkeypatch.setattr(build, "TrainingBatches", lambda **given: given)
    monkeypatch.setattr(build, "StepSampler", lambda **given: given)
    shapes = {"type": "shapes", "root": str(tmp_path), "images": 1, "split": "train"}
    data = {"train": shapes, "val": shapes, "image_size": 96}
    dataset = build.build_dataset(make_config(**data), "train")
    config = make_config(
        **data,
        mosaic={"p": 0.5, "off_for_last": 1},
        mixup={"alpha": 2.0},
        multi_scale={"min": 64, "max": 160, "step": 64, "every": 3, "until_step": 7},
    )
    given: Any = build.build_training_batches(config, dataset, ONE_RANK)
    assert given["augment"].mosaic == Mosaic(p=0.5, until_step=0)  # of one step
    assert given["augment"].mixup == MixUp(p=0.1, alpha=2.0, until_step=1)
    expected = RandomSizes(sides_px=(64, 128), every=3, seed=0, until_step=7, final_px=96)
    assert given["sampler"]["size_px"] == expected
    given = build.build_training_batches(make_config(**data), dataset, ONE_RANK)
    assert given["augment"].mosaic is given["augment"].mixup is None
    assert given["sampler"]["size_px"](5) == 96


def test_workers_are_counted_where_no_system_call_tells_the_own_cores(monkeypatch) -> None:
    """As on macOS, whose GPU is `mps`."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    ranks = replace(ONE_RANK, device=torch.device("mps"))
    assert build.count_workers(make_config(), ranks) == 3


def test_the_voc_config_has_the_classes_in_darknets_order() -> None:
    data = yaml.safe_load((REPOSITORY_ROOT / "configs/base/voc.yaml").read_text())["data"]
    assert len(data["class_names"]) == len(set(data["class_names"])) == 20
    assert data["class_names"] == sorted(data["class_names"])
    some = [data["class_names"][i] for i in (0, 6, 14, 19)]
    assert some == ["aeroplane", "car", "person", "tvmonitor"]
    sets = [data[split]["image_sets"] for split in ("train", "val", "test")]
    assert sets == [["2007/trainval", "2012/trainval"], ["2007/test"], ["2007/test"]]


def test_the_voc_config_fits_real_images(real_data: Path) -> None:
    base = yaml.safe_load((REPOSITORY_ROOT / "configs/base/voc.yaml").read_text())["data"]
    spec = {"type": "voc", "root": str(real_data / "voc-sample"), "image_sets": ["*"]}
    config = make_config(train=spec, val=spec, class_names=base["class_names"], train_share=0.08)
    train = build.build_dataset(config, "train")
    assert len(train) == 8
    assert list(train.class_names) == base["class_names"]


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ({"type": "coco", "annotations": "/no/a.json", "images": "/no"}, "annotations"),
        ({"type": "coco", "annotations": __file__, "images": "/no"}, "annotations"),
        ({"type": "voc", "root": "/no", "image_sets": ["a"]}, "root"),
        ({"type": "yolo_text", "images": "/no/images", "labels": "/no/labels"}, "images"),
        ({"type": "yolo_text", "images": str(REPOSITORY_ROOT), "labels": "/no/labels"}, "labels"),
        ({"type": "csv_boxes", "boxes": "/no/b.csv", "images": "/no/images"}, "boxes"),
        ({"type": "shapes", "root": "/proc/no", "images": 1, "split": "val"}, "root"),
    ],
)
def test_an_error_names_the_key_of_the_path_that_it_is_about(spec: dict, key: str) -> None:
    with pytest.raises(UserError) as error:
        build.build_dataset(make_config(val=spec, class_names=None), "val")
    message = str(error.value)
    assert message.startswith(f"data.val.{key}: ")
    advice = f"; data.val.{key}=PATH names another place."
    assert message.endswith(advice) == ("/no" in str(spec[key]))
