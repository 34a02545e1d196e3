"""The command line of validation.py."""

from pathlib import Path

import pytest

import validation


def test_defaults():
    given = validation.parse([])
    assert given.checkpoints == () and given.devices is None and given.split == "val"
    assert given.confs is None and given.metric is None and given.competition == "comp4"
    assert given.detector_options() == []


def test_several_checkpoints_among_options():
    argv = ["a.pt", "--conf", "0.5", "1e-4", "--metric", "both", "b.pt", "--voc-iou", "0.75"]
    given = validation.parse([*argv, "--image-size", "416", "--curves", "curves.png"])
    assert given.checkpoints == (Path("a.pt"), Path("b.pt"))
    assert given.confs == (0.5, 1e-4) and given.metric == "both" and given.voc_iou == 0.75
    options = ["--conf", "--image-size", "--metric", "--voc-iou", "--curves"]
    assert given.detector_options() == options
    assert validation.parse(["--voc-iou", "0"]).detector_options() == ["--voc-iou"]


def test_settings_of_the_data_stand_among_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1.pt").touch()
    long = f"data.val.images={'b' * 300}"  # no file can be called so
    argv = ["a.pt", "data.val.images=b c", "--split", "test", "logs/lr=0.1/b.pt", "data.limit=3"]
    given = validation.parse([*argv, "lr=0.1.pt", long])
    assert given.checkpoints == (Path("a.pt"), Path("logs/lr=0.1/b.pt"), Path("lr=0.1.pt"))
    assert given.overrides == ("data.val.images=b c", "data.limit=3", long)
    assert validation.parse(["a.pt", "data.limit=3", "--save-txt", "x"]).checkpoints == (
        Path("a.pt"),
    )


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--conf", "2"], "argument --conf: '2' must be a number from 0 to 1"),
        (["--image-size", "100"], "'100' must be a multiple of 32 from 32 to 2048"),
        (["--gpu", "0,1"], "--gpu: scoring uses one device, name one"),
        (["--metric", "map"], "choose from"),
        (["--json", "nowhere/a.json"], "nowhere/a.json: there is no folder nowhere; make it first"),
        (["--curves", "nowhere/a.png"], "there is no folder nowhere"),
        (["--curves", "a.pdf"], "--curves a.pdf: must be a folder or end in .png, .jpg, .jpeg"),
        (["--save-txt", "file"], "file: must be a folder, but is a file"),
        (["--curves", "file"], "file: must be a folder, but is a file"),
        (["--save-voc", "file/below/it"], "file: must be a folder, but is a file"),
        (["--json", "."], ".: must be a file, but is a folder"),
        (["--detections", "."], ".: must be a file, but is a folder"),
        (["a.pt", "b.pt", "--save-txt", "x"], "--save-txt writes the boxes of one checkpoint"),
        (["--data.val.images", "x"], "a setting of the config is written data.val.images=x"),
        (["--weights", "b.pt"], "unknown option '--weights'; write b.pt without it"),
        (["evaluation.conf=0.1"], "evaluation.conf=0.1: behind the checkpoint stand only settings"),
        (["data.image_size=64"], "data.val.images=DIR; the options set the rest"),
        (["--competition", "comp3"], "--competition names the files of --save-voc"),
    ],
)
def test_bad_usage_is_one_sentence(argv, sentence, tmp_path, monkeypatch, usage_error):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    printed = usage_error(validation.parse, *argv)
    assert sentence in printed and len(printed.splitlines()) == 1
