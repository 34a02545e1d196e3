"""`anchors: auto`, and anchors that leave a raw map without a box."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import main as training
import yolo.factory.anchors
from tests.detectors import make_config
from tests.train.toys import quickstart
from yolo.config import REPOSITORY_ROOT, Config, Resolved, config_from_dict, load_config
from yolo.config.load import leaf_values
from yolo.config.wording import dotted
from yolo.data.annotations import Annotations, Contents, Findings, box_sizes_px
from yolo.data.formats.detection import DetectionDataset
from yolo.errors import UserError
from yolo.factory.anchors import ORIGIN, describe_anchors, levels_of, settle_anchors
from yolo.factory.data import build_dataset
from yolo.factory.detector import build_coder, build_detector
from yolo.train.checkpoint import load_checkpoint

NINE = [(4, 4), (8, 4), (4, 10), (8, 8), (16, 8), (10, 20), (24, 24), (48, 30), (60, 60)]


def make_dataset(sizes_wh, *, image_hw=(64, 64), ignored=None) -> DetectionDataset:
    """One image with a box of each size, from its upper left corner."""
    boxes = np.concatenate([np.zeros((len(sizes_wh), 2)), np.array(sizes_wh).reshape(-1, 2)], 1)
    annotations = Annotations.pack(
        image_ids=np.array([1]),
        file_names=["1.png"],
        sizes_hw=np.array([image_hw]),
        image_index=np.zeros(len(boxes), np.int64),
        boxes_xyxy_px=boxes,
        labels=np.zeros(len(boxes)),
        ignored=np.zeros(len(boxes)) if ignored is None else np.array(ignored),
    )
    contents = Contents(("thing",), annotations, Findings({}, ()))
    return DetectionDataset(Path("made"), Path("made"), contents)


def resolved_of(config: Config) -> Resolved:
    data = json.loads(config.model_dump_json())
    origins = {dotted(key): "default" for key, _ in leaf_values(data)}
    return Resolved(config=config, data=data, origins=origins, path=Path("a.yaml"))


def auto(neck="yolov3") -> Resolved:
    return resolved_of(make_config(neck=neck, head={"anchors": "auto"}))


def test_boxes_are_measured_in_the_letterboxed_image():
    """100 x 33 px at 64 px: 64 x 21, for 21.12 is rounded; so 0.64 across and 21 / 33 down."""
    boxes, ignored = [(50, 11), (100, 33), (9, 9)], [False, False, True]
    dataset = make_dataset(boxes, image_hw=(33, 100), ignored=ignored)
    sizes = box_sizes_px(dataset.annotations, 64)
    assert sizes == pytest.approx(np.array([[32, 7], [64, 21]]))
    assert box_sizes_px(make_dataset([]).annotations, 64).shape == (0, 2)


def test_equal_boxes_are_equal_wherever_they_lie():
    """float32 corners would tell them apart; and no size is 0."""
    low = np.linspace(0, 499, 300)[:, None].repeat(2, axis=1)
    dataset = make_dataset([(1, 1)] * 300, image_hw=(500, 500))
    boxes = np.concatenate([low, low + 0.7], axis=1).astype(np.float32)
    boxes[0, 2:] = boxes[0, :2] + 1e-6
    dataset.annotations.boxes_xyxy_px[:] = boxes
    sizes = box_sizes_px(dataset.annotations, 320)
    assert len({tuple(size) for size in sizes[1:].tolist()}) == 1
    assert sizes[0].tolist() == [0.01, 0.01]


def test_auto_becomes_numbers():
    resolved = auto()
    before = copy.deepcopy(resolved.data)
    settled = settle_anchors(resolved, make_dataset(NINE * 20))
    assert settled.config.model.head.anchors == tuple(sorted(NINE, key=np.prod))
    assert settled.data["model"]["head"]["anchors"] == [list(a) for a in sorted(NINE, key=np.prod)]
    assert settled.origins == {**resolved.origins, "model.head.anchors": ORIGIN}
    assert settled.origins["seed"] == "default"
    assert resolved.data == before and resolved.config.model.head.anchors == "auto"
    assert settle_anchors(settled, make_dataset(NINE[:2] * 5)) is settled


@pytest.mark.parametrize(("neck", "count"), [("yolov3", 9), ("yolov3_tiny", 6), ("yolov2", 5)])
def test_a_head_knows_how_many_anchors_it_will_have(neck, count):
    resolved = auto(neck)
    raw = build_detector(resolved.config, ["thing"]).eval()(torch.zeros(1, 3, 64, 64).byte())
    assert sum(level.shape[1] for level in raw) == count
    with pytest.raises(AssertionError, match="settle_anchors"):
        build_coder(resolved.config)
    settled = settle_anchors(resolved, make_dataset(NINE))
    assert build_coder(settled.config)(raw)[0].shape[0] == 1
    assert len(settled.config.model.head.anchors) == count
    with pytest.raises(UserError, match="has no box to fit anchors to; write them as numbers"):
        settle_anchors(resolved, make_dataset([]))


@pytest.mark.parametrize("neck", ["yolov3", "yolov3_tiny", "yolov2"])
@pytest.mark.parametrize("sizes", [1, 2, 4])
def test_fewer_sizes_than_anchors_are_filled_up_with_the_published_ones(neck, sizes):
    """Points that became boxes of one size, at 100 and more boxes: nothing is a dead end."""
    own, resolved = [(24.0, 24.0), (8.0, 4.0), (60.0, 60.0), (10.0, 20.0)][:sizes], auto(neck)
    published = type(resolved.config.model.head).model_fields["anchors"].default
    dataset = make_dataset(own * 100)
    anchors = settle_anchors(resolved, dataset).config.model.head.anchors
    assert len(anchors) == len(published) and set(own) <= set(anchors)
    assert len(set(published) - set(anchors)) == sizes
    given = resolved.with_values({"model.head.anchors": [list(one) for one in published]}, "here")
    assert settle_anchors(given, dataset) is given  # whose empty maps are a warning, too


def test_a_size_takes_the_place_of_the_anchor_that_is_most_like_it():
    anchors = settle_anchors(auto(), make_dataset([(24, 24)] * 160)).config.model.head.anchors
    assert anchors[:4] == ((10, 13), (16, 30), (24, 24), (30, 61))  # instead of (33, 23)


def test_heads_without_anchors_stay_as_they_are():
    config = make_config("extraction", "yolov1")
    resolved = resolved_of(config)
    assert settle_anchors(resolved, make_dataset(NINE)) is resolved
    assert list(describe_anchors(config, make_dataset(NINE))) == []


def test_a_raw_map_without_a_box_is_refused():
    """Boxes of 12 px and less: COCO's anchors for strides 16 and 32 begin at 30 x 61."""
    resolved = resolved_of(make_config(neck="yolov3"))
    small = [(width, 12) for width in range(3, 13)] * 10
    with pytest.raises(UserError) as error:
        settle_anchors(resolved, make_dataset(small))
    message = str(error.value)
    assert "at 64 px no box of data.train belongs to stride 16" in message
    assert "stride 32" in message and "[116, 90], [156, 198], [373, 326]" in message
    assert "stride 8" not in message
    assert "scripts/fit_anchors.py" in message and "model.head.anchors: auto" in message
    fitting = make_dataset([*small, (60, 50), (64, 64)], image_hw=(64, 64))
    with pytest.raises(UserError, match="to stride 32"):
        settle_anchors(resolved, fitting)
    plain = resolved.config.model_dump(mode="json")
    plain["loss"]["assignment"] = "iou_threshold"  # by which others than the best learn
    settle_anchors(resolved_of(config_from_dict(plain)), make_dataset(small))


@pytest.mark.parametrize(("limit", "boxes"), [(5, 100), (None, 99)])
def test_a_handful_of_images_is_only_a_warning(limit, boxes):
    resolved = resolved_of(make_config(data={"limit": limit}))
    few = make_dataset([(10, 13)] * boxes)
    assert settle_anchors(resolved, few) is resolved
    lines = list(describe_anchors(resolved.config, few))
    assert lines[0] == (
        "model.head.anchors: average IoU 1.000 with data.train, 100.0% of the boxes above 0.5; "
        f"{boxes} at stride 8, 0 at stride 16, 0 at stride 32"
    )
    assert [line[:44] for line in lines[1:]] == [
        "  no box of data.train belongs to stride 16,",
        "  no box of data.train belongs to stride 32,",
    ]


def test_without_a_box_there_is_nothing_to_compare():
    config = make_config(neck="yolov3")
    assert settle_anchors(resolved_of(config), make_dataset([])).config is config
    assert list(describe_anchors(config, make_dataset([(9, 9)], ignored=[True]))) == [
        "model.head.anchors: data.train has no box to compare them with"
    ]


def test_a_run_keeps_what_was_fitted(tmp_path, monkeypatch):
    """The numbers stand in config.yaml and in the checkpoint; a resumed run fits nothing."""
    argv = quickstart(
        tmp_path,
        model={"head.anchors": "auto", "encoder.width": 0.25},
        data={"train.images": 40, "val.images": 2},
        training={"batch_size": 2, "micro_batch_size": 2, "steps": 1},
    )
    assert training.main([*argv, "--name=run"]) == 0
    saved = (tmp_path / "run/config.yaml").read_text()
    assert f"]]  # {ORIGIN}" in saved
    anchors = load_config(tmp_path / "run/config.yaml").data["model"]["head"]["anchors"]
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    assert len(anchors) == 9
    assert checkpoint["anchors_px"] == checkpoint["config"]["model"]["head"]["anchors"] == anchors
    monkeypatch.setattr(yolo.factory.anchors, "fit_anchors", None)
    resume = ["--resume", str(tmp_path / "run"), "--gpu=cpu"]
    assert training.main([*resume, "training.steps=2"]) == 0
    assert load_checkpoint(tmp_path / "run/last.pt")["anchors_px"] == anchors
    assert training.main([*resume, "model.head.anchors=auto"]) == 1


def test_the_configs_fit_their_own_data(real_data, tmp_path, monkeypatch):
    """Also the figures of 9 fitted anchors against COCO's, on real boxes."""
    monkeypatch.setattr("yolo.factory.data.CACHE", tmp_path)
    coco = [
        f"data.train.annotations={real_data}/coco-mini/annotations/instances_train2017.json",
        f"data.train.images={real_data}/coco-mini/train2017",
    ]
    bccd = [f"data.train.root={real_data}/bccd"]
    better = {}
    for path, overrides in (("darknet53_coco", coco), ("bccd", bccd), ("yolov3_tiny_coco", coco)):
        file = REPOSITORY_ROOT / f"configs/yolov3/{path}.yaml"
        resolved = load_config(file, overrides)
        train = build_dataset(resolved.config, "train")
        assert settle_anchors(resolved, train) is resolved
        fitted = settle_anchors(load_config(file, [*overrides, "model.head.anchors=auto"]), train)
        sizes = box_sizes_px(train.annotations, resolved.config.data.image_size)
        figures = [levels_of(one.config, sizes)[0].average_iou for one in (resolved, fitted)]
        better[path] = [round(figure, 2) for figure in figures]
    assert better["darknet53_coco"] == [0.60, 0.63] and better["bccd"] == [0.88, 0.89]
    assert better["yolov3_tiny_coco"][0] < better["yolov3_tiny_coco"][1]
