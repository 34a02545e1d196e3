"""Files for other tools, read back by a reader that knows nothing of the project."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.voc_files import voc_object, voc_xml, write_voc
from tests.reference import voc_metric as reference
from yolo.data.formats.voc import VocDataset
from yolo.errors import UserError
from yolo.evaluate.detection_files import prepare_text_files, prepare_voc_files, write_coco_results
from yolo.evaluate.evaluators import Found
from yolo.evaluate.metrics.voc import VocMetric
from yolo.evaluate.network_run import RunTotals


def make_dataset(folder: Path) -> VocDataset:
    """Two images with truth, one with none; label 0 is "arm chair", 1 is "cat"."""
    write_voc(
        folder,
        {
            "one": voc_xml(voc_object("cat", (1, 1, 20, 20)), voc_object("cat", (31, 11, 50, 30))),
            "two": voc_xml(
                voc_object("arm chair", (11, 1, 40, 20)), voc_object("cat", (41, 1, 60, 40), 1)
            ),
            "none": voc_xml(),
        },
    )
    return VocDataset(root=folder, image_sets=["train"])


def make_found(dataset: VocDataset, rows: list[tuple[int, int, tuple, float]]) -> Found:
    """Rows of image index, label, box and score."""
    return Found(
        image_ids=dataset.annotations.image_ids[[row[0] for row in rows]],
        labels=np.array([row[1] for row in rows]),
        boxes_xyxy_px=np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[3] for row in rows], np.float32),
        run=RunTotals(
            losses={}, counts={}, images=len(dataset), network_seconds=1.0, total_seconds=1.0
        ),
    )


ROWS = [
    (0, 1, (0.0, 0.0, 20.0, 20.0), 0.9),
    (0, 1, (28.25, 8.5, 50.0, 30.0), 0.3),
    (1, 0, (10.0, 0.0, 40.0, 12.0), 0.1),
]


def test_a_text_file_for_each_image(tmp_path):
    dataset = make_dataset(tmp_path / "data")
    prepare_text_files(tmp_path / "out", dataset)(make_found(dataset, ROWS))
    texts = {
        str(path.relative_to(tmp_path / "out")): path.read_text().splitlines()
        for path in (tmp_path / "out").rglob("*.txt")
    }
    assert texts == {
        "detections/one.txt": ["cat 0.899999976 1 1 20 20", "cat 0.300000012 29.25 9.5 50 30"],
        "detections/two.txt": ["arm_chair 0.100000001 11 1 40 12"],
        "detections/none.txt": [],
        "groundtruths/one.txt": ["cat 1 1 20 20", "cat 31 11 50 30"],  # as the XML has them
        "groundtruths/two.txt": ["arm_chair 11 1 40 20"],  # the difficult cat is left out
        "groundtruths/none.txt": [],
    }


def test_voc_files(tmp_path):
    dataset = make_dataset(tmp_path / "data")
    prepare_voc_files(tmp_path / "out", dataset, "comp3_det_val_")(make_found(dataset, ROWS[:2]))
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "comp3_det_val_cat.txt": "one 0.899999976 1 1 20 20\none 0.300000012 29.25 9.5 50 30\n",
        "comp3_det_val_arm_chair.txt": "",
    }


def test_coco_results(tmp_path):
    dataset = make_dataset(tmp_path / "data")
    write_coco_results(tmp_path / "boxes.json", dataset, make_found(dataset, ROWS[1:2]))
    (row,) = json.loads((tmp_path / "boxes.json").read_text())
    assert row == {
        "image_id": int(dataset.annotations.image_ids[0]),
        "category_id": 2,
        "bbox": [28.25, 8.5, 21.75, 21.5],
        "score": pytest.approx(0.3),
    }


def read_text_files(folder: Path) -> tuple[list, list]:
    """Truths and detections for the reference."""
    truths, detections = [], []
    for image, path in enumerate(sorted((folder / "groundtruths").iterdir())):
        for line in path.read_text().splitlines():
            name, *box = line.split()
            truths.append((image, name, tuple(map(float, box)), False))
        for line in (folder / "detections" / path.name).read_text().splitlines():
            name, score, *box = line.split()
            detections.append((image, name, tuple(map(float, box)), float(score)))
    return truths, detections


@pytest.mark.parametrize("seed", range(3))
def test_a_tool_that_counts_pixels_inclusively_finds_the_same_figure(seed, tmp_path):
    """Padilla's toolkit and VOC's kit do so."""
    rng = np.random.default_rng(seed)
    dataset = make_dataset(tmp_path / "data").select([0, 1])
    boxes = dataset.annotations.boxes_xyxy_px[~dataset.annotations.ignored]
    rows = []
    for _ in range(40):
        i = rng.integers(len(boxes))
        box = boxes[i] + rng.normal(0, 3, 4)
        rows.append((int(i == 2), int(i != 2), tuple(box), rng.random()))
    found = make_found(dataset, rows)
    prepare_text_files(tmp_path / "out", dataset)(found)
    truths, detections = read_text_files(tmp_path / "out")
    aps = [
        reference.ap_all_points(*reference.curve(truths, detections, name, 0.5)[:2])
        for name in ("cat", "arm_chair")
    ]
    metric = VocMetric.of_dataset(dataset)
    result = metric.evaluate(found.boxes)
    assert 0.05 < np.mean(aps) < 0.99
    assert result.stats["mAP"] == pytest.approx(np.mean(aps), abs=1e-9)


def test_a_second_scoring_of_the_same_images_takes_the_place_of_the_first(tmp_path):
    dataset = make_dataset(tmp_path / "data")
    for rows in (ROWS, ROWS[:1]):
        prepare_text_files(tmp_path / "out", dataset)(make_found(dataset, rows))
    assert (tmp_path / "out/detections/two.txt").read_text() == ""
    with pytest.raises(UserError, match=r"detections: holds none.txt of another scoring"):
        prepare_text_files(tmp_path / "out", dataset.select([0, 1]))


def test_names_that_would_be_the_same(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "data")
    monkeypatch.setattr(dataset, "image_name", lambda index: "same")
    prepare_text_files(tmp_path / "out", dataset)(make_found(dataset, ROWS))
    names = {path.name for path in (tmp_path / "out/detections").iterdir()}
    assert names == {f"JPEGImages_{name}.jpg.txt" for name in ("one", "two", "none")}
    dataset.class_names = ("a b", "a/b")
    with pytest.raises(UserError, match=r"classes 'a b' and 'a/b' would both be called 'a_b'"):
        prepare_voc_files(tmp_path / "out", dataset, "comp4_det_test_")
    dataset.class_names = ("../../up", "b")
    prepare_voc_files(tmp_path / "voc", dataset, "comp4_det_test_")(make_found(dataset, ROWS))
    assert len(list((tmp_path / "voc").iterdir())) == 2
