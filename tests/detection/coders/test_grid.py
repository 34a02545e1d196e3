import pytest
import torch

from yolo.boxes import cxcywh_to_xyxy
from yolo.detection.coders.grid import GridCoder

CELLS, BOXES, CLASSES = 7, 2, 3
SIZE = 448


def coder() -> GridCoder:
    return GridCoder(cells=CELLS, boxes=BOXES)


def empty_map(images: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(images, CELLS, CELLS, BOXES * 5 + CLASSES, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_by_hand(dtype: torch.dtype) -> None:
    """Cell (row 2, column 3), its second box: half the image wide, a quarter high."""
    raw = empty_map(dtype=dtype)
    raw[0, 2, 3, 5:10] = torch.tensor([0.5, 0.25, -(0.5**0.5), 0.5, 0.75])
    raw[0, 2, 3, 10:] = torch.tensor([0.0, 1.0, 0.5])
    boxes, scores = coder()([raw])
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes.shape == (1, 98, 4) and scores.shape == (1, 98, CLASSES)
    place = (2 * 7 + 3) * 2 + 1  # row, column, box
    x, y, w, h = 3.5 * 64, 2.25 * 64, 224, 112
    expected = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    tolerance = {torch.float32: 1e-3, torch.bfloat16: 1.0}[dtype]
    assert boxes[0, place].tolist() == pytest.approx(expected, abs=tolerance)
    assert scores[0, place].tolist() == pytest.approx([0, 0.75, 0.375])
    assert boxes[0, place - 1].tolist() == [192, 128, 192, 128]  # zeros: a point in the corner
    assert scores[0, place - 1].tolist() == [0, 0, 0]


def test_decoding_undoes_encoding_in_every_cell() -> None:
    count = 200
    boxes = torch.cat((torch.rand(count, 2), torch.rand(count, 2) ** 3), dim=1)  # cxcywh
    column, row = (boxes[:, :2] * CELLS).long().unbind(1)
    target = coder().encode(boxes, row=row, column=column)
    assert (target >= 0).all() and (target <= 1).all()
    for t in range(count):
        raw = empty_map()
        raw[0, row[t], column[t], 5:9] = target[t]
        decoded, _ = coder()([raw])
        found = decoded[0, (row[t] * CELLS + column[t]) * BOXES + 1]
        torch.testing.assert_close(found, cxcywh_to_xyxy(boxes[t]) * SIZE, atol=1e-3, rtol=1e-5)


def test_scores_are_products_of_what_is_positive_up_to_one() -> None:
    raw = empty_map()
    raw[0, 0, 0, 4], raw[0, 0, 0, 9] = 1.25, -0.5
    raw[0, 0, 0, 10:] = torch.tensor([0.6, 0.9, -0.5])
    _, scores = coder()([raw])
    assert scores[0, 0].tolist() == pytest.approx([0.75, 1.0, 0.0])
    assert scores[0, 1].tolist() == [0, 0, 0], "two negative numbers are no detection"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_for_any_output(dtype: torch.dtype) -> None:
    values = torch.tensor(
        [0, 6e-8, 1, -1, 300, -300, 3e38, -3e38, torch.nan, torch.inf, -torch.inf]
    )
    raw = values[torch.randint(len(values), (4, CELLS, CELLS, BOXES * 5 + CLASSES))].to(dtype)
    boxes, scores = coder()([raw])
    assert boxes.isfinite().all() and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all()
    assert boxes.abs().max() > 1e6  # the wildest is still wild
    assert scores.max() == 1


def test_it_decodes_its_own_grid_alone() -> None:
    with pytest.raises(AssertionError, match="grid"):
        coder()([torch.zeros(1, 6, 7, BOXES * 5 + CLASSES)])
