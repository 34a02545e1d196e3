import math

import pytest
import torch

from tests.detection.losses.cases import (
    CELLS,
    CLASSES,
    V2_ANCHORS,
    V3,
    V3_ANCHORS,
    V3_STRIDES,
    make_v1,
)
from tests.detection.losses.cases import V3_SIZE as SIZE
from yolo.boxes import cxcywh_to_xyxy
from yolo.detection.coders import AnchorCoder

BOXES, GRID_PX = 2, 448
grid_coder = make_v1().coder


def coder(**kwargs) -> AnchorCoder:
    return AnchorCoder(anchors_px=V3_ANCHORS, stride_px=V3_STRIDES, **kwargs)


def empty_maps(images: int = 1, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.zeros(images, *shape, dtype=dtype) for shape in V3.shapes]


def grid_map(images: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(images, CELLS, CELLS, BOXES * 5 + 3, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_by_hand(dtype: torch.dtype) -> None:
    """Cell (row 2, column 3) of stride 8, anchor 16 x 30; one class of probability 3 / 4."""
    raw = empty_maps(dtype=dtype)
    raw[0][0, 1, 2, 3, 2] = math.log(2)
    raw[0][0, 1, 2, 3, 5:] = torch.tensor([-100, math.log(3), -100, 0])
    boxes, scores = coder()(raw)
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes.shape == (1, 3 * (144 + 36 + 9), 4) and scores.shape == (1, 567, CLASSES)
    place = 1 * 144 + 2 * 12 + 3  # level, anchor, row, column
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert boxes[0, place].tolist() == pytest.approx([12, 5, 44, 35], abs=tolerance)
    assert scores[0, place].tolist() == pytest.approx([0, 0.375, 0, 0.25], abs=2e-3)
    last = boxes[0, -1].tolist()  # the last anchor of the last cell, from raw zeros
    assert last == pytest.approx([80 - 186.5, 80 - 163, 80 + 186.5, 80 + 163])


@pytest.mark.parametrize("scale_xy", [1.0, 1.1, 2.0])
def test_decoding_undoes_encoding_on_every_level(scale_xy: float) -> None:
    """Also from half a cell outside, as far as the scale reaches."""
    count, scaled = 300, coder(scale_xy=scale_xy)
    level, anchor = torch.randint(3, (2, count))
    centre = torch.rand(count, 2) * SIZE
    boxes = torch.cat((centre, torch.exp(torch.rand(count, 2) * 5.5)), dim=1)  # 1 .. 245 px
    stride = torch.tensor(V3_STRIDES)[level]
    reach = (scale_xy - 1) / 2 * (torch.rand(count, 2) * 2 - 1)  # in cells, to either side
    last = SIZE / stride[:, None] - 1
    column, row = (
        torch.minimum((centre / stride[:, None] + reach).floor().clamp(min=0), last)
        .long()
        .unbind(1)
    )
    place = {"level": level, "anchor": anchor, "row": row, "column": column}
    within, log_size = scaled.encode(boxes, **place)
    assert (within >= 0).all() and (within <= 1).all()
    for t in range(count):
        raw = empty_maps()
        cell = raw[level[t]][0, anchor[t], row[t], column[t]]
        cell[:2], cell[2:4] = within[t].logit(), log_size[t]
        decoded = scaled.level_boxes(raw[level[t]], int(level[t]))
        found = decoded[0, anchor[t], row[t], column[t]]
        torch.testing.assert_close(found, cxcywh_to_xyxy(boxes[t]), atol=1e-3, rtol=1e-5)


def test_the_scale_moves_centres_beyond_their_cell() -> None:
    """With 2, sigmoid 3 / 4 is the right border; what even it cannot reach is encoded as 0 or 1."""
    raw = empty_maps()[2]
    raw[0, 0, 1, 1, 0] = math.log(3)
    x1, _, x2, _ = coder(scale_xy=2.0).level_boxes(raw, 2)[0, 0, 1, 1].tolist()
    assert (x1 + x2) / 2 == pytest.approx(64)
    zero = torch.zeros(1, dtype=torch.int64)
    place = {"level": zero + 2, "anchor": zero, "row": zero, "column": zero}
    within, _ = coder(scale_xy=2.0).encode(torch.tensor([[64.0, 40, 9, 9]]), **place)
    assert within.tolist() == [[1.0, 0.875]]


def test_one_map_of_five_anchors_and_exclusive_classes() -> None:
    """YOLOv2: cell (row 1, column 2) of stride 32, anchor 4; classes of 1 / 6, 3 / 6, 2 / 6."""
    v2 = AnchorCoder(anchors_px=[V2_ANCHORS], stride_px=[32], class_activation="softmax")
    raw = torch.zeros(1, 5, 3, 3, 8)
    raw[0, 3, 1, 2] = torch.tensor([0, math.log(3), math.log(0.5), 0, 0, 0, *map(math.log, (3, 2))])
    boxes, scores = v2([raw])
    assert boxes.shape == (1, 45, 4) and scores.shape == (1, 45, 3)
    place = 3 * 9 + 1 * 3 + 2  # anchor, row, column
    assert boxes[0, place].tolist() == pytest.approx([80 - 25, 56 - 30, 80 + 25, 56 + 30])
    assert scores[0, place].tolist() == pytest.approx([1 / 12, 3 / 12, 2 / 12])


@pytest.mark.parametrize("scale_xy", [1.0, 1.5])
def test_boxes_of_single_places_are_those_of_the_maps(scale_xy: float) -> None:
    scaled = coder(scale_xy=scale_xy)
    raw = [torch.randn_like(m) for m in empty_maps()]
    places = torch.tensor([[0, 2, 3, 7], [1, 0, 1, 4], [2, 1, 0, 1], [2, 0, 2, 0]])
    level, anchor, row, column = places.unbind(1)
    rows = torch.stack([raw[m][0, a, j, i] for m, a, j, i in places])
    corner = torch.stack((column, row), dim=1) * torch.tensor(V3_STRIDES)[level][:, None]
    found = scaled.boxes_in_cells(rows, level=level, anchor=anchor) + corner.repeat(1, 2)
    maps = [scaled.level_boxes(m, i) for i, m in enumerate(raw)]
    expected = [maps[m][0, a, j, i] for m, a, j, i in places]
    torch.testing.assert_close(found, torch.stack(expected))
    middle = (found[:, :2] + found[:, 2:]) / 2
    cxcywh = torch.cat((middle, found[:, 2:] - found[:, :2]), dim=1)
    corners = scaled.corners_in_cells(cxcywh, level=level, row=row, column=column)
    torch.testing.assert_close(corners + corner.repeat(1, 2), found)


def test_a_box_without_extent_encodes_to_finite_numbers() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    boxes = torch.tensor([[3.0, 4, 0, 0]])
    within, log_size = coder().encode(boxes, level=zero, anchor=zero, row=zero, column=zero)
    assert within.tolist() == [[3 / 8, 4 / 8]] and log_size.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_finite_for_any_finite_output(dtype: torch.dtype, activation) -> None:
    values = torch.tensor([0, 6e-8, 1, -1, 30, -30, 300, -300, 65504, -65504])
    raw = [values[torch.randint(10, m.shape)].to(dtype) for m in empty_maps(2)]
    boxes, scores = coder(class_activation=activation)(raw)
    assert boxes.isfinite().all() and scores.isfinite().all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all()
    assert boxes.abs().max() > 1e6  # only the largest are cut


def test_softmax_shares_the_objectness_among_the_classes() -> None:
    raw = [torch.randn_like(m) for m in empty_maps(2)]
    _, scores = coder(class_activation="softmax")(raw)
    objectness = torch.cat([m[..., 4].sigmoid().flatten(1) for m in raw], dim=1)
    torch.testing.assert_close(scores.sum(2), objectness)
    assert (coder()(raw)[1].sum(2) - objectness).abs().max() > 0.1


def test_the_anchors_travel_in_the_state_and_move_with_the_coder() -> None:
    assert coder().state_dict()["anchors_px"].tolist() == V3_ANCHORS
    assert list(coder().to("meta").state_dict()) == ["anchors_px"]
    assert coder().to("meta").strides.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_of_a_grid_by_hand(dtype: torch.dtype) -> None:
    """Cell (row 2, column 3), its second box: half the image wide, a quarter high."""
    raw = grid_map(dtype=dtype)
    raw[0, 2, 3, 5:10] = torch.tensor([0.5, 0.25, -(0.5**0.5), 0.5, 0.75])
    raw[0, 2, 3, 10:] = torch.tensor([0.0, 1.0, 0.5])
    boxes, scores = grid_coder([raw])
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes.shape == (1, 98, 4) and scores.shape == (1, 98, 3)
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
    target = grid_coder.encode(boxes, row=row, column=column)
    assert (target >= 0).all() and (target <= 1).all()
    for t in range(count):
        raw = grid_map()
        raw[0, row[t], column[t], 5:9] = target[t]
        decoded, _ = grid_coder([raw])
        found = decoded[0, (row[t] * CELLS + column[t]) * BOXES + 1]
        torch.testing.assert_close(found, cxcywh_to_xyxy(boxes[t]) * GRID_PX, atol=1e-3, rtol=1e-5)


def test_scores_are_products_of_what_is_positive_up_to_one() -> None:
    raw = grid_map()
    raw[0, 0, 0, 4], raw[0, 0, 0, 9] = 1.25, -0.5
    raw[0, 0, 0, 10:] = torch.tensor([0.6, 0.9, -0.5])
    _, scores = grid_coder([raw])
    assert scores[0, 0].tolist() == pytest.approx([0.75, 1.0, 0.0])
    assert scores[0, 1].tolist() == [0, 0, 0], "two negative numbers are no detection"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_grid_is_finite_for_any_output(dtype: torch.dtype) -> None:
    values = torch.tensor(
        [0, 6e-8, 1, -1, 300, -300, 3e38, -3e38, torch.nan, torch.inf, -torch.inf]
    )
    raw = values[torch.randint(len(values), (4, CELLS, CELLS, BOXES * 5 + 3))].to(dtype)
    boxes, scores = grid_coder([raw])
    assert boxes.isfinite().all() and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (scores >= 0).all() and (scores <= 1).all()
    assert boxes.abs().max() > 1e6  # only the largest are cut
    assert scores.max() == 1


def test_it_decodes_only_its_own_grid() -> None:
    with pytest.raises(AssertionError, match="grid"):
        grid_coder([torch.zeros(1, 6, 7, BOXES * 5 + 3)])
