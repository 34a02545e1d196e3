"""Our own colour transforms, against plain formulas."""

from __future__ import annotations

import colorsys
import random

import numpy as np
import pytest

from tests.data.painted import smooth_noise
from yolo.data.transforms.colour import (
    OWN_TRANSFORMS,
    ColourTransform,
    Haze,
    HSVJitter,
    IntensityStretch,
    blend_veil,
    change_hsv,
)

NEUTRAL = [
    HSVJitter(p=1, hue=0, saturation=1, exposure=1),
    Haze(p=1, strength=(0, 0)),
    Haze(p=0),
    IntensityStretch(p=1, low=0, high=100),
]


def photo() -> np.ndarray:
    return smooth_noise((60, 80))


DULL = smooth_noise((8, 8)) // 2 + 40


def draws(
    transform: ColourTransform, count: int, *, seed: int = 0, image: np.ndarray = DULL
) -> list[np.ndarray]:
    """Results for a stream of images from one pair of generators."""
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return [transform(image=image)["image"] for _ in range(count)]


def applied(transform: ColourTransform, seed: int, image: np.ndarray | None = None) -> np.ndarray:
    return draws(transform, 1, seed=seed, image=photo() if image is None else image)[0]


@pytest.mark.parametrize(
    ("shift", "saturation", "exposure"),
    [(0.1, 1, 1), (-0.1, 1, 1), (0, 1.5, 1), (0, 0.6, 1), (0, 1, 1.5), (0.05, 0.8, 0.7)],
)
def test_hsv_against_the_formula_of_the_standard_library(shift, saturation, exposure) -> None:
    image = photo()
    result = change_hsv(image, shift=shift, saturation=saturation, exposure=exposure)
    differences = []
    for place in np.random.default_rng(1).integers(0, 60 * 80, 300):
        pixel = image.reshape(-1, 3)[place]
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        wanted = colorsys.hsv_to_rgb((h + shift) % 1, min(s * saturation, 1), min(v * exposure, 1))
        differences.append(result.reshape(-1, 3)[place] - 255 * np.array(wanted))
    # one of the 256 steps of the hue is 6 levels, and rounding comes twice
    assert np.abs(differences).max() < 9
    assert np.abs(differences).mean() < 1.2


def test_hsv_by_hand() -> None:
    colours = np.array([[[200, 100, 100], [90, 90, 90], [0, 0, 0]]], np.uint8)
    third = change_hsv(colours, shift=1 / 3, saturation=1, exposure=1)
    np.testing.assert_allclose(third[0], [[100, 200, 100], [90] * 3, [0] * 3], atol=2)
    dull = change_hsv(colours, shift=0, saturation=0.5, exposure=0.5)
    np.testing.assert_allclose(dull[0], [[100, 75, 75], [45] * 3, [0] * 3], atol=2)


def test_the_factors_are_drawn_as_darknet_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, float]] = []

    def note(image: np.ndarray, **values: float) -> np.ndarray:
        drawn.append(values)
        return image

    monkeypatch.setattr("yolo.data.transforms.colour.change_hsv", note)
    draws(HSVJitter(p=1, hue=0.1, saturation=1.5, exposure=2), 4000)
    for name, most in (("saturation", 1.5), ("exposure", 2)):
        values = np.array([item[name] for item in drawn])
        assert 1 / most <= values.min() < 1.02 / most and 0.98 * most < values.max() <= most
        assert abs((values > 1).mean() - 0.5) < 0.03
        # uniform above 1, and one over a uniform number below
        assert abs(values[values > 1].mean() - (1 + most) / 2) < 0.02
        assert abs((1 / values[values < 1]).mean() - (1 + most) / 2) < 0.02
    shifts = np.array([item["shift"] for item in drawn])
    assert np.abs(shifts).max() <= 0.1 and abs(shifts.mean()) < 0.005
    assert abs(shifts.std() - 0.2 / np.sqrt(12)) < 0.002


def test_a_veil_is_the_model_of_haze() -> None:
    image = photo()
    share = np.random.default_rng(2).random((60, 80), np.float32)
    wanted = (1 - share[..., None]) * image + share[..., None] * 220
    assert np.abs(blend_veil(image, share, 220) - wanted).max() < 1.6  # three roundings


def test_haze_brightens_evenly_and_less_towards_the_lower_edge() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    haze = Haze(p=1, strength=(0.5, 0.5), brightness=(200, 200), depth=(1, 1))
    for seed in range(10):
        veil = applied(haze, seed, black)
        assert (veil == veil[..., :1]).all()  # grey
        assert abs(int(veil.max()) - 100) <= 1  # half of 200 where it is thickest
        assert veil[:16].mean() > veil[24:40].mean() > veil[48:].mean()
        assert veil[-1].max() <= 2
        jumps = [np.abs(np.diff(veil[..., 0].astype(int), axis=axis)).max() for axis in (0, 1)]
        assert max(jumps) <= 6  # smooth
    level = applied(Haze(p=1, strength=(0.5, 0.5), depth=(0, 0)), 0, black)
    assert level.min() > 0.5 * level.max()
    assert not (applied(haze, 0, black) == applied(haze, 1, black)).all()


def test_a_stretch_by_hand() -> None:
    """Of 100 values 50 to 149, one percent lies below 51 and one above 148."""
    image = np.arange(50, 150, dtype=np.uint8).repeat(3).reshape(10, 10, 3)
    result = applied(IntensityStretch(p=1, low=0, high=100), 0, image)
    wanted = np.rint((image.astype(float) - 50) * 255 / 99)
    assert (result == wanted).all()
    trimmed = applied(IntensityStretch(p=1, low=10, high=90), 0, image)
    low, high = 60, 139  # 10 of 100 values lie below 60, 90 up to 139
    wanted = np.rint((image.astype(float) - low) * 255 / (high - low)).clip(0, 255)
    assert (trimmed == wanted).all()
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert (applied(IntensityStretch(p=1), 0, flat) == 77).all()


@pytest.mark.parametrize("transform", NEUTRAL, ids=repr)
def test_neutral_settings_change_nothing(transform: ColourTransform) -> None:
    assert all((applied(transform, seed) == photo()).all() for seed in range(5))


@pytest.mark.parametrize("name", OWN_TRANSFORMS)
def test_the_seed_decides_and_the_input_is_spared(name: str) -> None:
    transform = OWN_TRANSFORMS[name](p=1)
    image = photo()
    first = applied(transform, 3, image)
    assert (image == photo()).all() and (first != image).any()
    assert (applied(OWN_TRANSFORMS[name](p=1), 3) == first).all()
    random_ones = name != "IntensityStretch"
    assert (applied(transform, 4) != first).any() == random_ones


@pytest.mark.parametrize("name", OWN_TRANSFORMS)
def test_it_fires_as_often_as_p_says(name: str) -> None:
    results = draws(OWN_TRANSFORMS[name](p=0.3), 2000)
    fired = np.mean([(result != DULL).any() for result in results])
    assert abs(fired - 0.3) < 0.035
