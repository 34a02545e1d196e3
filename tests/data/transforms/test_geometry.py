"""All geometry is one map: what comes back where, and how sharp."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.painted import always, augmented, found_box, painted_sample
from yolo.data.transforms.augment import Augment, letterbox_sample
from yolo.letterbox import FILL_COLOUR_RGB

FLIP = always("HorizontalFlip")
CHAINS: dict[str, list[dict[str, Any]]] = {
    "letterbox": [],
    "flip": [FLIP],
    "stretch": [always("Resize")],
    "cut": [always("RandomResizedCrop", scale=[0.7, 0.9], ratio=[0.2, 5.0])],
    "affine": [always("Affine", scale=[0.7, 1.1], translate_percent=[-0.1, 0.1])],
    "unequal": [always("Affine", scale={"x": 0.7, "y": 1.1}, keep_ratio=False)],
    "turn": [always("Rotate", limit=[4, 4])],
    "fit": [always("Affine", rotate=3, fit_output=True)],
    "border cut": [always("Rotate", limit=[2, 2], crop_border=True)],
    "safe crop": [always("RandomSizedBBoxSafeCrop")],
    "crop": [always("RandomCrop", height=250, width=254)],
    "edge": [always("Affine", scale=0.8, border_mode=1)],
    "stretch, flip, affine": [
        always("Resize"),
        FLIP,
        always("Affine", scale=[0.8, 1.1], translate_px=[-9, 9]),
    ],
    "affine, flip, turn": [
        always("Affine", scale=0.8, shear=[1, 2]),
        FLIP,
        always("Rotate", limit=[-3, -3]),
    ],
    "affine, crop, affine, flip": [
        always("Affine", scale=0.9, translate_px=5),
        always("RandomCrop", height=240, width=250),
        always("Affine", scale=1.05, translate_px=-4),
        FLIP,
    ],
    "flip, edge, flip": [FLIP, always("Affine", scale=0.8, translate_px=11, border_mode=1), FLIP],
}
SIZES_HW = [(401, 123), (131, 397), (255, 257), (1037, 889), (59, 47)]


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_a_painted_rectangle_is_where_its_box_says(name: str, size_hw: tuple[int, int]) -> None:
    augment = Augment(transforms=CHAINS[name])
    height, width = size_hw
    box = [width * 2 // 5, height * 2 // 5, width * 3 // 5 + 1, height * 3 // 5]
    for seed in range(3):
        result = augment(painted_sample([box], size_hw=size_hw), size_px=256, seed=(seed,))
        assert result.image.shape == (256, 256, 3)
        found = found_box(result.image)
        np.testing.assert_allclose(result.boxes_xyxy_px[0], found, atol=0.4, err_msg=f"{seed}")


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_a_flip_is_the_letterbox_of_validation_mirrored(size_hw: tuple[int, int]) -> None:
    sample = painted_sample([[3, 5, 20, 30]], size_hw=size_hw)
    sample.image[::2] = np.random.default_rng(0).integers(0, 256, sample.image[::2].shape)
    plain = letterbox_sample(sample, 96)
    nothing = always("Affine", scale=1.0, rotate=0.0)
    for flips in (1, 2):
        result = augmented([FLIP, nothing] * flips, sample, size_px=96)
        assert (result.image == plain.image[:, :: (-1) ** flips]).all()


def test_what_one_transform_moves_out_the_next_one_can_bring_back() -> None:
    """A frame of 400 px twice as large and half as large again: nothing is lost in between."""
    zoom = [always("Affine", scale=scale) for scale in (2.0, 0.5)]
    corner = painted_sample([[0, 0, 50, 50]], size_hw=(400, 400))
    result = augmented(zoom, corner, size_px=400)
    np.testing.assert_allclose(result.boxes_xyxy_px, [[0, 0, 50, 50]], atol=1e-4)
    assert not result.ignored[0]
    assert (result.image[:50, :50] == corner.image[:50, :50]).all()


def test_ten_maps_blur_no_more_than_one() -> None:
    """Turned to and fro ten times, the stripes are what they were: nothing was interpolated."""
    stripes = painted_sample([[x, 0, x + 1, 200] for x in range(40, 160, 4)], size_hw=(200, 200))
    turns = [always("Rotate", limit=[angle, angle]) for angle in [7.0, -7.0] * 5]
    result = augmented(turns, stripes, size_px=200)
    assert (result.image == stripes.image).all()


def test_a_fine_pattern_that_shrinks_is_averaged() -> None:
    """A chequerboard of single pixels at a quarter of its size is even grey."""
    board = painted_sample([], size_hw=(1600, 1600))
    board.image[:] = (np.indices((1600, 1600)).sum(axis=0) % 2 * 255)[..., None]
    result = augmented([always("Affine", scale=0.5, rotate=7)], board, size_px=800)
    middle = result.image[300:500, 300:500].astype(int)
    assert abs(middle - 127.5).max() < 2


@pytest.mark.parametrize("size_hw", [(1037, 889), (13, 1201), (1201, 13)], ids=str)
def test_an_image_that_shrinks_reaches_to_the_edge_of_its_box(size_hw: tuple[int, int]) -> None:
    """Averaged in blocks, of which the image has no whole number."""
    height, width = size_hw
    whole = painted_sample([[0, 0, width, height]], size_hw=size_hw)
    result = augmented([always("Affine", scale=0.9)], whole, size_px=512)
    np.testing.assert_allclose(result.boxes_xyxy_px, [found_box(result.image)], atol=1.0)


def test_boxes_of_one_pixel_stay_on_their_pixel() -> None:
    boxes = [[x, y, x + 1, y + 1] for x, y in ((0, 0), (99, 0), (57, 31), (0, 99), (99, 99))]
    for box in boxes:
        one = painted_sample([box], size_hw=(100, 100))
        shift = always("Affine", scale=0.8, translate_px=1)
        for transforms, size_px in (([FLIP], 100), ([shift, FLIP], 400)):
            result = augmented(transforms, one, size_px=size_px)
            place, pixels = result.boxes_xyxy_px[0], result.image
            np.testing.assert_allclose(place, found_box(pixels), atol=1.0)
            x, y = ((place[:2] + place[2:]) / 2).astype(int)
            assert pixels[y, x, 0] > 200


def test_zooming_out_is_one_warp_onto_the_mean_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the size, 120 px to the right and 80 up, whatever else moves the image."""
    warps, warp = [], cv2.warpAffine
    monkeypatch.setattr(cv2, "warpAffine", lambda *a, **kw: warps.append(a) or warp(*a, **kw))
    red = painted_sample([[0, 0, 200, 100]], size_hw=(100, 200))
    zoom = always("Affine", scale=0.25, translate_percent={"x": 0.3, "y": -0.2}, keep_ratio=True)
    result = augmented([FLIP, zoom], red, size_px=400)
    assert len(warps) == 1
    np.testing.assert_allclose(result.boxes_xyxy_px, [[270, 95, 370, 145]], atol=1e-3)
    assert not result.ignored[0]
    beside = np.ones((400, 400), bool)
    beside[94:146, 269:371] = False
    assert (result.image[beside] == FILL_COLOUR_RGB).all()
    assert (result.image[96:144, 271:369] == (255, 0, 0)).all()


def test_the_border_that_was_asked_for() -> None:
    """A red image, wide: the letterbox is grey, what a transform lays bare has its own colour."""
    red = painted_sample([[0, 0, 200, 100]], size_hw=(100, 200))
    for border, above, beside in (
        ({}, FILL_COLOUR_RGB, FILL_COLOUR_RGB),
        ({"fill": 0}, (0, 0, 0), (0, 0, 0)),
        ({"fill": [1, 2, 3]}, (1, 2, 3), (1, 2, 3)),
        ({"border_mode": cv2.BORDER_REPLICATE}, FILL_COLOUR_RGB, (255, 0, 0)),
    ):
        result = augmented([always("Affine", scale=0.5, **border)], red, size_px=200)
        assert result.image[5, 100].tolist() == list(above), border
        assert result.image[100, 5].tolist() == list(beside), border
        assert result.image[60, 100].tolist() == list(FILL_COLOUR_RGB), border  # the letterbox
        np.testing.assert_allclose(result.boxes_xyxy_px, [[50, 75, 150, 125]], atol=1e-4)


def test_a_crop_discards_what_it_cuts_off() -> None:
    """Half of the square is cut away; made smaller afterwards, it does not come back."""
    chain = [always("RandomCrop", height=200, width=100), always("Affine", scale=0.5)]
    red = painted_sample([[0, 0, 200, 200]], size_hw=(200, 200))
    result = augmented(chain, red, size_px=200, min_visibility=0.6)
    np.testing.assert_allclose(result.boxes_xyxy_px, [[75, 50, 125, 150]], atol=1e-4)
    np.testing.assert_allclose(found_box(result.image), [75, 50, 125, 150], atol=1.0)
    assert result.ignored.tolist() == [True]
