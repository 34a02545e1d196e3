"""Boxes of 10 landscape images of 200 x 100 px, right and misread, by hand."""

import numpy as np
import pytest

from yolo.apps.preflight.boxes import measure_boxes
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.voc import VocDataset

BOXES = np.array([[150, 60, 40, 30], [10, 10, 20, 80], [120, 5, 70, 20], [0, 0, 200, 100.0]])
SIZES = np.full((4, 2), (200.0, 100.0))
LOW, SIDES = BOXES[:, :2], BOXES[:, 2:]
WRONG = {
    "[y, x, height, width]": BOXES[:, [1, 0, 3, 2]],
    "the corners [x1, y1, x2, y2]": np.hstack([LOW, LOW + SIDES]),
    "[centre x, centre y, width, height]": np.hstack([LOW + SIDES / 2, SIDES]),
}


def test_right_boxes_are_left_alone():
    found = measure_boxes(BOXES, SIZES)
    assert (found.outside, found.tiny, found.better) == (0, 0, None)
    assert found.fault() is None


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reading_is_named(name):
    found = measure_boxes(WRONG[name], SIZES)
    assert found.better == name and found.better_outside == 0
    assert f"if their numbers are read as {name}" in found.fault()


def test_swapped_corners_differ_from_plain_ones():
    swapped = WRONG["the corners [x1, y1, x2, y2]"][:3, [1, 0, 3, 2]]
    assert measure_boxes(swapped, SIZES[:3]).better == "the corners [y1, x1, y2, x2]"


def test_relative_boxes_are_no_pixels_and_those_of_a_larger_image_hopeless():
    found = measure_boxes(BOXES / np.array([200, 100, 200, 100]), SIZES)
    assert found.tiny == 1 and "their unit is not the pixel" in found.fault()
    found = measure_boxes(BOXES * 3, SIZES)
    assert found.better is None and found.outside == 1
    assert "whatever their order" in found.fault()


def test_objects_that_reach_a_little_over_the_edge_are_no_fault():
    """A tenth of a box may be outside, and a twentieth of all boxes more."""
    over = BOXES + np.array([0, 0, 3, 3])
    assert measure_boxes(over, SIZES).fault() is None
    many, sizes = np.tile(BOXES, (10, 1)), np.tile(SIZES, (10, 1))
    many[0, 0] = 195
    assert measure_boxes(many, sizes).outside == 1 / 40
    assert measure_boxes(many, sizes).fault() is None


def test_a_careless_box_of_a_small_data_set_is_no_fault():
    """One of five leaves; a few boxes would stay inside under another reading by chance, too."""
    few = np.array([[60, 40, 20, 20], [90, 30, 20, 20], [120, 50, 20, 20], [60, 30, 40, 30]])
    few, sizes = np.concatenate([few, [[170, 30, 40, 30]]]), np.tile((200.0, 100.0), (5, 1))
    found = measure_boxes(few, sizes)
    assert found.outside == 1 / 5 and found.fault() is None
    assert measure_boxes(few[1:], sizes[1:]).fault() is None  # a quarter
    assert measure_boxes(np.tile(few, (3, 1)), np.tile(sizes, (3, 1))).fault() is not None


@pytest.mark.parametrize(
    ("name", "split"),
    [("coco-mini", "train"), ("coco-mini", "val"), ("bccd", "train"), ("voc-sample", "*")],
)
def test_no_threshold_fires_on_real_data(name, split, real_data):
    root = real_data / name
    if name == "coco-mini":
        annotations = root / f"annotations/instances_{split}2017.json"
        dataset = CocoDataset(annotations=annotations, images=root / f"{split}2017")
    else:
        dataset = VocDataset(root=root, image_sets=[split])
    truth = dataset.ground_truth()
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    boxes = np.array([entry["bbox"] for entry in truth["annotations"]])
    owners = np.array([sizes[entry["image_id"]] for entry in truth["annotations"]])
    found = measure_boxes(boxes, owners)
    assert found.fault() is None
    assert found.outside < 0.01 and found.tiny < 0.01
    swapped = measure_boxes(boxes[:, [1, 0, 3, 2]], owners)
    assert swapped.better == "[y, x, height, width]" and swapped.outside > 0.25
