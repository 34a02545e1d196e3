from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.data.conftest import WriteCoco, coco_json
from yolo.data.formats.coco import CocoDataset
from yolo.errors import UserError


def open_coco(write_coco: WriteCoco, data: Any = None, **settings: Any) -> CocoDataset:
    annotations, images = write_coco(data)
    return CocoDataset(annotations=annotations, images=images, **settings)


def test_labels_follow_the_category_ids_and_go_both_ways(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco)
    assert dataset.class_names == ("cat", "dog", "tree")
    assert dataset.category_ids == (3, 7, 90)
    assert dataset.label_of_category == {3: 0, 7: 1, 90: 2}


def test_class_names_must_be_those_of_the_json_in_any_order(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco, class_names=["tree", "dog", "cat"])
    assert dataset.category_ids == (90, 7, 3)
    assert dataset.annotations.truth(0)[1].tolist() == [2, 0]
    sentence = (
        "class_names must name each category of .* once, in any order "
        r"\(not in the json: birch; missing: tree; more than once: cat\)"
    )
    with pytest.raises(UserError, match=sentence):
        open_coco(write_coco, class_names=["cat", "cat", "dog", "birch"])


def test_a_sample_has_its_boxes_crowds_and_ids(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco)
    sample = dataset.load(0)
    assert (sample.image_id, sample.original_size_hw) == (30, (60, 80))
    assert sample.image.shape == (60, 80, 3)
    assert sample.boxes_xyxy_px.tolist() == [[0, 0, 80, 60], [10.5, 20, 18.5, 24]]
    assert sample.labels.tolist() == [0, 2]
    assert (sample.boxes_xyxy_px.dtype, sample.labels.dtype) == (np.float32, np.int64)
    assert sample.ignored.tolist() == [True, False]
    assert dataset.load(2).boxes_xyxy_px.shape == (0, 4)


def test_boxes_are_clipped_or_dropped_counted_and_reported(write_coco: WriteCoco) -> None:
    data = coco_json()
    boxes = [
        [-5, 10, 20, 20],  # clipped on the left
        [50, 50, 100, 100],  # clipped on two sides
        [10, 10, 54.01, 5],  # out by a rounding error: not worth a word
        [10, 10, 0, 5],  # no width
        [70, 10, 5, 5],  # beside the image
        [30, 30, -5, 5],  # negative width
        [1, 1, 1e-9, 1],  # no width left in float32
        [float("nan"), 1, 1, 1],
        [1, 1, float("inf"), 1],
    ]
    entry = {"image_id": 20, "category_id": 3}
    data["annotations"] = [{**entry, "id": i, "bbox": box} for i, box in enumerate(boxes, 100)]
    dataset = open_coco(write_coco, data)
    kept, _, ignored = dataset.annotations.truth(2)
    assert kept.tolist() == [[0, 10, 15, 30], [50, 50, 64, 64], [10, 10, 64, 15]]
    assert not ignored.any()
    assert dataset.findings.counts == {"clipped": 2, "no area": 4, "not finite": 2}
    assert dataset.findings.texts[0] == (
        "b.jpg: annotation 100, bbox [-5, 10, 20, 20], clipped to the image of 64x64 px"
    )
    assert "annotation 107, bbox [nan, 1, 1, 1], dropped (not finite)" in dataset.findings.texts[6]


def test_selections(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco)
    assert dataset.limit(2).annotations.image_ids.tolist() == [30, 10]
    assert len(dataset.limit(100)) == 3
    assert dataset.limit([20, 30, 555]).annotations.image_ids.tolist() == [30, 20]
    assert dataset.select([1]).load(0).image_id == 10
    with pytest.raises(UserError, match=r"has none of the listed image ids \(1, 2\)"):
        dataset.limit([1, 2])


def test_shares_are_drawn_by_seed_and_nested(write_coco: WriteCoco) -> None:
    data, size = coco_json() | {"annotations": []}, {"width": 9, "height": 9}
    data["images"] = [{"id": i, "file_name": f"{i}.jpg", **size} for i in range(200)]
    dataset = open_coco(write_coco, data)
    half = dataset.share(0.5, seed=1).annotations.image_ids
    assert len(half) == 100
    assert (np.diff(half) > 0).all()
    assert (half == dataset.share(0.5, seed=1).annotations.image_ids).all()
    assert (half != dataset.share(0.5, seed=2).annotations.image_ids).any()
    assert set(dataset.share(0.1, seed=1).annotations.image_ids) < set(half)
    assert len(dataset.share(1e-6, seed=0)) == 1
    assert len(dataset.share(1.0, seed=0)) == 200


def test_ground_truth_is_the_jsons_own_for_the_selected_images(write_coco: WriteCoco) -> None:
    data = coco_json()
    data["annotations"][1] |= {"area": 123.5, "segmentation": {"size": [60, 80], "counts": "x"}}
    truth = open_coco(write_coco, data).limit([30]).ground_truth()
    assert [image["id"] for image in truth["images"]] == [30]
    assert truth["annotations"][0] == data["annotations"][1]
    assert truth["annotations"][1] == data["annotations"][2] | {"area": 32}
    assert truth["categories"] == data["categories"]


FAULTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d.pop("images"), 'has no "images": a COCO json has the lists'),
    (lambda d: d.pop("annotations"), 'has no "annotations"'),
    (lambda d: d.pop("categories"), 'has no "categories"'),
    (lambda d: d.update(images={}), '"images" is an object, but must be a list'),
    (lambda d: d.update(images=[]), '"images" is empty'),
    (lambda d: d.update(categories=[]), '"categories" is empty'),
    (lambda d: d["images"].append(7), '"images" entry 4: is a whole number, but must be an object'),
    (lambda d: d["images"].append(d["images"][0]), '"images" has the id 30 more than once'),
    (lambda d: d["categories"].append({"id": 7}), '"categories" has the id 7 more than once'),
]
FAULTS_OF_FIELDS = [  # of the first entry; a value of ... deletes the field
    ("images.id", "30", "is a text, but must be a whole number"),
    ("images.id", 2**70, f"is {2**70}, too large for 64 bits"),
    ("images.id", 2**53 + 1, f"is {2**53 + 1}; ids must be below 2^53"),
    ("images.file_name", ..., "is missing"),
    ("images.file_name", "../x.jpg", "is '../x.jpg', but must be a path inside the image folder"),
    ("images.file_name", "/etc/x.jpg", "is '/etc/x.jpg', but must be a path inside the image fol"),
    ("images.file_name", "", "is '', but must be a path inside the image folder"),
    ("images.width", 0, "is 0, but must be a number of pixels > 0"),
    ("images.height", 1.5, "is 1.5, but must be"),
    ("images.height", None, "is null, but must be a number or a whole number"),
    ("categories.name", ..., "is missing"),
    ("annotations.category_id", 8, 'is 8, which "categories" does not define'),
    ("annotations.image_id", 11, 'is 11, which "images" does not define'),
    ("annotations.category_id", True, "is a flag, but must be a whole"),
    ("annotations.bbox", ..., "is missing"),
    ("annotations.bbox", [1, 2, 3], "has 3 numbers, but must be [x, y, w, h]"),
    ("annotations.bbox", [1, 2, "3", 4], "is [1, 2, '3', 4], but must be four"),
    ("annotations.bbox", None, "is null, but must be a list"),
    ("annotations.iscrowd", "no", "is a text, but must be"),
    ("annotations.area", -1, "is -1, but must be a number of at least 0"),
]


def assert_refused(write_coco: WriteCoco, data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        open_coco(write_coco, data)
    assert "instances.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS, ids=[text[:40] for _, text in FAULTS])
def test_each_fault_names_the_file(write_coco: WriteCoco, spoil, sentence: str) -> None:
    data = coco_json()
    spoil(data)
    assert_refused(write_coco, data, sentence)


@pytest.mark.parametrize(("path", "value", "sentence"), FAULTS_OF_FIELDS)
def test_each_fault_names_the_entry_and_the_key(write_coco, path, value, sentence: str) -> None:
    data, (key, field) = coco_json(), path.split(".")
    entry = data[key][0]
    entry[field] = value
    if value is ...:
        del entry[field]
    assert_refused(write_coco, data, f'"{key}" entry 1 (id {entry["id"]}): "{field}" {sentence}')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "instances.json is empty."),
        ('{"images": [\n  {"id": }]}', r"is broken json at line 2, column 10"),
        ("[]", "holds a list, but a COCO json is an object"),
        ("\x00\x01", "is broken json|is no json text"),
    ],
)
def test_files_that_are_no_coco_json(write_coco: WriteCoco, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_coco(write_coco, text)


def test_missing_files(write_coco: WriteCoco, tmp_path: Path) -> None:
    annotations, images = write_coco()
    with pytest.raises(UserError, match=r"the annotation file .*none.json does not exist"):
        CocoDataset(annotations=tmp_path / "none.json", images=images)
    with pytest.raises(UserError, match=r"the image folder .*nowhere does not exist"):
        CocoDataset(annotations=annotations, images=tmp_path / "nowhere")
    (images / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"the image .*b.jpg does not exist"):
        CocoDataset(annotations=annotations, images=images).load(2)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_mini_is_read_as_pycocotools_reads_it(coco_mini: Path, split: str) -> None:
    path = coco_mini / "annotations" / f"instances_{split}.json"
    dataset = CocoDataset(annotations=path, images=coco_mini / split)
    reference = COCO(str(path))
    assert len(dataset.class_names) == 80
    assert dataset.category_ids == tuple(sorted(reference.getCatIds()))
    assert sorted(dataset.annotations.image_ids) == sorted(reference.getImgIds())
    crowds = reference.getAnnIds(iscrowd=True)
    assert dataset.annotations.ignored.sum() == len(crowds) > 0
    for index, image_id in enumerate(dataset.annotations.image_ids.tolist()):
        entries = reference.loadAnns(reference.getAnnIds(imgIds=image_id))
        boxes, labels, ignored = dataset.annotations.truth(index)
        xywh = np.array([entry["bbox"] for entry in entries])
        expected = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        np.testing.assert_allclose(boxes, expected, atol=0.02)
        assert [dataset.category_ids[k] for k in labels] == [e["category_id"] for e in entries]
        assert ignored.tolist() == [bool(e["iscrowd"]) for e in entries]
        assert dataset.load(index).image.shape[:2] == dataset.annotations.size_hw(index)
    assert dataset.ground_truth()["annotations"] == reference.dataset["annotations"]
