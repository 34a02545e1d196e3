"""Runs beside one another: groups by seed, means, what differs; as text, csv and picture."""

import csv
import io
import json

import numpy as np
import pytest

from benchmarks.comparison import Comparison, Run
from scripts import compare_runs
from tests.apps.report.test_run import make_run, training, validation


@pytest.fixture
def runs(tmp_path):
    """Two seeds of the quickstart, and one run with another batch size: best AP50 at step 40."""
    overrides = {
        "plain-seed0": ["seed=0"],
        "plain-seed1": ["seed=1"],
        "large": ["training.batch_size=32"],
    }
    figures = {"plain-seed0": 0.5, "plain-seed1": 0.7, "large": 0.4}
    return [
        make_run(
            tmp_path / name,
            [training(20), training(40), validation(20, 0.1), validation(40, figures[name])],
            overrides=overrides[name],
        )
        for name in overrides
    ]


def test_runs_that_differ_in_the_seed_alone_are_one_row(runs, capsys):
    assert compare_runs.main([str(run) for run in runs]) == 0
    head, plain, large = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "runs", "AP50", "AP", "step", "minutes", "images/s"]
    # 40 steps of 16 and of 32 images at 50 images/s; sample deviation of 0.5 and 0.7
    shown = "plain 2 0.6000 ± 0.1414 0.3000 ± 0.0707 40 ± 0 0.2 ± 0.0 50.0 ± 0.0"
    assert " ".join(plain.split()) == shown
    shown = "large 1 0.4000 0.2000 40 0.4 50.0 training.batch_size=32"
    assert " ".join(large.split()) == shown


def test_csv_has_a_line_for_each_run_with_what_differs(runs, tmp_path, capsys):
    files = tmp_path / "runs.csv", tmp_path / "runs.png"
    argv = ["--csv", str(files[0]), "--output", str(files[1])]
    assert compare_runs.main([*map(str, runs), *argv]) == 0
    rows = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert [(row["group"], row["run"], row["seed"]) for row in rows] == [
        ("plain", "plain-seed0", "0"),
        ("plain", "plain-seed1", "1"),
        ("large", "large", "0"),
    ]
    assert [float(row["AP50"]) for row in rows] == [0.5, 0.7, 0.4]
    assert [row["training.batch_size"] for row in rows] == ["16", "16", "32"]
    assert files[1].read_bytes()[:4] == b"\x89PNG"


def test_a_row_has_a_dot_for_each_run(runs):
    picture = Comparison.of([Run.read(run) for run in runs]).picture()
    blank = Comparison.of([Run.read(run) for run in runs[:1]]).picture()
    assert picture.shape[0] > blank.shape[0]  # a row more
    assert not np.all(picture == 255)


def test_figures_may_come_from_the_json_of_validation(runs, capsys):
    for run, ap in zip(runs, (0.25, 0.35, 0.9), strict=True):
        stats = {"AP": ap, "AP50": 0.5, "APs": -1.0}
        (run / "test.json").write_text(json.dumps({"results": [{"stats": stats}]}))
    assert compare_runs.main([*map(str, runs), "--scores", "test.json"]) == 0
    assert "0.3000 ± 0.0707" in capsys.readouterr().out
    (runs[0] / "test.json").write_text("[]")
    assert compare_runs.main([*map(str, runs), "--scores", "test.json"]) == 1
    assert "not the json of one checkpoint by validation.py" in capsys.readouterr().err
    (runs[0] / "test.json").unlink()
    assert compare_runs.main([*map(str, runs), "--scores", "test.json"]) == 1
    assert "write it with --json" in capsys.readouterr().err


def test_a_run_without_an_evaluation_is_refused_in_a_sentence(tmp_path, capsys):
    run = make_run(tmp_path / "young", [training(20)])
    assert compare_runs.main([str(run)]) == 1
    assert "has no evaluation yet" in capsys.readouterr().err
