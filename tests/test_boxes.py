import pytest
import torch
from torchvision.ops import box_convert, box_iou

from yolo.boxes import area, cxcywh_to_xyxy, pairwise_intersection, pairwise_iou, pairwise_shape_iou


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
