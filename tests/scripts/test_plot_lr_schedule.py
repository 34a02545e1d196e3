"""scripts/plot_lr_schedule.py as a user runs it, in process."""

from __future__ import annotations

import cv2
import pytest
import yaml

import yolo.apps.report.plots
from scripts import plot_lr_schedule
from yolo.apps.report.preview import learning_rate_curves
from yolo.config import REPOSITORY_ROOT, command_line, load_config

QUICKSTART = REPOSITORY_ROOT / "configs/quickstart.yaml"


@pytest.fixture
def write(tmp_path):
    """A config with another training."""

    def write(name: str, **training) -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"extends": str(QUICKSTART), "training": training}))
        return str(path)

    return write


def test_curves_of_a_config(write):
    """Five steps in a straight line from 2e-3 to nothing, and a tenth of it for the encoder."""
    linear = {"type": "linear", "end_factor": 0.0}
    path = write("a.yaml", steps=5, schedule=linear, encoder_learning_rate=2e-4)
    both, encoder = learning_rate_curves("a", load_config(path).config)
    assert both.name == "a (linear)" and encoder.name == "a, encoder (linear)"
    assert both.x.tolist() == [0, 1, 2, 3, 4]
    assert both.y == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3, 0])
    assert encoder.y == pytest.approx(both.y / 10)


def test_a_plateau_notes_that_it_depends_on_the_results(write):
    path = write("a.yaml", steps=9, schedule={"type": "plateau", "warmup_steps": 2})
    (curve,) = learning_rate_curves("a", load_config(path).config)
    assert curve.name == ("a (plateau: depends on results, drawn as if the figure always rose)")
    assert curve.y == pytest.approx([2e-3 / 16] + [2e-3] * 8)


def test_several_configs_in_one_picture(write, tmp_path, monkeypatch, capsys):
    drawn = []

    def draw(curves, **names):
        drawn.append(([curve.name for curve in curves], names["y_scale"]))
        return draw_curves(curves, **names)

    draw_curves = yolo.apps.report.plots.draw_curves
    monkeypatch.setattr(yolo.apps.report.plots, "draw_curves", draw)
    one, output = write("one.yaml", schedule={"type": "one_cycle"}), tmp_path / "sub/lr.png"
    assert plot_lr_schedule.main([one, str(QUICKSTART), "-o", str(output), "--log"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert cv2.imread(str(output)).shape[2] == 3
    assert drawn == [([f"{one} (one_cycle)", f"{QUICKSTART} (cosine_restarts)"], "log")]
    monkeypatch.setattr(command_line, "REPOSITORY_ROOT", tmp_path)
    assert plot_lr_schedule.main([one]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'predictions/lr_schedule.png'}\n"


def test_each_mistake_is_one_sentence(write, tmp_path, capsys, usage_error):
    wrong = write("wrong.yaml", schedule={"type": "one_cycle", "div": 0.5})
    for argv, sentence in (
        ([wrong], "training.schedule.div: 0.5: must be a number of at least 1"),
        ([str(QUICKSTART), "-o", "lr.pdf"], "'lr.pdf' must end in .png or .jpg"),
        ([], "the following arguments are required: CONFIG"),
    ):
        assert sentence in usage_error(plot_lr_schedule.main, *argv)
    (tmp_path / "file").touch()
    assert plot_lr_schedule.main([str(QUICKSTART), "-o", f"{tmp_path}/file/lr.png"]) == 1
    assert "the image cannot be written" in capsys.readouterr().err
