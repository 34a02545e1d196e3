"""scripts/pretrain_encoder.py as a user runs it, in process, on generated images."""

import json

import pytest
import torch

from scripts import pretrain_encoder
from tests.detectors import ONE_RANK
from yolo.config import REPOSITORY_ROOT, config_from_dict, load_config
from yolo.factory.detector import build_detector
from yolo.factory.initial_weights import load_initial_weights
from yolo.factory.scoring import build_scorer
from yolo.train.checkpoint import load_checkpoint

CONFIG = REPOSITORY_ROOT / "configs" / "pretrain" / "shapes_darknet53.yaml"
STEPS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The command line of a small training."""
    root = tmp_path_factory.mktemp("shapes")
    return [
        "--gpu=cpu",
        *(f"data.train.root={root}", f"data.val.root={root}"),
        *("data.train.images=24", "data.val.images=9", "data.image_size=32", "data.workers=0"),
        *("training.batch_size=4", "training.micro_batch_size=2", f"training.steps={STEPS}"),
        *("training.schedule.t_0=4", "training.precision=fp32", "training.ema={decay: 0.9}"),
        *("evaluation.every=2", "evaluation.batch_size=4", "logging.every=2"),
        *("model.encoder={type: darknet_tiny, width: 0.25}", "model.dropout=0.2"),
    ]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished run's folder."""
    logs = tmp_path_factory.mktemp("logs")
    argv = ["--config", str(CONFIG), "--name", "first", *tiny, f"logging.directory={logs}"]
    assert pretrain_encoder.main(argv) == 0
    return logs / "first"


def test_a_run_writes_what_every_run_writes(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.jsonl", "pictures"} <= names
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [("training", 2), ("validation", 2), ("training", 4), ("validation", 4)]
    assert [(r["phase"], r["step"]) for r in records] == [("training", 1), *expected]
    assert {"loss/class", "accuracy/top1", "accuracy/top5"} <= set(records[0])
    assert {"top1", "top5", "loss", "loss/class"} <= set(records[2])
    assert 0 <= records[2]["top1"] <= records[2]["top5"] <= 1


def test_resume_is_exact(run, tiny, tmp_path):
    """Stopped after 2 of 4 steps and gone on: the same weights to the bit, dropout too."""
    argv = ["--config", str(CONFIG), "--name", "halved", *tiny, f"logging.directory={tmp_path}"]
    assert pretrain_encoder.main([*argv, "training.steps=2"]) == 0
    resumed = ["--resume", str(tmp_path / "halved"), "--gpu", "cpu", f"training.steps={STEPS}"]
    assert pretrain_encoder.main(resumed) == 0
    whole, ours = (load_checkpoint(folder / "last.pt") for folder in (run, tmp_path / "halved"))
    assert whole["progress"] == ours["progress"]
    for name, value in whole["model"].items():
        assert torch.equal(value, ours["model"][name]), name


def test_the_best_checkpoint_fills_a_detectors_encoder(run):
    weights = f"model.encoder={{type: darknet_tiny, width: 0.25, weights: {run / 'best.pt'}}}"
    config = load_config(REPOSITORY_ROOT / "configs" / "quickstart.yaml", [weights]).config
    detector = build_detector(config, ["a", "b"])
    (report,) = load_initial_weights(detector, config.model)
    assert (report.share, report.left) == (1.0, ())
    checkpoint = load_checkpoint(run / "best.pt")
    for name, value in detector.encoder.named_parameters():
        assert torch.equal(value, checkpoint["ema"][f"module.encoder.{name}"])


def test_scoring_gives_the_figures_that_training_logged(run):
    path, lines = run / "last.pt", []
    checkpoint = load_checkpoint(path)
    config = config_from_dict(checkpoint["config"])
    report = build_scorer(path, checkpoint, config, ONE_RANK).score(lines.append)
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    (result,) = report["results"]
    assert result["stats"] == {
        name: logged[name] for name in ("top1", "top5", "loss", "loss/class")
    }
    assert (report["step"], report["split"]) == (STEPS, "val")
    assert "top-1 accuracy" in "\n".join(lines)


def test_data_sets_with_other_classes_are_refused(run, tiny, tmp_path, capsys):
    (tmp_path / "val" / "horse").mkdir(parents=True)
    (tmp_path / "val" / "horse" / "1.jpg").touch()
    wrong = f"data.val={{type: class_folder, root: {tmp_path / 'val'}}}"
    others = [setting for setting in tiny if not setting.startswith("data.val.")]
    argv = ["--config", str(CONFIG), *others, wrong, f"logging.directory={tmp_path}"]
    assert pretrain_encoder.main(argv) == 1
    printed = capsys.readouterr().err
    assert "has the classes 'horse', which data.train lacks (its classes are" in printed


def test_detectors_are_main_pys(usage_error):
    config = str(REPOSITORY_ROOT / "configs/quickstart.yaml")
    wanted = "configs/quickstart.yaml: task: 'detect': must be 'classify'; main.py trains detectors"
    assert wanted in usage_error(pretrain_encoder.main, "--config", config)


def test_help_names_its_own_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        pretrain_encoder.main(["--help"])
    shown = capsys.readouterr().out
    assert "configs/pretrain/darknet53_imagenet.yaml" in shown and "quickstart" not in shown
