import numpy as np
import pytest
import torch

from yolo.letterbox import FILL_COLOUR_RGB, Letterbox

SIZES_HW = [(333, 517), (517, 333), (97, 1003), (1, 640), (640, 1), (1, 1), (64, 64), (31, 17)]


@pytest.mark.parametrize(
    ("source_hw", "scaled_hw", "pad_top", "pad_left"),
    [
        ((100, 200), (32, 64), 16, 0),
        ((200, 100), (64, 32), 0, 16),
        ((1, 640), (1, 64), 31, 0),  # 0.1 px high: one row stays
        ((30, 40), (48, 64), 8, 0),
        ((64, 64), (64, 64), 0, 0),
    ],
)
def test_geometry_by_hand(source_hw, scaled_hw, pad_top, pad_left) -> None:
    assert Letterbox.fit(source_hw, 64) == Letterbox(source_hw, 64, scaled_hw, pad_top, pad_left)


@pytest.mark.parametrize("source_hw", SIZES_HW)
@pytest.mark.parametrize("size_px", [64, 416])
def test_undo_is_the_inverse_of_boxes(source_hw, size_px) -> None:
    letterbox = Letterbox.fit(source_hw, size_px)
    height, width = source_hw
    corners = np.random.default_rng(0).random((50, 2, 2))
    boxes = np.concatenate((corners.min(1), corners.max(1)), axis=1) * np.array([width, height] * 2)
    boxes = np.concatenate((boxes, [[0, 0, width, height]]))
    before = boxes.copy()
    inside = letterbox.boxes(boxes)
    assert (inside >= 0).all() and (inside <= size_px).all()
    kept = inside.copy()
    np.testing.assert_allclose(letterbox.undo(inside), boxes, atol=1e-9 * max(source_hw))
    assert (boxes == before).all() and (inside == kept).all()  # neither argument was changed

    tensor = torch.from_numpy(boxes)
    torch.testing.assert_close(letterbox.boxes(tensor), torch.from_numpy(inside), rtol=0, atol=0)
    undone = letterbox.undo(torch.from_numpy(inside))
    assert (undone.numpy() == letterbox.undo(inside)).all()
    assert (tensor.numpy() == before).all() and (inside == kept).all()


def test_float32_stays_float32_and_no_boxes_are_fine() -> None:
    letterbox = Letterbox.fit((333, 517), 416)
    for boxes in (np.zeros((0, 4), np.float32), torch.zeros(0, 4)):
        for result in (letterbox.boxes(boxes), letterbox.undo(boxes)):
            assert result.dtype == boxes.dtype and result.shape == (0, 4)


def test_undo_clips_to_the_source_image() -> None:
    letterbox = Letterbox.fit((100, 200), 64)
    outside = np.array([[-50.0, -50, 500, 500], [0, 0, 64, 16], [0, 48, 64, 64]], np.float32)
    whole, above, below = letterbox.undo(outside).tolist()
    assert whole == [0, 0, 200, 100]
    assert above == [0, 0, 200, 0] and below == [0, 100, 200, 100]  # they lie in the padding
    assert (letterbox.undo(torch.from_numpy(outside)).numpy() == letterbox.undo(outside)).all()


@pytest.mark.parametrize("source_hw", [(333, 517), (517, 333), (97, 1003), (1, 640), (31, 17)])
@pytest.mark.parametrize("size_px", [96, 416])
def test_a_painted_rectangle_lands_where_boxes_says(source_hw, size_px) -> None:
    """Size and centre of the paint, to a tenth of a pixel: half a pixel of shift would show."""
    height, width = source_hw
    x1, x2 = width // 4, width // 4 + max(width // 3, 1)
    y1, y2 = height // 4, height // 4 + max(height // 3, 1)
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    letterbox = Letterbox.fit(source_hw, size_px)
    square = letterbox.image(image)
    assert square.shape == (size_px, size_px, 3) and square.dtype == np.uint8

    paint = square[..., 0] / 255
    inside = np.zeros((size_px, size_px), bool)
    rows = slice(letterbox.pad_top, letterbox.pad_top + letterbox.scaled_hw[0])
    inside[rows, letterbox.pad_left : letterbox.pad_left + letterbox.scaled_hw[1]] = True
    assert (square[~inside] == FILL_COLOUR_RGB).all()
    paint[~inside] = 0

    box = letterbox.boxes(np.array([[x1, y1, x2, y2]], np.float64))[0]
    for axis, low, high in ((0, box[0], box[2]), (1, box[1], box[3])):
        profile = paint.max(axis=axis)
        at = np.arange(size_px) + 0.5  # the middle of a pixel
        assert profile.sum() == pytest.approx(high - low, abs=0.1)
        assert (profile * at).sum() / profile.sum() == pytest.approx((low + high) / 2, abs=0.1)


def test_the_image_given_stays_as_it_is() -> None:
    for shape in ((40, 60, 3), (90, 30, 3), (64, 64, 3), (64, 32, 3)):
        image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        before = image.copy()
        square = Letterbox.fit(shape[:2], 64).image(image)
        assert (image == before).all()
        if max(shape) == 64:  # nothing to scale: the very pixels
            left = (64 - shape[1]) // 2
            assert (square[:, left : left + shape[1]] == image).all()
