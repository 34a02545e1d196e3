"""main.py and validation.py as a user runs them, in process, on generated images."""

import json
import re

import numpy as np
import pytest
import torch

import main as training
import validation
from tests.coco_files import write_coco
from tests.train.toys import differences, quickstart
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

TRAINED_STEPS = 6


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Arguments of a small training."""
    return quickstart(
        tmp_path_factory.mktemp("shapes"),
        model={"encoder.width": 0.25},
        data={"train.images": 12, "val.images": 5, "test.images": 3},
        training={
            "micro_batch_size": 2,
            "steps": TRAINED_STEPS,
            "schedule.warmup_steps": 2,
            "schedule.t_0": 6,
        },
        evaluation={"every": 3, "batch_size": 2, "conf": 0.0005, "pictures": 8},
        logging={"every": 2},
    )


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A finished run's folder."""
    return train(shapes, tmp_path_factory.mktemp("logs"), "first")


def train(shapes, logs, name, *overrides):
    """The folder of a new run."""
    argv = ["--name", name, *shapes, f"logging.directory={logs}", *overrides]
    assert training.main(argv) == 0
    return logs / name


def resume(folder, *overrides):
    return training.main(["--resume", str(folder), "--gpu", "cpu", *overrides])


def test_a_run_writes_all_its_files(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "last.pt", "best.pt", "metrics.jsonl", "pictures"} <= names
    assert any(name.startswith("events.out") for name in names)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [f"{record['phase']} {record['step']}" for record in records]
    steps = ["training 1", "training 2", "validation 3", "training 4", "training 6"]
    assert lines == [*steps, "validation 6"]
    assert {"loss/box", "loss/object", "loss/no_object", "loss/class"} <= set(records[0])
    assert {"AP", "AP50", "loss/box"} <= set(records[2])


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


def test_resume_is_exact(run, shapes, tmp_path, capsys):
    """Stopped after 3 of 6 steps and gone on: the same weights to the bit."""
    halved = train(shapes, tmp_path, "halved", "training.steps=3")
    assert "training: 3 steps of 4 images, 1.0 epochs\n" in capsys.readouterr().out
    assert resume(halved, f"training.steps={TRAINED_STEPS}", "data.workers=2") == 0
    whole, ours = (torch.load(folder / "last.pt", weights_only=True) for folder in (run, halved))
    assert whole["progress"] == ours["progress"]
    for part in ("model", "optimizer"):
        assert differences(whole[part], ours[part]) == []


def test_a_resumed_run_keeps_its_config(run, capsys):
    assert resume(run, "data.image_size=96") == 1
    assert "data.image_size: 64 -> 96" in capsys.readouterr().err


def test_a_resumed_run_writes_down_what_was_changed(shapes, tmp_path):
    """Or the next plain --resume would end where the first run was to end."""
    folder = train(shapes, tmp_path, "short", "training.steps=1", "evaluation.pictures=0")
    assert resume(folder, "training.steps=2") == 0
    assert "  steps: 2  # command line" in (folder / "config.yaml").read_text().splitlines()
    records = (folder / "metrics.jsonl").read_text()
    assert resume(folder) == 0
    assert (folder / "metrics.jsonl").read_text() == records


def test_data_may_move(shapes, tmp_path, capsys):
    """Named anew on the command line they are scored, and trained on to the same bits."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    pictures = {n: np.full((64, 64, 3), 40 * n, np.uint8) for n in range(1, 5)}
    write_coco(old, pictures, [(n, 0, [8, 8, 30, 30], False) for n in pictures])
    truth = (old / "annotations.json").read_text().replace('"category_id": 1', '"category_id": "k"')
    truth = truth.replace('{"id": 1, "name": "cat"}', '{"id": "k", "name": "cat"}')
    (old / "annotations.json").write_text(truth)  # whose ids may be texts
    sets = ("data.train", "data.val")
    others = [item for item in shapes if not item.startswith((*sets, "data.test"))]
    here = [
        f"{name}={{type: coco, annotations: {old}/annotations.json, images: {old}}}"
        for name in sets
    ]
    short = [*others, *here, "data.test=null", "evaluation.pictures=0", "evaluation.every=9"]
    for name, steps in (("whole", 3), ("moved", 1)):
        train(short, tmp_path, name, f"training.steps={steps}")
    old.rename(new)
    moved, best = tmp_path / "moved", str(tmp_path / "moved" / "best.pt")
    files = {
        name: [f"{name}.annotations={new}/annotations.json", f"{name}.images={new}"]
        for name in sets
    }
    capsys.readouterr()
    assert validation.main([best, "--gpu", "cpu"]) == 1
    assert capsys.readouterr().err.endswith("; data.val.annotations=PATH names another place.\n")
    assert validation.main([best, "--gpu", "cpu", *files["data.val"]]) == 0
    printed = capsys.readouterr().out
    assert f"data.val.images: {old} -> {new}\ndata.val: the same as in training\n" in printed
    assert load_checkpoint(tmp_path / "moved" / "best.pt")["category_ids"] == ["k"]
    assert validation.main([best, "--gpu", "cpu", "data.val.root=x"]) == 1
    assert "data.val.root: 'x': unknown key" in capsys.readouterr().err
    assert resume(moved, "training.steps=3") == 1
    assert "; data.train.annotations=PATH names another place.\n" in capsys.readouterr().err
    assert resume(moved, "training.steps=3", *files["data.train"], *files["data.val"]) == 0
    printed = capsys.readouterr().out
    assert f"data.train.images: {old} -> {new}\n" in printed
    whole, ours = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "moved"))
    assert differences(whole["model"], ours["model"]) == []
    assert resume(moved) == 0  # the new place is written down


def test_a_resumed_run_keeps_its_categories(shapes, tmp_path, capsys):
    last = train(shapes, tmp_path, "a", "training.steps=1", "evaluation.pictures=0") / "last.pt"
    content = load_checkpoint(last)
    names = content["class_names"]
    content["class_names"] = [names[1], names[0], *names[2:]]
    save_checkpoint(last, {name: value for name, value in content.items() if name != "version"})
    assert resume(last) == 1
    assert "are no longer those of" in capsys.readouterr().err


def test_a_finished_run_says_so(run, capsys):
    before = (run / "last.pt").read_bytes()
    assert resume(run) == 0
    printed = capsys.readouterr().out
    assert f"finished already, at step {TRAINED_STEPS}; --resume with training.steps=N" in printed
    assert (run / "last.pt").read_bytes() == before


def test_an_existing_run_is_not_written_over(run, shapes, capsys):
    argv = ["--name", "first", *shapes, f"logging.directory={run.parent}"]
    assert training.main(argv) == 1
    assert "exists already" in capsys.readouterr().err


def spoil_config(tmp_path, shapes):
    return [*shapes, "training.batchsize=3"], 2, "did you mean 'batch_size'"


def spoil_gpu(tmp_path, shapes):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    return [*shapes, "--gpu", "7"], 1, "no GPU that PyTorch can use"


def spoil_json(tmp_path, shapes):
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    others = [item for item in shapes if not item.startswith("data.train.")]
    data = f"data.train={{type: coco, annotations: {broken}, images: {tmp_path}}}"
    return [*others, data], 1, "broken.json"


def spoil_class_weights(tmp_path, shapes):
    return [*shapes, "loss.class_weights={circles: 2}"], 1, "loss.class_weights names circles"


def spoil_image(tmp_path, shapes):
    spec = json.dumps(write_coco(tmp_path, {1: np.zeros((64, 64, 3), np.uint8)}, boxes=[]))
    (tmp_path / "1.png").write_bytes(b"no image")
    others = [item for item in shapes if not item.startswith(("data.train.", "data.val."))]
    return [*others, f"data.train={spec}", f"data.val={spec}", "data.workers=1"], 1, "1.png"


SPOILERS = (spoil_config, spoil_gpu, spoil_json, spoil_class_weights, spoil_image)


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


def test_what_is_no_checkpoint(run, tmp_path, capsys):
    path, whole = tmp_path / "best.pt", (run / "best.pt").read_bytes()
    cut_short = (whole[: len(whole) // 2], "end is missing")
    for content, words in ((b"", ""), (b"text", ""), (b"\x80" * 5000, ""), cut_short):
        path.write_bytes(content)
        assert validation.main([str(path), "--gpu", "cpu"]) == 1
        error = capsys.readouterr().err
        assert str(path) in error and words in error
