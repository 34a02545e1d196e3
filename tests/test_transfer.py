"""Transfer learning as a user runs it: main.py in process, from a small detector of shapes."""

import json

import pytest
import torch

import main as training
import validation
from tests.train.toys import differences, quickstart
from yolo.config import REPOSITORY_ROOT
from yolo.models.torch_weights import evaluated_tensors
from yolo.train.checkpoint import load_checkpoint

LEFT = [f"  left at its initial values: head.stride{px}.output" for px in (8, 16, 32)]


def small(folder, *, without=("data.test.",)):
    argv = quickstart(
        folder,
        model={"encoder.width": 0.25},
        data={"train.images": 12},
        training={"schedule.warmup_steps": 0},
        evaluation={"batch_size": 4},
    )
    return [argument for argument in argv if not argument.startswith(without)]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return small(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def first(shapes, tmp_path_factory):
    """A finished run on shapes: its best.pt."""
    logs = tmp_path_factory.mktemp("logs")
    run(logs, "first", *shapes, "training.steps=2", "evaluation.every=2")
    return logs / "first/best.pt"


def run(logs, name, *overrides, code=0):
    argv = ["--name", name, *overrides, f"logging.directory={logs}"]
    assert training.main(argv) == code


def resume(folder, *overrides):
    assert training.main(["--resume", str(folder), "--gpu", "cpu", *overrides]) == 0


def left_initial(path, out):
    """The lines of a load report."""
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(str(path)))
    return [line for line in lines[first + 1 :] if line.startswith("  left at")]


def test_real_images_with_other_classes(real_data, first, tmp_path, capsys):
    """From drawn shapes to the classes of COCO: the report names exactly the layers left out."""
    coco = real_data / "coco-mini"
    images = {
        "type": "coco",
        "annotations": str(coco / "annotations/instances_train2017.json"),
        "images": str(coco / "train2017"),
    }
    data = {"train": images, "val": images, "test": None, "limit": 4, "augment": []}
    config = {"extends": str(REPOSITORY_ROOT / "configs/quickstart.yaml"), "data": data}
    (tmp_path / "coco.yaml").write_text(json.dumps(config))
    overrides = small(tmp_path, without=("data.train.", "data.val.", "data.test."))
    overrides += [f"model.init.weights={first}", "training.steps=1", "evaluation.every=1"]
    run(tmp_path, "coco", "--config", str(tmp_path / "coco.yaml"), *overrides)
    assert left_initial(first, capsys.readouterr().out) == LEFT
    assert len(load_checkpoint(tmp_path / "coco/last.pt")["class_names"]) == 80


def test_the_encoder_frozen_then_trained(shapes, first, tmp_path, capsys):
    """Frozen to the bit through a whole run, and scored as it was logged."""
    started = [*shapes, f"model.init.weights={first}", "training.steps=4", "evaluation.every=2"]
    frozen = [*started, "training.freeze.until=encoder", "training.encoder_learning_rate=1e-4"]
    run(tmp_path, "frozen", *frozen)
    assert left_initial(first, capsys.readouterr().out) == []
    run(tmp_path, "thawed", *frozen, "training.freeze.unfreeze_at=3")
    before = load_checkpoint(first)
    start = evaluated_tensors(before)
    for name, expected in (("frozen", True), ("thawed", False)):
        after = load_checkpoint(tmp_path / name / "last.pt")["model"]
        encoder = [key for key in start if key.startswith("encoder.")]
        assert all(torch.equal(start[key], after[key]) for key in encoder) == expected
        assert not torch.equal(start["neck.up32.0.conv.weight"], after["neck.up32.0.conv.weight"])
    record = json.loads((tmp_path / "frozen/metrics.jsonl").read_text().splitlines()[0])
    assert record["learning_rate"] == 20 * record["learning_rate_encoder"]
    report = tmp_path / "scores.json"
    argv = [str(tmp_path / "thawed/last.pt"), "--gpu", "cpu", "--json", str(report)]
    assert validation.main(argv) == 0
    logged = json.loads((tmp_path / "thawed/metrics.jsonl").read_text().splitlines()[-1])
    found = json.loads(report.read_text())["results"][0]
    assert found["stats"]["AP"] == logged["AP"] and found["found_boxes"] == logged["found_boxes"]


def test_resume_across_the_unfreezing_is_exact(shapes, first, tmp_path):
    overrides = [*shapes, f"model.encoder.weights={first}"]
    overrides += ["training.freeze.unfreeze_at=2", "evaluation.every=10"]
    run(tmp_path, "whole", *overrides, "training.steps=3")
    run(tmp_path, "halved", *overrides, "training.steps=1")
    resume(tmp_path / "halved", "training.steps=3")
    whole, ours = (load_checkpoint(tmp_path / n / "last.pt") for n in ("whole", "halved"))
    for part in ("model", "optimizer"):
        assert differences(whole[part], ours[part]) == []


@pytest.mark.parametrize("content", [b"", b"no weights\n", b"PK\x03\x04" + bytes(500)])
@pytest.mark.parametrize("key", ["model.encoder.weights", "model.init.weights"])
def test_garbage_ends_with_code_1_and_makes_no_folder(shapes, tmp_path, capsys, key, content):
    for name in ("a.pt", "a.weights"):
        (tmp_path / name).write_bytes(content)
        run(tmp_path, "run", *shapes, f"{key}={tmp_path / name}", code=1)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and name in lines[0]
    assert not (tmp_path / "run").exists()


def test_an_unknown_stage_ends_with_code_1(shapes, tmp_path, capsys):
    run(tmp_path, "run", *shapes, "training.freeze.until=encoder.layer9", code=1)
    printed = capsys.readouterr().err
    assert "training.freeze.until: 'encoder.layer9' is no stage of this encoder" in printed
    assert "encoder.convs.6" in printed


def test_a_resumed_run_tells_the_input_of_the_weights_that_it_began_with(shapes, tmp_path):
    """They came from a file that resuming does not read, and the config leaves it to them."""
    short = [*shapes, "training.steps=1", "evaluation.every=1"]
    run(tmp_path, "a", *short, "model.preprocessing=imagenet")
    run(tmp_path, "b", *short, f"model.init.weights={tmp_path / 'a/best.pt'}")
    before = load_checkpoint(tmp_path / "b/last.pt")
    assert before["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    resume(tmp_path / "b", "training.steps=2")
    after = load_checkpoint(tmp_path / "b/last.pt")
    assert (after["progress"]["step"], after["preprocessing"]) == (2, before["preprocessing"])
