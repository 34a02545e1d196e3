"""A detector that knows the truth, on images whose shapes need the letterbox."""

import signal
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.coco_files import coco_truth
from tests.detectors import ONE_RANK
from yolo.apps.report.drawing import EvaluationPictures, class_colour
from yolo.detection.assign import assign_best_anchor
from yolo.detection.coders import AnchorCoder, GridCoder
from yolo.detection.losses.yolov1 import YOLOv1Loss
from yolo.detection.losses.yolov2 import YOLOv2Loss
from yolo.detection.losses.yolov3 import YOLOv3Loss
from yolo.detection.postprocess import Postprocess
from yolo.evaluate.evaluators import DetectionEvaluator, Found
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.metric import grid_accuracy
from yolo.evaluate.metrics.voc import VocMetric
from yolo.evaluate.network_run import NetworkRun
from yolo.letterbox import Letterbox
from yolo.records import Batch, Sample
from yolo.train.interruption import Interruption
from yolo.train.precision import Precision

ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 70]],
    [[80, 60], [70, 85], [90, 90]],
]
STRIDES = (8, 16, 32)
SIZE = 96
NAMES, LABELS = ("cat", "dog", "tree"), (0, 1, 2)

# height, width, then boxes: x1, y1, x2, y2 in pixels of the original, label, crowd
IMAGES = [
    (60, 90, [(5.0, 6.0, 40.0, 50.0, 0, False), (45.0, 10.0, 88.0, 58.0, 1, False)]),
    (200, 37, [(2.0, 100.0, 36.0, 190.0, 2, False)]),
    (96, 96, []),
    (500, 1201, [(100.0, 50.0, 700.0, 450.0, 0, False), (800.0, 9.0, 1190.0, 480.0, 1, True)]),
    (31, 31, [(1.0, 1.0, 30.0, 30.0, 1, False)]),
]
ROWS = [(100 + i, row) for i, (_, _, boxes) in enumerate(IMAGES) for row in boxes]
BOXES = 5  # that a detector should find


def coder() -> AnchorCoder:
    return AnchorCoder(anchors_px=ANCHORS, stride_px=STRIDES)


def sample(image_id: int, height: int, width: int, boxes: Sequence[tuple]) -> Sample:
    image = np.random.default_rng(image_id).integers(0, 256, (height, width, 3), np.uint8)
    box = Letterbox.fit((height, width), SIZE)
    corners = np.array([row[:4] for row in boxes], np.float32).reshape(-1, 4)
    return Sample(
        image=box.image(image),
        boxes_xyxy_px=box.boxes(corners),
        labels=np.array([row[4] for row in boxes], np.int64),
        ignored=np.array([row[5] for row in boxes], bool),
        image_id=image_id,
        original_size_hw=(height, width),
    )


def batches(size: int = 2) -> list[Batch]:
    samples = [sample(100 + i, *image) for i, image in enumerate(IMAGES)]
    return [Batch.from_samples(samples[i : i + size]) for i in range(0, len(samples), size)]


def ground_truth() -> dict:
    sizes_hw = {100 + i: (height, width) for i, (height, width, _) in enumerate(IMAGES)}
    rows = [(image_id, row[4], row[:4], row[5]) for image_id, row in ROWS]
    return coco_truth(sizes_hw, rows, dict(enumerate(NAMES)))


def voc_metric() -> VocMetric:
    return VocMetric(
        image_ids=np.array([image_id for image_id, _ in ROWS]),
        category_ids=np.array([row[4] for _, row in ROWS]),
        boxes_xyxy_px=np.array([row[:4] for _, row in ROWS]),
        difficult=np.array([row[5] for _, row in ROWS]),
        all_category_ids=LABELS,
    )


def true_raw(batch: Batch) -> list[Tensor]:
    """The maps of a network that is certain of the truth and of nothing else."""
    raw = [torch.full((len(batch), 3, SIZE // s, SIZE // s, 5 + 3), -12.0) for s in STRIDES]
    targets = batch.targets
    boxes_px = targets.boxes_cxcywh_norm * SIZE
    at = assign_best_anchor(targets, boxes_px, coder(), raw)
    within, log_size = coder().encode(
        boxes_px, level=at.level, anchor=at.anchor, row=at.row, column=at.column
    )
    for t in at.owns.nonzero().flatten().tolist():
        cell = raw[at.level[t]][targets.image_index[t], at.anchor[t], at.row[t], at.column[t]]
        cell[:2], cell[2:4] = within[t].clamp(1e-6, 1 - 1e-6).logit(), log_size[t]
        cell[4] = cell[5 + targets.labels[t]] = 12.0
    return raw


class Oracle(nn.Module):
    """Gives out prepared maps, batch after batch."""

    def __init__(self, raw: Sequence[list[Tensor]]) -> None:
        super().__init__()
        self._raw = raw
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        assert images.dtype == torch.uint8 and not torch.is_grad_enabled()
        self.modes.append(self.training)
        return self._raw[len(self.modes) - 1]


def oracle(size: int = 2) -> Oracle:
    return Oracle([true_raw(batch) for batch in batches(size)])


class NoiseNet(nn.Module):
    """Boxes all over the image, that depend on its pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Conv2d(3, 3 * 8, s, s) for s in STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images.float() / 16 - 8
        maps = [layer(x) for layer in self.layers]
        return [m.view(len(m), 3, 8, *m.shape[2:]).permute(0, 1, 3, 4, 2) for m in maps]


def accuracy_of(loss):
    return lambda raw, targets: grid_accuracy(loss.matches(raw, targets))


def evaluator(**changes) -> DetectionEvaluator:
    loss = YOLOv3Loss(coder=coder())
    parts = {
        "batches": batches(),
        "images": len(IMAGES),
        "metrics": [CocoMetric(ground_truth=ground_truth())],
        "class_names": NAMES,
        "monitor": "AP",
        "coder": coder(),
        "postprocess": Postprocess(conf=0.1, iou=0.5),
        "loss": loss,
        "accuracy": accuracy_of(loss),
        "precision": Precision("fp32"),
        "ranks": ONE_RANK,
    }
    parts |= changes
    of_run = ("batches", "images", "loss", "accuracy", "precision", "ranks")
    network = NetworkRun(**{name: parts.pop(name) for name in of_run})
    return DetectionEvaluator(network=network, **parts)


def drawing(count: int) -> dict:
    return {"pictures": EvaluationPictures(), "picture_count": count}


never = Interruption()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_whoever_knows_the_truth_scores_1(size: int) -> None:
    model = oracle(size).train()
    result = evaluator(batches=batches(size)).evaluate(model, never)
    assert result.figure == result.figures["AP"] == pytest.approx(1, abs=1e-9)
    assert result.figures["APl"] == pytest.approx(1) and result.figures["found_boxes"] == BOXES
    assert set(model.modes) == {False} and model.training  # as it was before
    assert result.images_per_second > 0 and len(result.text.splitlines()) == 12

    whole = batches(len(IMAGES))[0]
    terms = YOLOv3Loss(coder=coder())(true_raw(whole), whole.targets, len(IMAGES))
    for name, term in terms.items():
        assert result.figures[f"loss/{name}"] == pytest.approx(term.item(), rel=1e-5)
    assert result.figures["loss"] == pytest.approx(sum(terms.values()).item(), rel=1e-5)


def test_the_grids_accuracy_is_that_of_all_images_together() -> None:
    whole = batches(len(IMAGES))[0]
    model = NoiseNet()
    counts = grid_accuracy(YOLOv3Loss(coder=coder()).matches(model(whole.images), whole.targets))
    expected = {f"accuracy/{name}": float(hits / of) for name, (hits, of) in counts.items()}
    result = evaluator().evaluate(model, never)
    logged = {name: v for name, v in result.figures.items() if name.startswith("accuracy/")}
    assert logged == expected and {"accuracy/class", "accuracy/no_object"} <= set(logged)
    assert 0.1 < logged["accuracy/no_object"] < 0.9

    knows = evaluator().evaluate(oracle(), never)
    assert [knows.figures[f"accuracy/{n}"] for n in ("class", "object", "no_object")] == [1, 1, 1]
    without = evaluator(loss=None, accuracy=None).evaluate(model, never)
    assert not any("accuracy" in name for name in without.figures)


def test_what_nothing_asked_for_has_no_accuracy() -> None:
    empty = [batches(1)[2]]  # the image without boxes
    result = evaluator(batches=empty, images=1).evaluate(NoiseNet(), never)
    assert "accuracy/no_object" in result.figures
    assert not {"accuracy/class", "accuracy/object"} & set(result.figures)


def test_two_metrics_are_reported_one_behind_the_other() -> None:
    metrics = [voc_metric(), CocoMetric(ground_truth=ground_truth())]
    scoring = evaluator(metrics=metrics, monitor="mAP", per_class=True)
    result = scoring.evaluate(oracle(), never)
    assert result.figure == result.figures["mAP"] == 1
    assert result.figures["mAP_11"] == result.figures["mAP_fixed"] == 1
    assert result.figures["AP50"] == pytest.approx(1)
    lines = result.text.splitlines()
    assert len(lines) == 3 + len(NAMES) + 12 + len(NAMES)
    assert lines[0].startswith(" Mean Average Precision") and lines[6].startswith(" Average Prec")
    assert lines[3] == f" {'cat':<20} AP = 1.000  AP_11 = 1.000  AP_fixed = 1.000"
    assert lines[-1] == f" {'tree':<20} AP = 1.000  AP50 = 1.000"


class RawMap(nn.Module):
    """One map of a given shape for each image, that depends on its pixels."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.shape = shape
        self.layer = nn.Linear(3 * 8 * 8, int(np.prod(shape)))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = nn.functional.avg_pool2d(images.float() / 255 - 0.5, SIZE // 8).flatten(1)
        return [self.layer(x).unflatten(1, self.shape)]


def yolov1() -> tuple[nn.Module, nn.Module, nn.Module]:
    grid = GridCoder(cells=3, boxes=2, stride_px=SIZE // 3)
    return RawMap(3, 3, 2 * 5 + 3), grid, YOLOv1Loss(coder=grid)


def yolov2() -> tuple[nn.Module, nn.Module, nn.Module]:
    one_map = AnchorCoder(
        anchors_px=ANCHORS[1:2], stride_px=STRIDES[2:], class_activation="softmax"
    )
    return RawMap(3, 3, 3, 5 + 3), one_map, YOLOv2Loss(coder=one_map)


@pytest.mark.parametrize("generation", [yolov1, yolov2])
def test_every_generation_is_scored(generation) -> None:
    model, its_coder, loss = generation()
    parts = {"coder": its_coder, "loss": loss, "accuracy": accuracy_of(loss)}
    parts["postprocess"] = Postprocess(conf=0.0, iou=0.5)
    result = evaluator(**parts, metrics=[voc_metric()], monitor="mAP").evaluate(model, never)
    assert 0 <= result.figure <= 1
    whole = batches(len(IMAGES))[0]
    with torch.inference_mode():
        raw = model(whole.images)
        terms = loss(raw, whole.targets, len(IMAGES))
        counts = grid_accuracy(loss.matches(raw, whole.targets))
    for name, term in terms.items():
        assert result.figures[f"loss/{name}"] == pytest.approx(term.item(), rel=1e-4)
    for name, (hits, of) in counts.items():
        assert result.figures[f"accuracy/{name}"] == float(hits / of)
    assert result.figures["found_boxes"] > 0


def test_boxes_come_back_in_pixels_of_the_original() -> None:
    found = evaluator().find(oracle(), never)
    assert found.run.images == len(IMAGES)
    rows = [(image_id, row) for image_id, row in ROWS if not row[5]]
    assert sorted(found.image_ids.tolist()) == [image_id for image_id, _ in rows]
    for image_id, (*corners, label, _) in rows:
        mine = (found.image_ids == image_id) & (found.labels == label)
        np.testing.assert_allclose(found.boxes_xyxy_px[mine], [corners], atol=0.02)
    assert (found.scores > 0.999).all()


def test_nothing_found_is_a_score_of_0() -> None:
    silent = Oracle([[m.fill_(-12) for m in true_raw(batch)] for batch in batches()])
    result = evaluator(loss=None, accuracy=None, **drawing(1)).evaluate(silent, never)
    assert result.figures["AP"] == result.figures["found_boxes"] == 0


def test_the_classes_are_listed_on_request() -> None:
    result = evaluator(per_class=True).evaluate(oracle(), never)
    rows = [line.split() for line in result.text.splitlines()[12:]]
    assert [row[0] for row in rows] == list(NAMES)
    assert {row[3] for row in rows} == {row[6] for row in rows} == {"1.000"}
    names = ("\x1b[2Jcat", *NAMES[1:])  # of a stranger's checkpoint: they command no terminal
    text = evaluator(per_class=True, class_names=names).evaluate(oracle(), never).text
    assert "\n \\x1b[2Jcat " in text and "\x1b" not in text


def test_an_interruption_ends_it_without_a_result() -> None:
    model = oracle().train()
    interruption = Interruption()
    second = (interruption._note(signal.SIGTERM, None) for _ in range(1))
    signalled = chain(batches()[:1], second)
    assert evaluator(batches=signalled).evaluate(model, interruption) is None
    assert len(model.modes) == 1 and model.training


def test_pictures_show_truth_beside_prediction() -> None:
    result = evaluator(**drawing(4)).evaluate(oracle(), never)
    assert len(result.pictures) == 4
    for picture, (height, width, boxes) in zip(result.pictures, IMAGES, strict=False):
        scaled_h, scaled_w = Letterbox.fit((height, width), SIZE).scaled_hw
        image = picture[-scaled_h:]  # below the titles, and without the padding of the letterbox
        truth, prediction = image[:, :scaled_w], image[:, -scaled_w:]
        for x1, _, x2, y2, label, crowd in boxes:
            x1, x2 = round(x1 * scaled_w / width), round(x2 * scaled_w / width)
            bottom = round(y2 * scaled_h / height) - 1
            edges = [
                (half[bottom - 1 : bottom + 2, x1:x2] == class_colour(label)).all(-1).mean(1).max()
                for half in (truth, prediction)
            ]
            if crowd:
                assert (truth == class_colour(label)).all(-1).any() and edges[1] == 0
            else:
                assert min(edges) > 0.9
        for label in set(range(3)) - {row[4] for row in boxes}:
            assert not (image == class_colour(label)).all(-1).any()


def test_pictures_show_one_label_of_a_box() -> None:
    """Every box is found with all classes, and drawn with its best."""

    class Drawn:
        boxes: ClassVar[list[list[float]]] = []

        def draw(self, truth, found, class_names):
            self.boxes += found.boxes_xyxy_px.tolist()
            assert (found.scores >= 0.25).all()
            return np.zeros((1, 1, 3), np.uint8)

    every = Postprocess(conf=0.1, iou=0.5, labels="all_classes")
    found = evaluator(postprocess=every, pictures=Drawn(), picture_count=3).find(NoiseNet(), never)
    assert len(found.pictures) == 3 and len(Drawn.boxes) > 3
    assert len({tuple(box) for box in Drawn.boxes}) == len(Drawn.boxes)
    assert len({tuple(box) for box in found.boxes_xyxy_px.tolist()}) < len(found.scores)


def same(a: Found, b: Found) -> bool:
    names = ("image_ids", "labels", "boxes_xyxy_px", "scores")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_a_threshold_can_be_applied_afterwards() -> None:
    low = evaluator(postprocess=Postprocess(conf=0.0, iou=0.5)).find(NoiseNet(), never)
    for conf in (0.3, *np.sort(low.scores)[[10, 500, -20]].tolist()):  # a score itself passes
        high = evaluator(postprocess=Postprocess(conf=conf, iou=0.5)).find(NoiseNet(), never)
        assert 0 < len(high.scores) < len(low.scores)
        assert same(low.above(conf), high)
        assert high.run.images == low.above(conf).run.images == len(IMAGES)


def test_the_network_runs_in_the_given_precision() -> None:
    formats = []
    model = NoiseNet()
    model.register_forward_hook(lambda *call: formats.append(call[-1][0].dtype))
    found = evaluator(precision=Precision("bf16")).find(model, never)
    assert set(formats) == {torch.bfloat16}
    assert len(found.scores) > 10
    assert found.scores.dtype == found.boxes_xyxy_px.dtype == np.float32
    assert np.isfinite(list(found.run.losses.values())).all()
