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
        (["a.pt", "b.pt", "--save-txt", "x"], "--save-txt writes the boxes of one checkpoint"),
        (["--competition", "comp3"], "--competition names the files of --save-voc"),
    ],
)
def test_bad_usage_is_one_sentence(argv, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as caught:
        validation.parse(argv)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert sentence in printed and len(printed.splitlines()) == 1
