"""The truth as predictions is perfect: through letterbox, label map and json, on real data."""

import pytest
import torch
from torch import nn

from tests.detectors import ONE_RANK
from yolo.boxes import cxcywh_to_xyxy
from yolo.config.schema.training import EvaluationConfig
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.formats.voc import VocDataset
from yolo.data.loader import EvaluationBatches
from yolo.detection.postprocess import Postprocess
from yolo.evaluate.evaluators import DetectionEvaluator
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.network_run import NetworkRun
from yolo.factory.evaluator import build_metrics
from yolo.train.interruption import Interruption
from yolo.train.precision import Precision

SIZE_PX = 416
KEEP_ALL = Postprocess(conf=0.5, iou=1.0, max_detections=300)


class Oracle(nn.Module):
    """Knows the truth of each batch that it will be shown; stands for the network."""

    def __init__(self, batches: EvaluationBatches, classes: int) -> None:
        super().__init__()
        self._answers = [self._answer(batch, classes) for batch in batches]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._answers.pop(0)

    @staticmethod
    def _answer(batch, classes):
        targets = batch.targets
        boxes = torch.zeros(len(batch), targets.max_per_image, 4)
        scores = torch.zeros(len(batch), targets.max_per_image, classes)
        for image in range(len(batch)):
            mine = (targets.image_index == image) & ~targets.ignored
            count = int(mine.sum())
            boxes[image, :count] = cxcywh_to_xyxy(targets.boxes_cxcywh_norm[mine]) * SIZE_PX
            scores[image, torch.arange(count), targets.labels[mine]] = 0.9
        return boxes, scores


def batches_of(dataset: DetectionDataset) -> EvaluationBatches:
    return EvaluationBatches(dataset=dataset, image_size_px=SIZE_PX, batch_size=16)


def evaluator(dataset: DetectionDataset, metrics) -> DetectionEvaluator:
    return DetectionEvaluator(
        network=NetworkRun(
            batches=batches_of(dataset),
            images=len(dataset),
            precision=Precision("fp32"),
            ranks=ONE_RANK,
        ),
        metrics=metrics,
        class_names=dataset.class_names,
        monitor="AP",
        coder=lambda raw: raw,
        postprocess=KEEP_ALL,
    )


def coco(real_data, split):
    root = real_data / "coco-mini"
    annotations = root / f"annotations/instances_{split}2017.json"
    return CocoDataset(annotations=annotations, images=root / f"{split}2017")


def oracle(dataset: DetectionDataset) -> Oracle:
    return Oracle(batches_of(dataset), len(dataset.class_names))


@pytest.mark.parametrize("split", ["train", "val"])
def test_truth_as_predictions_scores_one(real_data, split):
    dataset = coco(real_data, split)
    truth, backends = dataset.ground_truth(), ("hotcoco", "pycocotools")
    metrics = [CocoMetric(ground_truth=truth, backend=backend) for backend in backends]
    found = evaluator(dataset, metrics).find(oracle(dataset), Interruption())
    results = [evaluator(dataset, [metric]).score(found) for metric in metrics]
    assert results[0].stats == results[1].stats
    assert results[0].table == results[1].table
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert results[0].stats[name] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_either_metric_on_data_of_either_form(real_data, metric):
    """VOC's difficult objects and COCO's crowds need not be found, whoever scores."""
    voc = VocDataset(root=real_data / "voc-sample", image_sets=["*"])
    evaluation = EvaluationConfig(every=1, metric=metric, both=True)
    for dataset in (voc, coco(real_data, "val")):
        assert dataset.annotations.ignored.any()
        both = evaluator(dataset, build_metrics(evaluation, dataset))
        stats = both.score(both.find(oracle(dataset), Interruption())).stats
        assert next(iter(stats)) == {"coco": "AP", "voc": "mAP"}[metric]
        for name in ("AP50", "AP75", "mAP", "mAP_11", "mAP_fixed"):
            assert stats[name] == pytest.approx(1.0, abs=1e-9)
