"""What every data set of a detector does, seen at one without a format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from yolo.data.annotations import Annotations, Contents, Findings
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError


@pytest.fixture
def dataset() -> DetectionDataset:
    annotations = Annotations.pack(
        image_ids=np.array([7, 3]),
        file_names=["one/a.b.jpg", "c.jpg"],
        sizes_hw=np.array([[40, 60], [100, 50]]),
        image_index=np.array([1, 0, 0]),
        boxes_xyxy_px=np.array([[0, 0, 50, 100], [4, 5, 20, 30.5], [1, 1, 2, 2]]),
        labels=np.array([1, 0, 1]),
        ignored=np.array([False, False, True]),
    )
    contents = Contents(("cat", "dog"), annotations, Findings(counts={}, texts=()))
    return DetectionDataset(Path("source"), Path("root"), contents, category_ids=[5, 9])


def test_the_truth_in_coco_form(dataset: DetectionDataset, tmp_path: Path) -> None:
    truth = dataset.ground_truth()
    assert truth["images"] == [
        {"id": 7, "file_name": "one/a.b.jpg", "height": 40, "width": 60},
        {"id": 3, "file_name": "c.jpg", "height": 100, "width": 50},
    ]
    assert truth["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    one = {"id": 1, "image_id": 7, "category_id": 0, "bbox": [4, 5, 16, 25.5], "area": 408}
    two = {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 1, 1, 1], "area": 1}
    three = {"id": 3, "image_id": 3, "category_id": 1, "bbox": [0, 0, 50, 100], "area": 5000}
    wanted = [{**one, "iscrowd": 0}, {**two, "iscrowd": 1}, {**three, "iscrowd": 0}]
    assert truth["annotations"] == wanted
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert COCO(str(path)).getAnnIds(imgIds=[7], iscrowd=True) == [2]


def test_a_selection_has_its_own_truth(dataset: DetectionDataset) -> None:
    assert dataset.limit(1).annotations.image_ids.tolist() == [7]
    assert len(dataset.limit(100)) == 2
    assert dataset.limit([3, 7, 555]).annotations.image_ids.tolist() == [7, 3]
    view = dataset.limit([3, 1000])
    assert [entry["image_id"] for entry in view.ground_truth()["annotations"]] == [3]
    assert len(dataset.select([]).ground_truth()["annotations"]) == 0
    with pytest.raises(UserError, match=r"^source has none of the listed image ids \(8, 9\)"):
        dataset.limit([8, 9])


def test_images_have_names_and_paths(dataset: DetectionDataset) -> None:
    assert [dataset.image_name(i) for i in range(2)] == ["a.b", "c"]
    assert dataset.image_path(0) == Path("root/one/a.b.jpg")


def test_a_fingerprint_is_of_the_content_wherever_it_lies(dataset, tmp_path, monkeypatch) -> None:
    found = []
    for number in range(2):
        root = tmp_path / str(number)
        (root / "one").mkdir(parents=True)
        (root / "one/a.b.jpg").write_bytes(bytes(9))
        monkeypatch.setattr(dataset, "_image_root", root)
        found.append(dataset.fingerprint())
    first = found[0]
    assert found[1] == first and (first["images"], first["boxes"]) == (2, 3)

    def changed(view: DetectionDataset) -> set[str]:
        now = view.fingerprint()
        return {name for name in now if now[name] != first[name]}

    assert changed(dataset.select([1, 0])) == {"order", "truth", "files"}
    assert changed(dataset.select([0])) == {"images", "boxes", "order", "truth", "files"}
    for name, value in (("labels", 1), ("boxes_xyxy_px", 9), ("ignored", True)):
        array = getattr(dataset.annotations, name)
        kept = array[0].copy()
        array[0] = value
        assert changed(dataset) == {"truth"}
        array[0] = kept
    (root / "c.jpg").write_bytes(bytes(1))  # was missing
    assert changed(dataset) == {"files"}
