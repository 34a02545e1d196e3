"""What the schedules take from the rest of the config, and what a failed step advises of it."""

import pytest
import torch

import main as training
from tests.train.toys import quickstart
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.factory.learner import build_schedule
from yolo.models.detector import Detector
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


def test_out_of_memory_names_the_keys_to_change(tmp_path, monkeypatch, capsys):
    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Detector, "forward", forward)
    assert training.main(quickstart(tmp_path)) == 1
    assert capsys.readouterr().err == (
        "error: out of memory on cpu: training.micro_batch_size is 4 and data.image_size 64: make "
        "one of them smaller (training.batch_size can stay)\n"
    )


def test_one_image_with_a_map_of_one_cell_names_the_keys_to_change(tmp_path, capsys):
    argv = quickstart(tmp_path, data={"image_size": 32}, training={"micro_batch_size": 1})
    assert training.main(argv) == 1
    assert capsys.readouterr().err == (
        "error: data.image_size: so small that the last map is a single cell, which batch norm "
        "cannot learn from in a micro-batch of one image; make data.image_size (or "
        "data.multi_scale.min) larger, or choose training.batch_size and "
        "training.micro_batch_size so that no process is left with a micro-batch of one image\n"
    )
