"""main.py and validation.py as a user runs them, in process, on generated images."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from yolo.config import REPOSITORY_ROOT
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

sys.path.insert(0, str(REPOSITORY_ROOT))
import main as training
import validation

TRAINED_STEPS = 6


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Overrides that make the quickstart small."""
    root = tmp_path_factory.mktemp("shapes")
    return [
        f"data.train.root={root}",
        f"data.val.root={root}",
        f"data.test.root={root}",
        "data.train.images=12",
        "data.val.images=5",
        "data.test.images=3",
        "data.image_size=64",
        "data.workers=0",
        "training.batch_size=4",
        "training.micro_batch_size=2",
        f"training.steps={TRAINED_STEPS}",
        "training.schedule.warmup_steps=2",
        "training.schedule.t_0=6",
        "evaluation.every=3",
        "evaluation.batch_size=2",
        "evaluation.conf=0.0005",
        "logging.every=2",
        "model.encoder.width=0.25",
        "training.precision=fp32",
    ]


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A finished run's folder."""
    logs = tmp_path_factory.mktemp("logs")
    argv = ["--gpu", "cpu", "--name", "first", *shapes, f"logging.directory={logs}"]
    assert training.main(argv) == 0
    return logs / "first"


def test_a_run_writes_all_its_files(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.jsonl", "pictures"} <= names
    assert any(name.startswith("events.out") for name in names)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["phase"], r["step"]) for r in records] == [
        ("training", 2),
        ("validation", 3),
        ("training", 4),
        ("training", 6),
        ("validation", 6),
    ]
    assert {"loss/xy", "loss/wh", "loss/object", "loss/no_object", "loss/class"} <= set(records[0])
    assert {"AP", "AP50", "loss/xy"} <= set(records[1])


def test_validation_prints_what_training_logged(run, tmp_path, capsys):
    report = tmp_path / "scores.json"
    assert validation.main([str(run / "last.pt"), "--gpu", "cpu", "--json", str(report)]) == 0
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    result = json.loads(report.read_text())["results"][0]
    assert result["stats"] == {name: logged[name] for name in result["stats"]}
    assert result["found_boxes"] == logged["found_boxes"] > 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" Average")]
    assert len(lines) == 12
    assert lines[0].endswith(f"= {logged['AP']:.3f}")


def test_validation_at_several_confidences_and_as_coco_results(run, tmp_path, capsys):
    scores, boxes = tmp_path / "scores.json", tmp_path / "boxes.json"
    argv = [str(run / "best.pt"), "--gpu", "cpu", "--split", "test", "--image-size", "96"]
    argv += ["--conf", "0.5", "0.0001", "--json", str(scores), "--detections", str(boxes)]
    assert validation.main([*argv, "--per-class"]) == 0
    results = json.loads(scores.read_text())["results"]
    assert [r["confidence"] for r in results] == [0.5, 0.0001]
    rows = json.loads(boxes.read_text())
    assert results[0]["found_boxes"] < results[1]["found_boxes"] == len(rows)
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    assert re.search(r"circle +AP = ", capsys.readouterr().out)


def test_resume_is_exact(run, shapes, tmp_path):
    """Stopped after 3 of 6 steps and gone on: the same weights to the bit."""
    base = ["--gpu", "cpu", *shapes, f"logging.directory={tmp_path}"]
    assert training.main([*base, "--name", "halved", "training.steps=3"]) == 0
    resumed = ["--resume", str(tmp_path / "halved"), "--gpu", "cpu"]
    assert training.main([*resumed, f"training.steps={TRAINED_STEPS}", "data.workers=2"]) == 0
    whole = torch.load(run / "last.pt", weights_only=True)
    ours = torch.load(tmp_path / "halved" / "last.pt", weights_only=True)
    assert whole["progress"] == ours["progress"]
    for name, value in whole["model"].items():
        assert torch.equal(value, ours["model"][name]), name
    for index, state in whole["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, ours["optimizer"]["state"][index][name])


def test_a_resumed_run_keeps_its_config(run, capsys):
    assert training.main(["--resume", str(run), "--gpu", "cpu", "data.image_size=96"]) == 1
    assert "data.image_size: 64 -> 96" in capsys.readouterr().err


def test_a_resumed_run_writes_down_what_was_changed(shapes, tmp_path):
    """Or the next plain --resume would end where the first run was to end."""
    argv = ["--gpu", "cpu", "--name", "short", *shapes, f"logging.directory={tmp_path}"]
    assert training.main([*argv, "training.steps=1", "evaluation.pictures=0"]) == 0
    resume = ["--resume", str(tmp_path / "short"), "--gpu", "cpu"]
    assert training.main([*resume, "training.steps=2"]) == 0
    assert "  steps: 2  # command line" in (tmp_path / "short/config.yaml").read_text().splitlines()
    records = (tmp_path / "short/metrics.jsonl").read_text()
    assert training.main(resume) == 0
    assert (tmp_path / "short/metrics.jsonl").read_text() == records


def test_a_resumed_run_keeps_its_categories(shapes, tmp_path, capsys):
    argv = ["--gpu", "cpu", "--name", "a", *shapes, f"logging.directory={tmp_path}"]
    assert training.main([*argv, "training.steps=1", "evaluation.pictures=0"]) == 0
    last = tmp_path / "a/last.pt"
    content = load_checkpoint(last)
    names = content["class_names"]
    content["class_names"] = [names[1], names[0], *names[2:]]
    save_checkpoint(last, {name: value for name, value in content.items() if name != "version"})
    assert training.main(["--resume", str(last), "--gpu", "cpu"]) == 1
    assert "they differ from number 1 on" in capsys.readouterr().err


def test_a_finished_run_says_so(run, capsys):
    before = (run / "last.pt").read_bytes()
    assert training.main(["--resume", str(run), "--gpu", "cpu"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert (run / "last.pt").read_bytes() == before


def test_an_existing_run_is_not_written_over(run, shapes, capsys):
    argv = ["--gpu", "cpu", "--name", "first", *shapes, f"logging.directory={run.parent}"]
    assert training.main(argv) == 1
    assert "exists already" in capsys.readouterr().err


def spoil_config(tmp_path, shapes):
    return [*shapes, "training.batchsize=3"], 2, "did you mean 'batch_size'"


def spoil_gpu(tmp_path, shapes):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    return ["--gpu", "7", *shapes], 1, "no GPU that PyTorch can use"


def spoil_json(tmp_path, shapes):
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    others = [item for item in shapes if not item.startswith("data.train.")]
    data = f"data.train={{type: coco, annotations: {broken}, images: {tmp_path}}}"
    return [*others, data], 1, "broken.json"


def spoil_weights(tmp_path, shapes):
    (tmp_path / "weights.pt").write_text("no weights")
    return [*shapes, f"model.encoder.weights={tmp_path / 'weights.pt'}"], 1, "weights.pt"


def spoil_class_weights(tmp_path, shapes):
    return [*shapes, "loss.class_weights={circles: 2}"], 1, "loss.class_weights names circles"


def spoil_image(tmp_path, shapes):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "a.jpg").write_bytes(b"no image")
    spec = f"{{type: coco, annotations: {tmp_path / 'a.json'}, images: {tmp_path}}}"
    others = [item for item in shapes if not item.startswith("data.train.")]
    others = [item for item in others if not item.startswith("data.val.")]
    return [*others, f"data.train={spec}", f"data.val={spec}", "data.workers=1"], 1, "a.jpg"


SPOILERS = [
    spoil_config,
    spoil_gpu,
    spoil_json,
    spoil_weights,
    spoil_class_weights,
    spoil_image,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_users_mistake_is_one_sentence(spoil, shapes, tmp_path, capsys):
    argv, code, text = spoil(tmp_path, shapes)
    try:
        ended = training.main([*argv, f"logging.directory={tmp_path / 'logs'}"])
    except SystemExit as stopped:  # bad usage or a bad config
        ended = stopped.code
    assert ended == code
    printed = capsys.readouterr()
    assert text in printed.err
    assert len(printed.err.splitlines()) == 1
    if spoil is not spoil_image:  # images are opened as they are needed
        assert not list(tmp_path.glob("logs/*")), "a run was begun"


def test_a_place_that_cannot_be_written_is_refused_before_scoring(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        validation.main([str(run / "best.pt"), "--json", str(tmp_path / "nowhere/scores.json")])
    assert caught.value.code == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text", b"\x80" * 5000])
def test_what_is_no_checkpoint(content, tmp_path, capsys):
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    assert validation.main([str(path), "--gpu", "cpu"]) == 1
    assert str(path) in capsys.readouterr().err


def test_a_truncated_checkpoint(run, tmp_path, capsys):
    whole = (run / "best.pt").read_bytes()
    path = Path(tmp_path / "best.pt")
    path.write_bytes(whole[: len(whole) // 2])
    assert validation.main([str(path), "--gpu", "cpu"]) == 1
    assert "end is missing" in capsys.readouterr().err
