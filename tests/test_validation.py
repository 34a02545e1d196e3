"""What validation.py writes, compares and refuses, in process, on generated images."""

import json
import math
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import export
import main as training
import validation
from tests.coco_files import write_coco
from tests.detectors import make_config
from tests.train.toys import quickstart
from yolo.config import REPOSITORY_ROOT
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

CLASSIFIER = REPOSITORY_ROOT / "configs/pretrain/shapes_mobilenet_v3_small.yaml"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments of a small training, of a detector or a classifier."""
    argv = quickstart(
        tmp_path_factory.mktemp("shapes"),
        data={"val.images": 5},
        training={"steps": 2, "schedule.t_0": 2},
        evaluation={"every": 1, "batch_size": 2},
    )
    return [argument for argument in argv if not argument.startswith(("model.", "data.test."))]


def train(name, *argv):
    """The new run's folder."""
    assert training.main(["--name", name, *argv]) == 0
    directory = next(a for a in argv if a.startswith("logging.directory="))
    return Path(directory.removeprefix("logging.directory="), name)


@pytest.fixture(scope="module")
def run(small):
    """A detector that is judged by the VOC metric and reports the other one too."""
    judged = ["evaluation.conf=0.0005", "evaluation.metric=voc", "evaluation.both=true"]
    argv = [*small, "model.encoder.width=0.25", "training.schedule.warmup_steps=0", *judged]
    return train("voc", *argv)


def score(*argv):
    assert validation.main([*map(str, argv), "--gpu", "cpu"]) == 0


def test_the_metric_of_the_training_and_its_losses(run, tmp_path, capsys):
    score(run / "last.pt", "--json", tmp_path / "scores.json")
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    report = json.loads((tmp_path / "scores.json").read_text())
    (result,) = report["results"]
    assert set(result) == {"confidence", "found_boxes", "stats"}
    assert list(result["stats"])[:4] == ["mAP", "mAP_11", "mAP_fixed", "AP"]
    assert result["stats"] == {name: logged[name] for name in result["stats"]}
    assert result["found_boxes"] == logged["found_boxes"] > 0
    losses, accuracy = (
        {name.removeprefix(kind): value for name, value in logged.items() if kind in name}
        for kind in ("loss/", "accuracy/")
    )
    losses["loss"] = logged["loss"]
    assert report["losses"] == losses and {"loss", "box", "no_object"} <= set(losses)
    assert report["accuracy"] == accuracy
    assert set(report["accuracy"]) == {"class", "object", "no_object", "placed"}
    printed = capsys.readouterr().out.splitlines()
    assert [line.startswith(" Mean Average") for line in printed].count(True) == 3
    averages = [line for line in printed if line.startswith(" Average")]
    assert len(averages) == 12 and averages[0].endswith(f"= {logged['AP']:.3f}")
    assert printed[-2].startswith(f"loss {losses['loss']:.4g} (box ")
    assert " accuracy: class " in printed[-2] and " images/s network" in printed[-1]


def test_the_json_has_no_nan(tmp_path, monkeypatch):
    """A network that diverged has no loss: null, for strict readers take nothing else."""
    report = {"losses": {"loss": math.nan, "xy": math.inf}, "step": 1}
    monkeypatch.setattr("yolo.factory.scoring.score_checkpoints", lambda *_, **__: report)
    score("a.pt", "--json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"losses": {"loss": None, "xy": None}, "step": 1}


def test_what_was_corrected_in_the_data_is_told_as_in_training(run, tmp_path, capsys):
    boxes = [(1, 0, [-9, 8, 30, 30], False), (1, 0, [8, 8, 0, 0], False)]
    data = write_coco(tmp_path, {1: np.zeros((64, 64, 3), np.uint8)}, boxes, ["circle"])
    score(run / "last.pt", f"data.val={json.dumps(data)}")
    printed = capsys.readouterr().out.splitlines()
    start = printed.index("data.val: 1 images, 1 boxes")
    assert printed[start + 1 : start + 3] == ["  1 boxes: clipped", "  1 boxes: no area"]


def test_another_metric_and_iou(run, capsys):
    score(run / "last.pt", "--metric", "coco")
    assert "Mean Average" not in capsys.readouterr().out
    score(run / "last.pt", "--metric", "voc", "--voc-iou", "0.75", "--per-class")
    printed = capsys.readouterr().out
    assert "@[ IoU=0.75 |" in printed and "(AP) @[" not in printed
    assert re.search(r"circle +AP = \S+  AP_11 = \S+  AP_fixed = ", printed)


def pictures_in(folder):
    """Tag -> steps of the pictures in TensorBoard."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def test_curves_of_one_model_and_of_several(run, tmp_path, capsys):
    score(run / "last.pt", "--curves", tmp_path / "one.jpg")
    score(run / "best.pt", run / "last.pt", "--curves", tmp_path / "new")
    one, two = (cv2.imread(str(tmp_path / n)) for n in ("one.jpg", "new/precision_recall.png"))
    assert one.shape[0] > 400 and two.shape[0] > 400 and one.shape != two.shape
    assert one.std() > 10 and two.std() > 10
    tag = "precision_recall/val"
    assert len(pictures_in(run)[tag]) == 3 and pictures_in(run)[tag][0] == 2
    assert "new/precision_recall.png" in capsys.readouterr().out


def test_several_checkpoints_have_their_tables(run, tmp_path, capsys):
    score(run / "best.pt", run / "last.pt", "--conf", "0.5", "0.001", "--json", tmp_path / "a.json")
    reports = json.loads((tmp_path / "a.json").read_text())["checkpoints"]
    assert [r["checkpoint"] for r in reports] == [str(run / "best.pt"), str(run / "last.pt")]
    assert [len(r["results"]) for r in reports] == [2, 2]
    assert capsys.readouterr().out.count(" Mean Average Precision  (mAP      )") == 4


def test_files_for_other_tools(run, tmp_path):
    txt, voc, coco = tmp_path / "txt", tmp_path / "voc", tmp_path / "coco.json"
    argv = ["--save-txt", txt, "--save-voc", voc, "--competition", "comp3", "--detections", coco]
    score(run / "last.pt", "--conf", "0.5", "0.001", *argv)
    boxes = json.loads(coco.read_text())
    found = [line.split() for p in txt.glob("detections/*") for line in p.read_text().splitlines()]
    assert len(found) == len(boxes) > 5
    scores = sorted(float(row[1]) for row in found)
    np.testing.assert_allclose(scores, sorted(box["score"] for box in boxes), rtol=1e-8)
    assert len(list(txt.glob("groundtruths/*.txt"))) == 5
    truth = [p.read_text() for p in txt.glob("groundtruths/*.txt")]
    assert all(re.fullmatch(r"(\w+ [\d.]+ [\d.]+ [\d.]+ [\d.]+\n)*", text) for text in truth)
    files = {p.name: p.read_text().splitlines() for p in voc.iterdir()}
    assert "comp3_det_val_circle.txt" in files
    assert sum(map(len, files.values())) == len(boxes)


def test_an_iou_that_nothing_uses_is_refused(run, capsys):
    argv = [str(run / "last.pt"), "--gpu", "cpu", "--metric", "coco", "--voc-iou", "0.6"]
    assert validation.main(argv) == 1
    sentence = "--voc-iou changes nothing in COCO's figures; add --metric voc"
    assert sentence in capsys.readouterr().err


def test_foreign_files_are_told_before_the_network_runs(run, tmp_path, capsys):
    (tmp_path / "detections").mkdir()
    (tmp_path / "detections/old.txt").touch()
    argv = [str(run / "last.pt"), "--gpu", "cpu", "--save-txt", str(tmp_path)]
    assert validation.main(argv) == 1
    printed = capsys.readouterr()
    assert "holds old.txt of another scoring" in printed.err and printed.out == ""


def test_yolov1_has_one_size(tmp_path, capsys):
    config = make_config("darknet_tiny", "yolov1", image_size=128)
    path = tmp_path / "v1.pt"
    save_checkpoint(path, {"config": config.model_dump(mode="json")})
    assert validation.main([str(path), "--gpu", "cpu", "--image-size", "192"]) == 1
    err = capsys.readouterr().err
    assert "works at the 128 px alone that it was trained at, not at --image-size 192" in err
    assert len(err.splitlines()) == 1


def test_a_classifier(small, tmp_path, capsys):
    sizes = ["training.ema=null", "data.image_size=32"]
    run = train("classifier", "--config", str(CLASSIFIER), *small, *sizes)
    checkpoint = str(run / "last.pt")
    score(checkpoint, "--json", tmp_path / "scores.json")
    report = json.loads((tmp_path / "scores.json").read_text())
    assert {"top1", "top5", "loss"} <= set(report["results"][0]["stats"])
    assert "top-1 accuracy" in capsys.readouterr().out
    argv = [checkpoint, "--gpu", "cpu", "--conf", "0.5", "--labels", "best_class", "--tta"]
    assert validation.main(argv) == 1
    assert "a classifier has no boxes; leave out --conf, --labels, --tta" in capsys.readouterr().err


@pytest.fixture(scope="module")
def longer_run(small):
    """Enough steps for some true boxes at a low confidence."""
    settings = ["data.val.images=6", "data.image_size=96", "model.encoder.width=0.25"]
    settings += ["training.steps=30", "training.ema=null", "training.schedule.t_0=30"]
    settings += ["training.schedule.warmup_steps=0", "evaluation.every=30", "evaluation.conf=0.003"]
    settings += ["evaluation.batch_size=4", "evaluation.both=true"]
    return train("longer", *small, *settings)


def report_and_boxes(folder, file, *options):
    json_path, boxes_path = folder / "scores.json", folder / "boxes.json"
    argv = [str(file), "--gpu", "cpu", "--json", str(json_path), "--detections", str(boxes_path)]
    assert validation.main([*argv, *options]) == 0
    return json.loads(json_path.read_text()), json.loads(boxes_path.read_text())


def test_labels_of_a_box(longer_run, tmp_path):
    file = longer_run / "last.pt"
    _, boxes = report_and_boxes(tmp_path, file)
    assert report_and_boxes(tmp_path, file, "--labels", "all_classes")[1] == boxes
    _, fewer = report_and_boxes(tmp_path, file, "--labels", "best_class")
    assert 0 < len(fewer) < len(boxes)


def test_another_suppression(longer_run, tmp_path):
    file = longer_run / "last.pt"
    _, boxes = report_and_boxes(tmp_path, file)
    assert report_and_boxes(tmp_path, file, "--nms", "greedy")[1] == boxes
    _, soft = report_and_boxes(tmp_path, file, "--nms", "soft")
    best, highest = (max(box["score"] for box in found) for found in (boxes, soft))
    assert soft != boxes and best == highest


def test_augmentation_finds_other_boxes_and_has_no_losses(longer_run, tmp_path):
    file = longer_run / "last.pt"
    (_, boxes), (report, others) = (
        report_and_boxes(tmp_path, file, *options) for options in ([], ["--tta"])
    )
    assert report["losses"] == {} and others != boxes and others
    best, highest = (max(box["score"] for box in found) for found in (boxes, others))
    assert highest >= best


def test_the_confidences_of_the_best_f1_go_into_the_checkpoint(longer_run, tmp_path, capsys):
    """All else in it stays, and it is scored and resumed as before."""
    run = shutil.copytree(longer_run, tmp_path / "run")
    before = load_checkpoint(run / "last.pt")
    expected = report_and_boxes(tmp_path, run / "last.pt")
    capsys.readouterr()
    score(run / "last.pt", "--choose-conf", "--precision", "bf16")
    printed = capsys.readouterr().out
    after = load_checkpoint(run / "last.pt")
    confs = after.pop("class_conf")
    assert (
        len(confs)
        == len(before["class_names"])
        == len(set(re.findall(r"^ .*  F1 = .*", printed, re.M)))
    )
    chosen = [conf for conf in confs if conf != 0.25]  # that of a class without a right box
    assert chosen and all(conf in np.arange(10_001) / 1e4 for conf in chosen)
    for name in before["class_names"]:
        assert re.search(rf"^ {name} +0\.\d+  F1 = 0\.\d+  precision = ", printed, re.M)
    assert after.keys() == before.keys() and after["precision"] == before["precision"]
    for key, tensor in before["model"].items():
        assert torch.equal(after["model"][key], tensor)
    assert report_and_boxes(tmp_path, run / "last.pt")[1] == expected[1]
    assert training.main(["--resume", str(run), "--gpu", "cpu", "training.steps=31"]) == 0


def test_confidences_are_chosen_from_all(usage_error):
    argv = ["a.pt", "--choose-conf", "--conf", "0.3"]
    assert "leave out --conf" in usage_error(validation.main, *argv)


@pytest.mark.parametrize("option", ["--nms", "--dynamic-size"])
def test_an_exported_file_scores_like_its_checkpoint(longer_run, option, tmp_path, capsys):
    """In the folder of its run: the file itself does not say where its data lie."""
    output = longer_run / "detector.onnx"
    argv = [str(longer_run / "last.pt"), "--format", "onnx", "--output", str(output), option]
    assert export.main(argv) == 0
    assert str(longer_run.parent.parent).encode() not in output.read_bytes()
    expected, boxes = report_and_boxes(tmp_path, longer_run / "last.pt", "--precision", "fp32")
    report, found = report_and_boxes(tmp_path, output)
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


def test_what_an_exported_file_cannot_do_is_refused(longer_run, tmp_path, capsys):
    output = longer_run / "refused.onnx"
    argv = [str(longer_run / "last.pt"), "--format", "onnx", "--output", str(output)]
    assert export.main([*argv, "--nms", "--conf", "0.1"]) == 0
    capsys.readouterr()
    report, _ = report_and_boxes(tmp_path, output)
    assert report["results"][0]["confidence"] == 0.1
    for options, text in (
        (["--conf", "0.01"], "drops scores below 0.1, so there is no --conf 0.01"),
        (["--labels", "best_class"], "the suppression inside has all_classes; leave out --labels"),
        (["--precision", "bf16"], "was exported in fp32 and computes in nothing else"),
        (["--image-size", "128"], "takes images of 96 px alone, not of --image-size 128"),
        (["--nms", "soft"], "the suppression inside is greedy; leave out --nms"),
        (["--tta"], "an exported file is fixed; --tta, --precision and --choose-conf are for"),
        (
            ["--choose-conf"],
            "an exported file is fixed; --tta, --precision and --choose-conf are for",
        ),
    ):
        assert validation.main([str(output), "--gpu", "cpu", *options]) == 1
        assert text in capsys.readouterr().err
    output.write_text("text")
    assert validation.main([str(output), "--gpu", "cpu"]) == 1
    assert "ONNX Runtime cannot open it" in capsys.readouterr().err
