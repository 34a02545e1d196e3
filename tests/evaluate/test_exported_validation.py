"""validation.py on exported files: the figures are those of the checkpoint."""

import json
import sys

import numpy as np
import pytest

from yolo.config import REPOSITORY_ROOT

sys.path.insert(0, str(REPOSITORY_ROOT))
import export
import main as training
import validation


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training on generated images; enough for some true boxes at a low confidence."""
    root, logs = tmp_path_factory.mktemp("shapes"), tmp_path_factory.mktemp("logs")
    argv = [
        "--gpu=cpu",
        "--name=tiny",
        f"logging.directory={logs}",
        f"data.train.root={root}",
        f"data.val.root={root}",
        "data.train.images=8",
        "data.val.images=6",
        "data.image_size=96",
        "data.workers=0",
        "model.encoder.width=0.25",
        "training.batch_size=4",
        "training.micro_batch_size=4",
        "training.steps=30",
        "training.ema=null",
        "training.schedule.t_0=30",
        "training.schedule.warmup_steps=0",
        "training.precision=fp32",
        "evaluation.every=30",
        "evaluation.conf=0.003",
        "evaluation.batch_size=4",
        "evaluation.pictures=0",
        "evaluation.both=true",
    ]
    assert training.main(argv) == 0
    return logs / "tiny"


def score(folder, file, *options):
    """The report and the boxes."""
    json_path, boxes_path = folder / "scores.json", folder / "boxes.json"
    argv = [str(file), "--gpu", "cpu", "--json", str(json_path), "--detections", str(boxes_path)]
    assert validation.main([*argv, *options]) == 0
    return json.loads(json_path.read_text()), json.loads(boxes_path.read_text())


@pytest.mark.parametrize(
    ("form", "options"),
    [("onnx", ["--nms"]), ("torchscript", ["--dynamic-size"])],
)
def test_an_exported_file_scores_like_its_checkpoint(run, form, options, tmp_path, capsys):
    output = tmp_path / f"detector.{form}"
    argv = [str(run / "last.pt"), "--format", form, "--output", str(output), *options]
    assert export.main(argv) == 0
    expected, boxes = score(tmp_path, run / "last.pt", "--precision", "fp32")
    report, found = score(tmp_path, output)
    assert (report["checkpoint"], report["step"]) == (str(output), 30)
    (mine,), (theirs,) = report["results"], expected["results"]
    assert mine["stats"].keys() == theirs["stats"].keys()
    for name, value in theirs["stats"].items():
        assert mine["stats"][name] == pytest.approx(value, abs=5e-5), name
    assert theirs["stats"]["AR100"] > 0, "something was found"
    assert mine["found_boxes"] == theirs["found_boxes"] > 50
    assert report["losses"] == {} and report["accuracy"] == {}
    for key, tolerance in (("score", 1e-4), ("bbox", 0.1)):
        values, wanted = ([box[key] for box in one] for one in (found, boxes))
        np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance)
    assert "nan" not in capsys.readouterr().out


def test_what_the_file_cannot_do_is_refused(run, tmp_path, capsys):
    output = tmp_path / "detector.onnx"
    argv = [str(run / "last.pt"), "--format", "onnx", "--output", str(output)]
    assert export.main([*argv, "--nms", "--conf", "0.1"]) == 0
    capsys.readouterr()
    report, _ = score(tmp_path, output)
    assert report["results"][0]["confidence"] == 0.1
    for options, text in (
        (["--conf", "0.01"], "drops scores below 0.1, so there is no --conf 0.01"),
        (["--precision", "bf16"], "was exported in fp32 and computes in nothing else"),
        (["--image-size", "128"], "takes images of 96 px alone, not of --image-size 128"),
    ):
        assert validation.main([str(output), "--gpu", "cpu", *options]) == 1
        assert text in capsys.readouterr().err
    output.write_text("text")
    assert validation.main([str(output), "--gpu", "cpu"]) == 1
    assert "ONNX Runtime cannot open it" in capsys.readouterr().err
