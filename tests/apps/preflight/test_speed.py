"""The forecast by hand."""

from dataclasses import replace

import pytest
import torch

from yolo.apps.preflight.speed import Forecast, Speed, format_seconds, total_gb
from yolo.config import load_config
from yolo.config.command_line import DEFAULT_CONFIG
from yolo.data import image_cache

RATES = {"loader": 40.0, "network": 20.0, "together": 10.0, "evaluation": 5.0}
SPEED = Speed(**RATES, size_px=320, largest_px=320, memory_gb=None, total_gb=8.0)


def forecast(*overrides):
    settings = ["data.image_size=320", "training.steps=1000", "training.batch_size=16"]
    config = load_config(DEFAULT_CONFIG, [*settings, "evaluation.every=300", *overrides]).config
    return Forecast.of(config, SPEED, evaluated_images=50)


def test_steps_and_evaluations():
    found = forecast()
    assert found.evaluations == 4  # after 300, 600, 900 and 1000 steps
    assert found.training_seconds == pytest.approx(1000 * 16 / 10)
    assert found.evaluation_seconds == pytest.approx(4 * 50 / 5)
    assert found.seconds == pytest.approx(1640)


def test_multi_scale_costs_by_its_mean_number_of_pixels():
    found = forecast("data.multi_scale={min: 320, max: 640, step: 320}")
    assert found.training_seconds == pytest.approx(1600 * (1 + 4) / 2)
    found = forecast("data.multi_scale={min: 320, max: 640, step: 320, until_step: 500}")
    assert found.training_seconds == pytest.approx(800 * (1 + 4) / 2 + 800)


def test_whichever_is_slower_limits():
    assert SPEED.verdict() == "the network limits"
    assert replace(SPEED, network=39.0).verdict() == "the loader just keeps up with the network"
    assert replace(SPEED, network=41.0).verdict().startswith("the loader limits")


@pytest.mark.parametrize(
    ("seconds", "formatted"),
    [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days")],
)
def test_times_are_rounded(seconds, formatted):
    assert format_seconds(seconds) == formatted


def test_the_memory_is_that_of_the_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    limit.write_text("64000000")
    monkeypatch.setattr(image_cache, "CONTAINER_LIMITS", (limit,))
    assert total_gb(torch.device("cpu")) == 0.064
