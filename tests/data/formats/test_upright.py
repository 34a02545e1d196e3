"""Boxes sit on their objects, whichever way up an image is stored and they were drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_images import UPRIGHT, save_turned
from tests.data.voc_files import voc_object, voc_xml, write_voc
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.yolo_text import YoloTextDataset


def open_as(kind: str, root: Path, name: str, box: tuple[int, ...], size_wh, upright: bool):
    """A data set of one image with a box (x1, y1, x2, y2)."""
    (x1, y1, x2, y2), (w, h) = box, size_wh
    if kind == "coco":
        image = {"id": 1, "file_name": name, "width": int(w), "height": int(h)}
        bbox = [float(number) for number in (x1, y1, x2 - x1, y2 - y1)]
        found = {"image_id": 1, "category_id": 1, "bbox": bbox}
        categories = [{"id": 1, "name": "red"}]
        data = {"images": [image], "annotations": [found], "categories": categories}
        (root / "a.json").write_text(json.dumps(data))
        return CocoDataset(annotations=root / "a.json", images=root, upright=upright)
    if kind == "voc":
        xml = voc_xml(voc_object("red", (x1 + 1, y1 + 1, x2, y2)), size_wh=(w, h), file_name=name)
        write_voc(root, {Path(name).stem: xml})
        (root / name).replace(root / "JPEGImages" / name)
        return VocDataset(root=root, image_sets=["train"], upright=upright)
    if kind == "csv_boxes":
        (root / "boxes.csv").write_text(f"{name},{x1},{y1},{x2},{y2},red\n")
        return CsvBoxesDataset(boxes=root / "boxes.csv", images=root, upright=upright)
    line = f"0 {(x1 + x2) / 2 / w} {(y1 + y2) / 2 / h} {(x2 - x1) / w} {(y2 - y1) / h}\n"
    (root / "a.txt").write_text(line)
    (root / "list.csv").write_text(f"{name},a.txt\n")
    given = {"list": root / "list.csv"} if kind == "csv_list" else {}
    folders = {"images": root, "labels": root, "class_names": ["red"]}
    return YoloTextDataset(**folders, **given, upright=upright)


def red_box(image: np.ndarray) -> tuple[int, ...]:
    rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 60))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("kind", ["coco", "csv_boxes", "csv_list", "voc", "yolo_text"])
@pytest.mark.parametrize(("height", "suffix"), [(80, ".png"), (48, ".png"), (80, ".avif")])
def test_boxes_sit_on_their_objects(tmp_path, kind, upright: bool, height, suffix) -> None:
    stored = np.full((height, 48, 3), 120, np.uint8)
    stored[8:24, 4:20] = 255, 0, 0
    for orientation, turn in UPRIGHT.items():
        name = f"{orientation}{suffix}"
        save_turned(tmp_path / name, stored, orientation)
        drawn_on = turn(stored) if upright else stored
        box, size_wh = red_box(drawn_on), drawn_on.shape[1::-1]
        if kind == "yolo_text":
            (tmp_path / name).rename(tmp_path / f"a{suffix}")
        dataset = open_as(kind, tmp_path, name, box, size_wh, upright)
        sample = dataset.load(0)
        assert sample.image.shape == drawn_on.shape
        assert np.abs(sample.boxes_xyxy_px - np.array([box])).max() < 0.01
        assert np.abs(np.subtract(red_box(sample.image), box)).max() <= 1  # AVIF is lossy
        assert dataset.findings.notes == (() if kind == "coco" else notes(orientation, upright))


def notes(orientation: int, upright: bool) -> tuple[str, ...]:
    if orientation == 1:
        return ()
    how = "turned upright by EXIF" if upright else "left as stored, though EXIF turns them"
    return (f"1 images {how}",)


def test_both_readings_have_their_own_cache(tmp_path: Path) -> None:
    save_turned(tmp_path / "a.png", np.zeros((40, 60, 3), np.uint8), 6)
    sizes = []
    for upright in (True, False, True):
        (tmp_path / "boxes.csv").write_text("a.png,0,0,9,9,red\n")
        paths = {"boxes": tmp_path / "boxes.csv", "images": tmp_path, "cache": tmp_path / "cache"}
        dataset: DetectionDataset = CsvBoxesDataset(**paths, upright=upright)
        sizes.append(dataset.annotations.size_hw(0))
    assert sizes == [(60, 40), (40, 60), (60, 40)]
