"""A classifier whose answers are prepared, on images that need the letterbox."""

import signal
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.detectors import ONE_RANK
from yolo.apps.report.drawing import EvaluationPictures, class_colour
from yolo.data.transforms.augment import letterbox_sample
from yolo.detection.losses.loss import ClassificationLoss
from yolo.evaluate.evaluators import ClassificationEvaluator
from yolo.evaluate.metrics.metric import top_k
from yolo.evaluate.network_run import NetworkRun
from yolo.records import Batch, Sample
from yolo.train.distributed import Ranks
from yolo.train.interruption import Interruption
from yolo.train.precision import Precision

NAMES = ("bee", "cat", "cow", "dog", "elk", "fox", "gnu")
LABELS = [1, 3, 4, 6, 0]
ANSWER = torch.tensor([0.1, 0.9, 0.4, 0.8, 0.3, 0.7, 0.2])  # the truths' places: 1, 2, 5, 6, 7
SIZES_HW = [(60, 90), (200, 37), (96, 96), (20, 30), (31, 31)]
SIZE = 96


def batches(size: int = 2) -> list[Batch]:
    samples = []
    for label, (height, width) in zip(LABELS, SIZES_HW, strict=True):
        whole = Sample(
            image=np.full((height, width, 3), 50, np.uint8),
            boxes_xyxy_px=np.array([[0, 0, width, height]], np.float32),
            labels=np.array([label]),
            ignored=np.zeros(1, bool),
            image_id=len(samples),
            original_size_hw=(height, width),
        )
        samples.append(letterbox_sample(whole, SIZE))
    return [Batch.from_samples(samples[i : i + size]) for i in range(0, len(samples), size)]


class Same(nn.Module):
    """Answers the same to every image."""

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled() and images.dtype == torch.uint8
        return ANSWER.expand(len(images), -1)


@dataclass(frozen=True, kw_only=True)
class TwoRanks(Ranks):
    """Exchanges with a rank whose share is known."""

    other: tuple

    def gather(self, value):
        return [value, self.other]


def evaluator(**changes) -> ClassificationEvaluator:
    parts = {
        "batches": batches(),
        "images": len(LABELS),
        "loss": ClassificationLoss(),
        "accuracy": top_k,
        "precision": Precision("fp32"),
        "ranks": ONE_RANK,
    }
    network = NetworkRun(**{name: changes.pop(name, part) for name, part in parts.items()})
    return ClassificationEvaluator(network=network, class_names=NAMES, monitor="top5", **changes)


never = Interruption()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_figures_by_hand(size):
    model = Same().train()
    result = evaluator(batches=batches(size)).evaluate(model, never)
    assert (result.figures["top1"], result.figures["top5"], result.figure) == (0.2, 0.6, 0.6)
    loss = -ANSWER.log_softmax(0)[LABELS].mean().item()
    assert result.figures["loss"] == pytest.approx(loss)
    assert result.figures["loss/class"] == pytest.approx(loss)
    assert model.training and result.images_per_second > 0
    assert " top-1 accuracy  = 0.2000  (1 of 5 images)" in result.text.splitlines()


def test_ranks_put_their_shares_together():
    """The other rank has the last two batches of three."""
    shares = {"class": 1.5}, {"top1": np.array([0, 3]), "top5": np.array([1, 3])}
    other = (*shares, (3, 9.0, 9.0, False))
    ranks = TwoRanks(rank=0, world_size=2, device=torch.device("cpu"), other=other)
    result = evaluator(batches=batches()[:1], ranks=ranks).evaluate(Same(), never)
    assert (result.figures["top1"], result.figures["top5"]) == (0.2, 0.6)
    mine = -ANSWER.log_softmax(0)[LABELS[:2]].sum().item() / 5
    assert result.figures["loss"] == pytest.approx(mine + 1.5)
    assert result.images_per_second == pytest.approx(5 / 9.0)
    nothing = evaluator(batches=[], ranks=ranks).evaluate(Same(), never)
    assert (nothing.figures["top1"], nothing.figures["top5"]) == (0.0, 0.2)
    ranks = replace(ranks, other=(*shares, (3, 9.0, 9.0, True)))
    assert evaluator(ranks=ranks).evaluate(Same(), never) is None


def test_an_interruption_ends_it_without_a_result():
    interruption = Interruption()
    second = (interruption._note(signal.SIGTERM, None) for _ in range(1))
    signalled = chain(batches()[:1], second)
    model = Same().train()
    assert evaluator(batches=signalled).evaluate(model, interruption) is None
    assert model.training


def test_pictures_show_truth_beside_answer_all_over_the_data():
    pictures = (
        evaluator(pictures=EvaluationPictures(), picture_count=3).evaluate(Same(), never).pictures
    )
    assert len(pictures) == 3
    for picture, label, (height, width) in zip(pictures, LABELS[::2], SIZES_HW[::2], strict=True):
        shown_w = round(width * SIZE / max(height, width))
        truth, answer = picture[:, :shown_w], picture[:, -shown_w:]
        for half, expected in ((truth, label), (answer, 1)):
            frame = half[-1, 5:-5]  # the lower edge, in the colour of the class
            assert (frame == class_colour(expected)).all()
