"""What the schedules take from the rest of the config."""

import pytest

from yolo.config import REPOSITORY_ROOT, load_config
from yolo.factory.learner import build_schedule
from yolo.train.schedules import Plateau

BASE = ["training.steps=11", "training.optimizer.learning_rate=0.01"]
# first, middle and last of 11 steps
FACTORS = {
    "{type: step, milestones: [5], factors: [1, 0.1], warmup_steps: 0}": (1, 0.1, 0.1),
    "{type: cosine_restarts, t_0: 10, eta_min: 1e-3}": (1, 0.55, 1),
    "{type: one_cycle, warm_share: 0, div: 4, final_div: 5, shape: linear}": (1, 0.525, 0.05),
    "{type: one_cycle, warm_share: 0, div: 4, final_div: 5}": (1, 0.525, 0.05),
    "{type: linear, end_factor: 0.2}": (1, 0.6, 0.2),
    "{type: plateau}": (1, 1, 1),
}


@pytest.mark.parametrize("schedule", FACTORS)
def test_schedules_of_a_config(schedule):
    config = load_config(
        REPOSITORY_ROOT / "configs/yolov3/darknet53_coco.yaml",
        [*BASE, f"training.schedule={schedule}"],
    ).config
    built = build_schedule(config)
    assert [built(step) for step in (0, 5, 10)] == pytest.approx(FACTORS[schedule])
    assert isinstance(built, Plateau) == ("plateau" in schedule)
