"""Mosaic and MixUp."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.data.painted import always, augmented, found_box, painted_sample
from yolo.data.sampling import SampleKey
from yolo.data.transforms.augment import UNMIXED, Augment, Mix, MixUp, Mosaic
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

AFFINE: list[dict[str, Any]] = [
    {"type": "HorizontalFlip", "p": 0.5},
    always("Affine", scale=[0.5, 0.8], rotate=[-3, 3], shear=[-2, 2]),
]
SIZES_HW = [(401, 123), (131, 397), (255, 257), (59, 47)]


def plain(colour: tuple[int, ...], size_hw: tuple[int, int] = (100, 100)) -> Sample:
    """One colour, without boxes."""
    sample = painted_sample([], size_hw=size_hw)
    sample.image[:] = colour
    return sample


def with_box(size_hw: tuple[int, int], *, channel: int = 0, label: int = 0) -> Sample:
    height, width = size_hw
    box = [width // 4, height // 4, width * 3 // 4, height * 3 // 4]
    return painted_sample([box], size_hw=size_hw, channel=channel, label=label)


def join(
    *samples: Sample,
    centre: tuple[float, float] = (0.5, 0.5),
    transforms: list[dict[str, Any]] | None = None,
    size_px: int = 256,
    seed: int = 0,
) -> Sample:
    """A mosaic of four samples."""
    mix = Mix(samples, centre)
    return augmented(transforms or [], samples[0], mix=mix, size_px=size_px, seed=seed)


def test_four_squares_fill_the_square_around_their_centre_by_hand() -> None:
    colours = [(10, 0, 0), (0, 20, 0), (0, 0, 30), (40, 40, 40)]
    image = join(*map(plain, colours), centre=(0.25, 0.625), size_px=200).image
    quarters = image[:125, :50], image[:125, 50:], image[125:, :50], image[125:, 50:]
    for quarter, colour in zip(quarters, colours, strict=True):
        assert (quarter == colour).all()


def test_images_of_other_shapes_touch_the_centre_and_leave_the_mean_colour() -> None:
    """Of 200 px sides: a portrait of 100 x 200, two panoramas of 200 x 50, and one of a pixel."""
    colours = [(10, 0, 0), (0, 20, 0), (0, 0, 30), (40, 40, 40)]
    image = join(
        *map(plain, colours, [(40, 20), (100, 400), (1, 1), (100, 400)]), size_px=200
    ).image
    assert (image[:100, :100] == (10, 0, 0)).all()  # reaches from 100 px above the square
    assert (image[50:100, 100:] == (0, 20, 0)).all()
    assert (image[:50, 100:] == FILL_COLOUR_RGB).all()
    assert (image[100:, :100] == (0, 0, 30)).all()
    assert (image[100:150, 100:] == (40, 40, 40)).all()
    assert (image[150:, 100:] == FILL_COLOUR_RGB).all()


@pytest.mark.parametrize("transforms", [[], AFFINE], ids=["only", "affine"])
@pytest.mark.parametrize("place", range(4))
def test_a_rectangle_in_each_tile_is_where_its_box_says(place, transforms) -> None:
    seen = 0
    for seed, size_hw in enumerate(SIZES_HW * 4):
        tiles = [with_box((90, 120), channel=1, label=9) for _ in range(4)]
        tiles[place] = with_box(size_hw, label=7)
        centre = tuple(np.random.default_rng(seed).random(2).tolist())
        result = join(*tiles, centre=centre, transforms=transforms, seed=seed)
        for box in result.boxes_xyxy_px[result.labels == 7]:
            if transforms and (box.min() == 0 or box.max() == 256):
                continue  # the corner that a slanted side reaches farthest with is cut off
            np.testing.assert_allclose(box, found_box(result.image), atol=0.6)
            seen += 1
    assert seen >= 4


@pytest.mark.parametrize("place", range(4))
def test_a_tile_ends_at_the_pixel_where_it_should(place: int) -> None:
    """Shrunk, the edges lie between pixels: each is painted whole or not at all."""
    for seed in range(12):
        tiles = [plain(FILL_COLOUR_RGB, (1, 1)) for _ in range(4)]
        tiles[place] = painted_sample([[0, 0, 90, 60]], size_hw=(60, 90))
        shrink = always("Affine", scale=[0.2, 0.5])
        result = join(*tiles, transforms=[shrink], seed=seed)
        red = (result.image == (255, 0, 0)).all(axis=-1)
        (rows,), (columns,) = np.nonzero(red.any(axis=1)), np.nonzero(red.any(axis=0))
        edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(result.boxes_xyxy_px[0], edges, atol=0.51)


def test_a_box_cut_by_the_edge_becomes_ignored_and_an_unseen_one_is_gone() -> None:
    """Top left is a square of 200 px of which the right lower 50 px are in sight."""
    boxes = [
        [0, 0, 200, 200],  # a sixteenth is in sight
        [100, 160, 200, 200],  # a half
        [160, 160, 190, 190],  # all of it
        [0, 0, 140, 140],  # nothing
    ]
    tiles = [painted_sample(boxes, size_hw=(200, 200)), *[plain((0, 0, 0))] * 3]
    result = join(*tiles, centre=(0.25, 0.25), size_px=200)
    assert result.labels.tolist() == [0, 1, 2]
    assert result.boxes_xyxy_px.tolist() == [[0, 0, 50, 50], [0, 10, 50, 50], [10, 10, 40, 40]]
    assert result.ignored.tolist() == [True, False, False]


def test_a_mosaic_goes_through_transforms_that_paint_it_first() -> None:
    crop = always("RandomCrop", height=180, width=200)
    black = always("Affine", scale=0.8, fill=0)
    tiles = [with_box((90, 120), channel=channel, label=channel) for channel in (0, 1, 2, 2)]
    result = join(*tiles, transforms=[crop, black])
    assert result.image[0, 0].tolist() == [0, 0, 0]
    for channel in (0, 1):
        (box,) = result.boxes_xyxy_px[result.labels == channel]
        np.testing.assert_allclose(box, found_box(result.image, channel=channel), atol=1.0)


def test_mixup_by_hand() -> None:
    own, other = with_box((100, 100)), with_box((100, 100), label=5)
    own = replace(own, image=np.full((100, 100, 3), 200, np.uint8))
    other = replace(other, image=np.full((100, 100, 3), 100, np.uint8), ignored=np.ones(1, bool))
    result = augmented([], own, mix=Mix(other=other, share=0.7), size_px=100)
    assert (result.image == 170).all()  # 0.7 * 200 + 0.3 * 100
    assert result.labels.tolist() == [0, 5]
    assert result.ignored.tolist() == [False, True]
    assert result.boxes_xyxy_px.tolist() == [[25, 25, 75, 75]] * 2


def test_both_images_of_a_mixup_move_on_their_own() -> None:
    """Of the mean colour but for a box, brighter in one channel: the sum tells them apart."""
    moved = False
    for seed, size_hw in enumerate(SIZES_HW):
        samples = with_box((131, 397)), with_box(size_hw, channel=1, label=5)
        for channel, sample in enumerate(samples):
            boxed = sample.image[..., channel] == 255
            sample.image[:] = FILL_COLOUR_RGB
            sample.image[boxed, channel] = 255
        mix = Mix(other=samples[1], share=0.5)
        result = augmented(AFFINE, samples[0], mix=mix, size_px=256, seed=seed)
        for channel, box in enumerate(result.boxes_xyxy_px):
            bright = (result.image[..., channel].astype(float) - FILL_COLOUR_RGB[channel]) * 2
            image = np.zeros((256, 256, 3))
            image[..., channel] = bright * 255 / bright.max()
            np.testing.assert_allclose(box, found_box(image, channel=channel), atol=1.5)
        moved = moved or abs(np.diff(result.boxes_xyxy_px, axis=0)).max() > 5
    assert moved


def key(**changes: Any) -> SampleKey:
    given = {"index": 3, "epoch": 0, "place": 8, "step": 0, "size_px": 64}
    return SampleKey(**(given | {"neighbours": (4, 5, 6, 7, 8)} | changes))


def drawn(at: SampleKey, **changes: Any) -> Mix:
    """A mix whose samples carry their index as their id."""
    settings = {"mosaic": Mosaic(1.0, 9), "mixup": MixUp(1.0, 8.0, 9)} | changes
    augment = Augment(transforms=[], **settings)
    return augment.draw_mix(at, lambda i: replace(plain((0, 0, 0)), image_id=i), seed=1)


def test_partners_are_different_images_of_the_block_and_never_the_own_one() -> None:
    places, partners, shares = Counter(), Counter(), []
    for place in range(400):
        mix = drawn(key(place=place))
        assert mix.other is not None
        ids = [sample.image_id for sample in mix.tiles]
        assert len(set(ids)) == 4 and 3 in ids
        assert mix.other.image_id != 3
        places[ids.index(3)] += 1
        partners.update([*ids, mix.other.image_id])
        shares.append(mix.share)
    assert set(partners) == {3, 4, 5, 6, 7, 8}
    assert min(places.values()) > 60 and len(places) == 4
    assert abs(np.mean(shares) - 0.5) < 0.03
    assert abs(np.var(shares) - 1 / 68) < 0.004  # of Beta(8, 8): 1 / (4 * (2 * 8 + 1))


def test_few_neighbours_are_taken_more_than_once() -> None:
    tiles = drawn(key(neighbours=(4,))).tiles
    assert sorted(sample.image_id for sample in tiles) == [3, 4, 4, 4]


def test_nothing_is_mixed_where_it_is_off_or_did_not_fire() -> None:
    assert drawn(key(step=9)) is UNMIXED
    assert drawn(key(), mosaic=None, mixup=None) is UNMIXED
    assert drawn(key(), mosaic=Mosaic(0.0, 9), mixup=MixUp(0.0, 8.0, 9)) is UNMIXED
    for until in ({"mosaic": None}, {"mosaic": Mosaic(1.0, 5)}, {"mixup": MixUp(1.0, 8.0, 5)}):
        mix = drawn(key(step=5), **until)
        assert bool(mix.tiles) == ("mixup" in until) == (mix.other is None)
    mosaics = [drawn(key(place=i), mosaic=Mosaic(0.3, 9), mixup=None) for i in range(500)]
    assert 110 < sum(mix is not UNMIXED for mix in mosaics) < 190
