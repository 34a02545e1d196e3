import pytest
import torch
from torchvision.ops import (
    box_convert,
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from yolo.boxes import (
    area,
    cxcywh_to_xyxy,
    iou_loss,
    pairwise_intersection,
    pairwise_iou,
    pairwise_shape_iou,
)


def random_boxes(count: int) -> torch.Tensor:
    """Corners in 0..100, float64."""
    corners = torch.rand(count, 2, 2, dtype=torch.float64) * 100
    return torch.cat((corners.amin(1), corners.amax(1)), dim=1)


def test_formats_are_torchvisions() -> None:
    boxes = random_boxes(50)
    centred = box_convert(boxes, "xyxy", "cxcywh")
    torch.testing.assert_close(cxcywh_to_xyxy(centred), boxes)
    torch.testing.assert_close(cxcywh_to_xyxy(centred[None, None])[0, 0], boxes)


def test_iou_is_torchvisions_and_takes_leading_dimensions() -> None:
    a, b = random_boxes(40), random_boxes(30)
    expected = box_iou(a, b)
    assert (expected > 0.3).any() and (expected == 0).any()
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    stacked = pairwise_iou(a.view(2, 20, 4), b.view(2, 15, 4))
    torch.testing.assert_close(stacked[1], expected[20:, 15:])


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 2]])
    b = torch.tensor([[2.0, 1, 6, 3], [4.0, 0, 8, 2], [0.0, 0, 4, 2], [1.0, 1, 3, 2]])
    assert pairwise_intersection(a, b).tolist() == [[2.0, 0.0, 8.0, 2.0]]
    assert pairwise_iou(a, b)[0].tolist() == pytest.approx([2 / 14, 0.0, 1.0, 2 / 8])


def test_empty_and_inverted_boxes_overlap_nothing() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5.0, 0, 5, 9], [8.0, 8, 2, 2], [0.0, 0, 10, 10]])
    assert area(boxes).tolist() == [0, 0, 0, 100]
    iou = pairwise_iou(boxes, boxes)
    assert iou[:3].abs().sum() == 0  # 0, not NaN, also with itself
    assert iou[3].tolist() == [0, 0, 0, 1]
    assert pairwise_iou(boxes[:0], boxes).shape == (0, 4)


def test_shape_iou_is_the_iou_of_boxes_with_one_centre() -> None:
    a, b = torch.rand(20, 2) * 50, torch.rand(9, 2) * 50
    around = [torch.cat((-wh / 2, wh / 2), dim=1) for wh in (a, b)]
    torch.testing.assert_close(pairwise_shape_iou(a, b), box_iou(*around))
    assert pairwise_shape_iou(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0


TORCHVISIONS = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


@pytest.mark.parametrize("kind", TORCHVISIONS)
def test_iou_losses_are_torchvisions_to_their_gradients(kind) -> None:
    """Of boxes that overlap, do not, lie within each other and are the same."""
    found, truth = random_boxes(200), random_boxes(200)
    found[-1], truth[:20] = truth[-1], found[:20] + torch.tensor([1.0, 2, -1, -2]) / 1e3
    losses, gradients = [], []
    for loss in (lambda *pair: iou_loss(kind, *pair), TORCHVISIONS[kind]):
        leaf = found.clone().requires_grad_()
        losses.append(loss(leaf, truth))
        gradients += torch.autograd.grad(losses[-1].sum(), leaf)
    assert losses[0].min().item() == pytest.approx(0, abs=1e-6) and losses[0].max() > 1
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_iou_loss_is_one_minus_the_iou() -> None:
    found, truth = random_boxes(50).requires_grad_(), random_boxes(50)
    torch.testing.assert_close(1 - iou_loss("iou", found, truth), box_iou(found, truth).diagonal())
    assert torch.autograd.gradcheck(lambda boxes: iou_loss("iou", boxes, truth), found)


@pytest.mark.parametrize("kind", ["iou", *TORCHVISIONS])
def test_boxes_without_extent_have_a_loss_and_no_wild_gradient(kind) -> None:
    corners = torch.tensor([[1.0, 1, 1, 1], [0.0, 0, 8e6, 8e6], [3.0, 3, 3, 9]])
    found = corners.repeat_interleave(3, dim=0).requires_grad_()
    loss = iou_loss(kind, found, corners.repeat(3, 1))
    (gradient,) = torch.autograd.grad(loss.sum(), found)
    assert loss.isfinite().all() and gradient.isfinite().all()
