from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.painted import RED, always, augmented, found_box, smooth_noise
from tests.data.painted import painted_sample as sample
from yolo.data.transforms.augment import Augment, WholeImageAugment, letterbox_sample
from yolo.data.transforms.transform_list import COLOUR, TRANSFORMS
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

GEOMETRY: list[dict[str, Any]] = [
    always("HorizontalFlip"),
    always("Affine", translate_px={"x": 17, "y": -9}),
    always("Affine", scale=[0.6, 0.7]),
    always("Affine", scale={"x": 0.7, "y": 1.1}, translate_percent=0.05),
    always("Affine", rotate=30),
    always("Affine", rotate=-12, shear=[5, 8], scale=0.8),
    always("Affine", rotate=45, fit_output=True),
    always("Rotate", limit=[20, 20]),
    always("Rotate", limit=[10, 10], crop_border=True),
    always("RandomCrop", height=190, width=200),
    always("RandomCrop", height=240, width=300, pad_if_needed=True),
    always("Resize"),
    always("RandomResizedCrop", scale=[0.5, 1.0]),
    always("RandomSizedBBoxSafeCrop"),
]


CHAIN: list[dict[str, Any]] = [
    {"type": "HorizontalFlip", "p": 0.5},
    always("Affine", scale=[0.7, 1.1], translate_percent=[-0.1, 0.1]),
    {"type": "RandomCrop", "p": 0.5, "height": 230, "width": 240},
    {"type": "Resize", "p": 0.5},
]


@pytest.mark.parametrize("transforms", [*([one] for one in GEOMETRY), CHAIN], ids=str)
def test_boxes_move_with_the_pixels(transforms: list[dict[str, Any]]) -> None:
    augment = Augment(transforms=transforms)
    turned = any(key in transforms[0] for key in ("rotate", "limit"))
    tolerance = 1.2 if turned else 0.51  # a corner of less than half a pixel is not seen
    for seed in range(20):
        result = augment(sample([[180, 120, 220, 180]]), size_px=256, seed=(seed, 0, 0))
        assert result.image.shape == (256, 256, 3)
        np.testing.assert_allclose(result.boxes_xyxy_px[0], found_box(result.image), atol=tolerance)
        assert not result.ignored[0]


def test_half_a_turn_of_the_flip_by_hand() -> None:
    two = sample([[0, 0, 30, 20], [70, 50, 100, 100]], size_hw=(100, 100))
    result = augmented([always("HorizontalFlip")], two, size_px=100)
    assert result.boxes_xyxy_px.tolist() == [[70, 0, 100, 20], [0, 50, 30, 100]]


def test_an_ellipse_encloses_less_than_a_rectangle_when_turned() -> None:
    sizes = []
    for method in ("largest_box", "ellipse"):
        turn = always("Rotate", limit=[45, 45], rotate_method=method)
        box = augmented([turn], sample([[150, 100, 250, 200]]), size_px=400)
        sizes.append(box.boxes_xyxy_px[0, 2] - box.boxes_xyxy_px[0, 0])
    np.testing.assert_allclose(sizes, [100 * np.sqrt(2), 100], rtol=1e-4)


def test_cut_boxes_become_ignored_and_vanished_ones_are_dropped() -> None:
    boxes = [
        [0, 0, 99, 50],  # gone
        [50, 0, 110, 50],  # a sixth is left
        [90, 0, 200, 50],  # ten elevenths are left
        [100, 60, 150, 90],  # whole
        [80, 60, 100.5, 90],  # half a pixel: gone
        [200, 100, 240, 140],  # was ignored before
    ]
    ignored = [False] * 5 + [True]
    whole = sample(boxes, size_hw=(400, 400), ignored=ignored)
    shift = always("Affine", translate_px={"x": -100, "y": 0})
    result = augmented([shift], whole, size_px=400, min_visibility=0.2)
    assert result.labels.tolist() == [1, 2, 3, 5]
    assert result.ignored.tolist() == [True, False, False, True]
    assert result.boxes_xyxy_px[0].tolist() == [0, 0, 10, 50]


def test_what_a_crop_cuts_off_stays_cut_off_in_the_letterbox_round_it() -> None:
    crop = always("RandomCrop", height=200, width=400)
    whole = sample([[0, 0, 400, 400]], size_hw=(400, 400))
    result = augmented([crop], whole, size_px=400, min_visibility=0.6)
    assert result.boxes_xyxy_px.tolist() == [[0, 100, 400, 300]]
    assert result.ignored.tolist() == [True]
    assert result.image[50, 200].tolist() == list(FILL_COLOUR_RGB)


def test_a_cut_of_the_original_by_hand() -> None:
    """A square cut of a quarter of the area is half as wide: what is in it grows by its scale."""
    cut = always("RandomResizedCrop", scale=[0.25, 0.25], ratio=[1.0, 1.0])
    augment = Augment(transforms=[cut], min_visibility=0)
    whole = sample([[0, 0, 400, 400]], size_hw=(400, 400))
    small = sample([[190, 190, 210, 210]], size_hw=(400, 400))
    for seed in range(8):
        result = augment(whole, size_px=100, seed=(seed,))
        assert (result.image == RED).all()  # no letterbox
        assert result.boxes_xyxy_px.tolist() == [[0, 0, 100, 100]]
        boxes = augment(small, size_px=100, seed=(seed,)).boxes_xyxy_px
        inside = (boxes > 0).all() and (boxes < 100).all()
        assert not inside or (boxes[:, 2:] - boxes[:, :2] == 10).all()  # 20 px by 100 / 200
    result = augmented([cut], whole, size_px=100, min_visibility=0.3)
    assert result.ignored.tolist() == [True]  # a quarter of it is left


def test_a_safe_crop_holds_all_boxes_and_counts_no_ignored_region() -> None:
    """The right edges are fractions of a pixel, which Albumentations would cut off."""
    crop, ignored = always("RandomSizedBBoxSafeCrop"), [False, False, True]
    boxes = [[250.5, 100.5, 390.5, 140.25], [389.5, 120, 399.5, 130.75], [0, 0, 400, 300]]
    two = sample(boxes, ignored=ignored)
    augment = Augment(transforms=[crop], min_visibility=0.999)
    widths = set()
    for seed in range(30):
        result = augment(two, size_px=320, seed=(seed,))
        assert result.labels.tolist() == [0, 1, 2] and result.ignored.tolist() == ignored
        first, second, region = result.boxes_xyxy_px
        np.testing.assert_allclose(region, [0, 0, 320, 320], atol=1e-3)  # cut to what is left
        widths.add(float(first[2] - first[0]))
        np.testing.assert_allclose(second[2] - second[0], (first[2] - first[0]) / 14, rtol=1e-3)
    assert min(widths) > 140 * 320 / 400 - 1e-3 and max(widths) > 250 and len(widths) > 20


def test_a_safe_crop_without_boxes() -> None:
    """Nothing is cut off unless erosion_rate is above 0."""
    crop = always("RandomSizedBBoxSafeCrop")
    empty = replace(photo(), ignored=np.array([True, True]))
    stretched = augmented([always("Resize")], empty, size_px=64)
    whole = augmented([crop], empty, size_px=64)
    assert (whole.image == stretched.image).all()  # averaged where it shrinks, too
    np.testing.assert_array_equal(whole.boxes_xyxy_px, stretched.boxes_xyxy_px)
    eroding = Augment(transforms=[{**crop, "erosion_rate": 0.5}])
    parts = {eroding(empty, size_px=64, seed=(seed,)).image.tobytes() for seed in range(5)}
    assert len(parts) == 5


@pytest.mark.parametrize("size_hw", [(1, 300), (300, 1), (2, 3)], ids=str)
def test_a_safe_crop_of_a_narrow_image_has_a_pixel_at_least(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    red = sample([[0, 0, width, height]], size_hw=size_hw, ignored=[True])
    augment = Augment(transforms=[always("RandomSizedBBoxSafeCrop", erosion_rate=1.0)])
    for seed in range(60):
        result = augment(red, size_px=32, seed=(seed,))
        assert (result.image == RED).all() and result.boxes_xyxy_px.tolist() == [[0, 0, 32, 32]]


def test_of_the_transforms_that_size_the_first_one_that_fires_does() -> None:
    cut = always("RandomResizedCrop", scale=[0.2, 0.3])
    sizing = [{"type": "Resize", "p": 0}, cut]
    marked = sample([[0, 0, 1, 1]])
    part = augmented(sizing, marked, size_px=64, min_visibility=0)
    whole = augmented([always("Resize"), *sizing], marked, size_px=64)
    stretched = cv2.resize(marked.image, (64, 64), interpolation=cv2.INTER_AREA)
    assert (whole.image == stretched).all() and (part.image != stretched).any()


def test_a_classifiers_image_keeps_its_label_whatever_is_left_of_it() -> None:
    """A crop into the padding of a long image would drop the box that stands for all of it."""
    crop = always("RandomCrop", height=20, width=100)
    long = sample([[0, 0, 400, 20]], size_hw=(20, 400))
    plain = [augmented([crop], long, size_px=100, seed=i) for i in range(20)]
    assert min(len(result.labels) for result in plain) == 0
    for seed, other in enumerate(plain):
        result = WholeImageAugment(transforms=[crop])(long, size_px=100, seed=(seed,))
        assert (result.image == other.image).all()
        assert result.boxes_xyxy_px.tolist() == [[0, 0, 100, 100]]
        assert (result.labels.tolist(), result.ignored.tolist()) == ([0], [False])


def test_empty_areas_are_filled_with_the_mean_colour() -> None:
    empty = sample([], size_hw=(400, 400))
    for settings in (
        always("Affine", scale=0.5),
        always("Rotate", limit=[45, 45]),
        always("RandomCrop", height=600, width=600, pad_if_needed=True),
    ):
        result = augmented([settings], empty, size_px=400)
        assert result.image[0, 0].tolist() == list(FILL_COLOUR_RGB), settings
    result = augmented([always("CoarseDropout")], empty, size_px=400)
    assert (result.image == FILL_COLOUR_RGB).all(axis=-1).any()


def photo() -> Sample:
    boxed = sample([[10, 10, 60, 90], [200, 50, 390, 290]])
    return replace(boxed, image=smooth_noise((300, 400)))


def arguments(name: str) -> dict[str, Any]:
    return {"height": 100, "width": 100} if name == "RandomCrop" else {}


def test_every_transform_is_a_function_of_the_seed_and_spares_its_input() -> None:
    everything = [{"type": name, "p": 0.6, **arguments(name)} for name in TRANSFORMS]
    augment = Augment(transforms=everything)
    untouched = photo()
    first = [augment(untouched, size_px=160, seed=(1, 0, i)) for i in range(12)]
    assert (untouched.image == photo().image).all()
    np.random.seed(99)  # noqa: NPY002 - that a library might draw from
    cv2.setRNGSeed(99)
    again = [Augment(transforms=everything)(photo(), size_px=160, seed=(1, 0, i)) for i in (11, 3)]
    for expected, result in zip((first[11], first[3]), again, strict=True):
        assert (expected.image == result.image).all()
        assert (expected.boxes_xyxy_px == result.boxes_xyxy_px).all()
    other = augment(photo(), size_px=160, seed=(1, 1, 11))
    assert (other.image != first[11].image).any()


@pytest.mark.parametrize("name", COLOUR)
def test_colour_changes_pixels_and_no_box(name: str) -> None:
    augment = Augment(transforms=[always(name)])
    plain = letterbox_sample(photo(), 128)
    results = [augment(photo(), size_px=128, seed=(i,)) for i in range(4)]
    assert any((result.image != plain.image).any() for result in results)
    for result in results:
        assert (result.image.dtype, result.image.shape) == (np.uint8, (128, 128, 3))
        np.testing.assert_allclose(result.boxes_xyxy_px, plain.boxes_xyxy_px)
        assert result.labels.tolist() == [0, 1]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_boxes(name: str) -> None:
    result = augmented([always(name, **arguments(name))], sample([]), size_px=128)
    assert result.boxes_xyxy_px.shape == (0, 4)
    assert result.image.shape == (128, 128, 3)


def test_without_transforms_it_is_the_letterbox_of_validation() -> None:
    result = augmented([], photo(), size_px=128)
    plain = letterbox_sample(photo(), 128)
    assert (result.image == plain.image).all()
    np.testing.assert_allclose(result.boxes_xyxy_px, plain.boxes_xyxy_px, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"type": "CLAHE", "clip_limits": 4}, "CLAHE: .*clip_limits"),
        ({"type": "RandomResizedCrop", "ratio": [0, 1]}, r"RandomResizedCrop: ratio \[0, 1\] must"),
        ({"type": "Blur", "p": 2}, r"Blur: p = 2: Input should be less than or equal to 1"),
        ({"type": "Posterize", "num_bits": "few"}, "Posterize: num_bits = 'few': Input should be"),
        ({"type": "RandomCrop", "height": 5}, "RandomCrop: .*width"),
        ({"type": "Affine", "translate_px": 1, "translate_percent": 1.0}, "Affine: .*either trans"),
        ({"type": "Posterize", "num_bits": [0, 4]}, r"Posterize: num_bits \(0, 4\) must be from 1"),
        (
            {"type": "Posterize", "num_bits": [[1, 2], [3, 8], [1, 1]]},
            r"Posterize: .* must be from 1 to 7",
        ),
        ({"type": "Haze", "strenght": 1}, "Haze: strenght = 1: Extra inputs are not permitted"),
        ({"type": "Haze", "strength": [0.5, 2]}, "Haze: strength = 2: Input should be less than"),
        ({"type": "Haze", "depth": [0.5, 0.2]}, r"depth = \[0.5, 0.2\]: .* in ascending order"),
        ({"type": "HSVJitter", "saturation": 0.5}, "HSVJitter: saturation = 0.5: Input should be"),
        ({"type": "HSVJitter", "hue": float("nan")}, "HSVJitter: hue = nan: Input should be"),
        ({"type": "IntensityStretch", "low": 60}, "low = 60: Input should be less than 50"),
        ({"type": "CoarseDropout", "fill": 256}, "CoarseDropout: fill 256.* number from 0 to 255"),
        ({"type": "CoarseDropout", "fill": [9, -1, 9]}, "CoarseDropout: fill .* or three: red"),
        ({"type": "Affine", "fill": [1, 2]}, "Affine: fill .* must be one number from 0 to 255"),
        (
            {"type": "CoarseDropout", "hole_width_range": [20, 40]},
            r"CoarseDropout: hole_height_range \[0.1, 0.2\] and .* both be in pixels",
        ),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Augment(transforms=[settings])


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "Posterize", "num_bits": [1, 7]},
        {"type": "Posterize", "num_bits": [[1, 2], [3, 7], [1, 1]]},
        {"type": "CoarseDropout", "fill": "random_uniform"},
        {"type": "CoarseDropout", "fill": [0, 255, 9], "num_holes_range": [5, 9]},
        {"type": "CoarseDropout", "hole_height_range": [8, 64], "hole_width_range": [1, 64]},
        {"type": "Affine", "fill": 255, "scale": 0.5},
    ],
    ids=str,
)
def test_what_is_not_refused_can_be_applied(settings: dict[str, Any]) -> None:
    augment = Augment(transforms=[{"p": 1, **settings}])
    results = [augment(photo(), size_px=64, seed=(seed,)).image for seed in range(20)]
    assert any((result != letterbox_sample(photo(), 64).image).any() for result in results)


@pytest.mark.parametrize("size_hw", [(1, 300), (300, 1), (70, 50), (50, 70)], ids=str)
@pytest.mark.parametrize("ratio", [[2.0, 3.0], [0.1, 0.2], [300.0, 400.0], [0.001, 0.002]])
def test_a_cut_of_a_narrow_image_has_a_pixel_at_least(size_hw, ratio: list[float]) -> None:
    height, width = size_hw
    cut = always("RandomResizedCrop", ratio=ratio)
    augment = Augment(transforms=[cut], min_visibility=0)
    for seed in range(4):
        whole = sample([[0, 0, width, height]], size_hw=size_hw)
        result = augment(whole, size_px=32, seed=(seed,))
        assert (result.image == RED).all()
        assert result.boxes_xyxy_px.tolist() == [[0, 0, 32, 32]]


def test_importing_the_transforms_asks_no_network() -> None:
    """Albumentations would ask for its newest version when it is imported."""
    module = "yolo.data.transforms.transform_list"
    program = f"import os, {module}; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    bare = {name: value for name, value in os.environ.items() if "ALBUMENTATIONS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=bare
    )
    assert done.stdout == "1\n"
