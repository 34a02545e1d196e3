import math

import pytest
import torch

from tests.detection.losses.cases import make_targets
from yolo.detection.losses.loss import ClassificationLoss


def truth(labels):
    return make_targets([(i, 0.5, 0.5, 1, 1, label) for i, label in enumerate(labels)])


def test_by_hand():
    """Probabilities 1/2, 1/4, 1/4; the truths are classes 0 and 2; the step has 8 images."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]] * 2)
    (term,) = ClassificationLoss()(logits, truth([0, 2]), 8, images_seen=0).values()
    assert term.item() == pytest.approx((math.log(2) + math.log(4)) / 8)


def test_smoothing_by_hand():
    """Of the truth 0.7 stay, and 0.1 goes to each of the 3 classes."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    term = ClassificationLoss(label_smoothing=0.3)(logits, truth([0]), 1)["class"]
    assert term.item() == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))


def test_micro_batches_add_up_to_the_gradient_of_one_batch():
    logits, labels, loss = torch.randn(6, 5), [0, 4, 2, 2, 1, 3], ClassificationLoss()
    whole = logits.clone().requires_grad_()
    loss(whole, truth(labels), 6)["class"].backward()
    parts = logits.clone().requires_grad_()
    for cut in (slice(0, 4), slice(4, 6)):
        loss(parts[cut], truth(labels[cut]), 6)["class"].backward()
    torch.testing.assert_close(whole.grad, parts.grad)


def test_an_image_without_its_label_is_a_bug():
    with pytest.raises(AssertionError, match="one label"):
        ClassificationLoss()(torch.zeros(2, 3), truth([0]), 2)
