from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.data.conftest import WriteCoco, coco_json
from yolo.data.formats import coco
from yolo.data.formats.coco import CocoDataset
from yolo.errors import UserError
from yolo.evaluate.detection_files import write_coco_results
from yolo.evaluate.evaluators import Found
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.detection_errors import find_errors
from yolo.evaluate.metrics.metric import DetectedBoxes
from yolo.evaluate.network_run import RunTotals


def open_coco(write_coco: WriteCoco, data: Any = None, **settings: Any) -> CocoDataset:
    annotations, images = write_coco(data)
    return CocoDataset(annotations=annotations, images=images, **settings)


def test_labels_follow_the_category_ids(write_coco: WriteCoco) -> None:
    dataset = open_coco(write_coco)
    assert dataset.class_names == ("cat", "dog", "tree")
    assert dataset.category_ids == (3, 7, 90)
    assert dataset.annotations.labels.tolist() == [0, 2, 1]


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
    assert dataset.select([1]).load(0).image_id == 10


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
    assert truth["images"] == [{"id": 30, "file_name": "c.jpg", "height": 60, "width": 80}]
    crowd, other = truth["annotations"]
    assert crowd["bbox"] == [0, 0, 80, 60]
    assert (crowd["area"], crowd["iscrowd"], crowd["category_id"]) == (123.5, 1, 0)
    assert (other["area"], other["iscrowd"], other["category_id"]) == (32, 0, 2)
    names = [(entry["id"], entry["name"]) for entry in truth["categories"]]
    assert names == [(0, "cat"), (1, "dog"), (2, "tree")]


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
    ("images.id", 30.5, "is 30.5, but must be a whole number or a text"),
    ("images.id", None, "is null, but must be a number or a text or a whole number"),
    ("images.file_name", ..., "is missing"),
    ("images.file_name", "../x.jpg", "is '../x.jpg', but must be a path inside the image folder"),
    ("images.file_name", "/etc/x.jpg", "is '/etc/x.jpg', but must be a path inside the image fol"),
    ("images.file_name", "", "is '', but must be a path inside the image folder"),
    ("images.width", -1, "is -1, but must be a number of pixels > 0"),
    ("images.height", 1.5, "is 1.5, but must be"),
    ("images.height", "tall", "is a text, but must be a number or a whole number"),
    ("categories.name", ..., "is missing"),
    ("annotations.category_id", 8, 'is 8, which "categories" does not define'),
    ("annotations.image_id", 11, 'is 11, which "images" does not define'),
    ("annotations.category_id", True, "is a flag, but must be a number"),
    ("annotations.category_id", "7a", "is '7a', which \"categories\" does not define"),
    ("annotations.bbox", [1, 2, 3], "has 3 numbers, but must be [x, y, w, h]"),
    ("annotations.bbox", [1, 2, "3", 4], "is [1, 2, '3', 4], but must be four"),
    ("annotations.bbox", "1 2 3 4", "is a text, but must be a list"),
    ("annotations.iscrowd", "no", "is a text, but must be"),
    ("annotations.area", -1, "is -1, but must be a number of at least 0"),
]


def every(key: str, field: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    """Change a field of all entries that have it; a ... deletes it."""

    def edit(data: dict[str, Any]) -> None:
        for entry in data[key]:
            entry[field] = change(entry.get(field))
            if entry[field] is ...:
                del entry[field]

    return edit


def all_ids(change: Callable[[Any], Any], what: str = "image") -> Callable[[dict[str, Any]], Any]:
    def edit(data: dict[str, Any]) -> None:
        every("images" if what == "image" else "categories", "id", change)(data)
        every("annotations", f"{what}_id", change)(data)

    return edit


LENIENT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no sizes": lambda d: [every("images", side, lambda _: ...)(d) for side in ("width", "height")],
    "null sizes": every("images", "height", lambda _: None),
    "no size is 0": every("images", "width", lambda _: 0),
    "sizes as text": every("images", "width", str),
    "area null": every("annotations", "area", lambda _: None),
    "area as text": lambda d: [
        a.update(area=str(a["bbox"][2] * a["bbox"][3])) for a in d["annotations"]
    ],
    "iscrowd null": lambda d: [a.update(iscrowd=a["iscrowd"] or None) for a in d["annotations"]],
    "iscrowd 1.0": every("annotations", "iscrowd", float),
    "iscrowd as text": every("annotations", "iscrowd", str),
    "references 1.0": every("annotations", "image_id", float),
    "ids 1.0": all_ids(float),
    "image ids as text here, numbers there": every("images", "id", str),
    "category ids with zeros": every("categories", "id", lambda number: f"{number:04}"),
    "annotation ids anything": every("annotations", "id", lambda number: f"a{number}"),
    "backslashes": every("images", "file_name", lambda name: name.replace("/", "\\")),
}


@pytest.mark.parametrize("edit", LENIENT.values(), ids=LENIENT)
def test_what_other_tools_write_means_the_same(write_coco: WriteCoco, edit) -> None:
    as_before, data = open_coco(write_coco), coco_json()
    truth = as_before.ground_truth()
    edit(data)
    dataset = open_coco(write_coco, data)
    for name in dataset.annotations.__slots__:
        mine, wanted = (getattr(one.annotations, name) for one in (dataset, as_before))
        np.testing.assert_array_equal(mine, wanted)
    assert dataset.ground_truth() == truth
    assert dataset.load(1).image_id == 10


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("image", lambda number: -number),
        ("image", lambda number: f"{number}"),
        ("image", lambda number: f"{number:012}"),
        ("image", lambda number: f"img-{number}"),
        ("image", lambda number: number + 2**53),
        ("image", lambda number: number + 2**70),
        ("image", lambda number: -number - 2**64),
        ("category", lambda number: -number),
        ("category", lambda number: number - 7),
        ("category", lambda number: f"c{number}"),
        ("category", lambda number: 2**64 - number),
    ],
)
@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_any_ids_are_scored_and_written_as_they_were(
    write_coco: WriteCoco, tmp_path: Path, what: str, change, backend: str
) -> None:
    data = coco_json()
    data["annotations"][1]["iscrowd"] = 0
    all_ids(change, what)(data)
    dataset = open_coco(write_coco, data)
    packed = dataset.annotations
    own = sorted(change(c["id"]) for c in coco_json()["categories"])
    if what == "category":
        assert sorted(dataset.category_ids) == own
    truth = packed.image_ids[packed.image_index()], packed.labels, packed.boxes_xyxy_px
    found = DetectedBoxes(*truth, np.ones(3))
    result = CocoMetric(ground_truth=dataset.ground_truth(), backend=backend).evaluate(found)
    assert result.stats["AP50"] == pytest.approx(1)
    assert find_errors(dataset.ground_truth(), found).stats["AP50"] == pytest.approx(1)
    run = RunTotals(losses={}, counts={}, images=3, network_seconds=1.0, total_seconds=1.0)
    rows = Found(
        image_ids=truth[0], labels=truth[1], boxes_xyxy_px=truth[2], scores=np.ones(3), run=run
    )
    write_coco_results(tmp_path / "found.json", dataset, rows)
    written = json.loads((tmp_path / "found.json").read_text())
    by_box = {tuple(row["bbox"]): (row["image_id"], row["category_id"]) for row in written}
    for entry in data["annotations"]:
        assert by_box[tuple(entry["bbox"])] == (entry["image_id"], entry["category_id"])


def test_names_that_recur_are_told_apart_by_their_ids(write_coco: WriteCoco) -> None:
    data = coco_json()
    data["categories"][0]["name"] = "dog"
    dataset = open_coco(write_coco, data)
    assert dataset.class_names == ("cat", "dog (id 7)", "dog (id 90)")
    assert open_coco(write_coco, data, class_names=["dog (id 90)", "cat", "dog (id 7)"])


@pytest.mark.parametrize("empty", [[], None, ...])
def test_annotations_without_a_box_are_left_out_and_counted(write_coco, empty) -> None:
    data = coco_json()
    data["annotations"][1]["bbox"] = empty
    if empty is ...:
        del data["annotations"][1]["bbox"]
    dataset = open_coco(write_coco, data)
    assert dataset.annotations.box_counts().tolist() == [1, 1, 0]
    assert len(dataset.ground_truth()["annotations"]) == 2
    assert dataset.findings.counts == {"left out, for their bbox is empty": 1}
    assert dataset.findings.texts == (
        "annotation 2 of image 30, left out, for their bbox is empty",
    )
    every("annotations", "bbox", lambda _: [])(data)
    assert_refused(write_coco, data, 'none of the "annotations" has a "bbox", but at least one')


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("pictures\\b.jpg", "b.jpg"),
        ("C:\\data\\b.jpg", "b.jpg"),
        ("C:/data/b.jpg", "b.jpg"),
        ("/home/me/b.jpg", "b.jpg"),
        ("..\\images\\b.jpg", "b.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("a:30.jpg", "a:30.jpg"),
        ("none\\n.jpg", "none/n.jpg"),  # which the loader reports as missing
    ],
)
def test_paths_of_another_machine(write_coco: WriteCoco, written: str, found: str) -> None:
    data = coco_json()
    data["images"][2]["file_name"] = written
    assert open_coco(write_coco, data).annotations.file_name(2) == found
    data["images"][0]["file_name"] = written  # whose picture is it?
    if found == "b.jpg" and "/" in written[:3]:
        assert_refused(write_coco, data, "but must be a path inside the image folder")


def test_all_faults_are_told_with_their_numbers(write_coco: WriteCoco) -> None:
    data = coco_json()
    every("images", "width", lambda _: 1.5)(data)
    every("annotations", "bbox", lambda _: [1, 2])(data)
    data["categories"][1].pop("name")
    with pytest.raises(UserError) as caught:
        open_coco(write_coco, data)
    for sentence in (
        '"categories" entry 2 (id 3): "name" is missing; ',
        '"images" entry 1 (id 30): "width" is 1.5, but must be a number of pixels > 0 (and 2 more '
        "entries: 2, 3); ",
        '"annotations" entry 1 (id 1): "bbox" has 2 numbers, but must be [x, y, w, h] (and 2 more '
        "entries: 2, 3).",
    ):
        assert sentence in str(caught.value)


def test_a_header_that_cannot_be_read_stops_or_is_passed_over(write_coco: WriteCoco) -> None:
    data, bad = coco_json(), []
    data["images"][0].pop("width")
    annotations, images = write_coco(data)
    (images / "c.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"the size of the image .*c\.jpg cannot be read"):
        CocoDataset(annotations=annotations, images=images)
    dataset = CocoDataset(annotations=annotations, images=images, on_bad_image=bad.append)
    assert len(bad) == 1
    assert dataset.annotations.box_counts().tolist() == [2, 1, 0]


def test_headers_are_read_once(write_coco: WriteCoco, tmp_path: Path, monkeypatch) -> None:
    data = coco_json()
    data["images"][0].pop("width")
    annotations, images = write_coco(data)

    def opened() -> CocoDataset:
        return CocoDataset(annotations=annotations, images=images, cache=tmp_path / "cache")

    first = opened()
    monkeypatch.setattr(coco, "measure", None)
    again = opened()
    assert again.findings == first.findings and again.category_ids == first.category_ids
    for name in first.annotations.__slots__:
        mine, wanted = (getattr(one.annotations, name) for one in (again, first))
        np.testing.assert_array_equal(mine, wanted)
    annotations.write_text(annotations.read_text() + " ")
    with pytest.raises(TypeError):  # another json
        opened()


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
    truth = dataset.ground_truth()["annotations"]
    for mine, entry in zip(truth, reference.dataset["annotations"], strict=True):
        assert dataset.category_ids[mine["category_id"]] == entry["category_id"]
        assert all(mine[key] == entry[key] for key in ("image_id", "bbox", "area", "iscrowd"))
