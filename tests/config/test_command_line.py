"""The command line of main.py."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolo.config import REPOSITORY_ROOT
from yolo.config.command_line import (
    DEFAULT_CONFIG,
    Parser,
    TrainArguments,
    is_picture,
    load_detector_config,
    parse_train_arguments,
)


def test_defaults():
    assert parse_train_arguments([]) == TrainArguments(
        config=DEFAULT_CONFIG, devices=None, resume=None, name=None, overrides=()
    )
    assert DEFAULT_CONFIG.is_file()


def test_options_and_overrides_in_any_order():
    given = parse_train_arguments(
        ["a.b=1", "--gpu", "0", "c=-2", "--config", "x.yaml", "d=[1, 2]", "--name", "try 1"]
    )
    assert given.config == Path("x.yaml")
    assert given.devices == ["cuda:0"]
    assert given.name == "try 1"
    assert given.overrides == ("a.b=1", "c=-2", "d=[1, 2]")


@pytest.mark.parametrize("path", ["run", "run/", "run/last.pt"])
def test_a_resumed_run_has_its_own_config(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    given = parse_train_arguments(["--resume", path, "training.steps=9"])
    assert given.resume == Path("run")
    assert given.config == Path("run/config.yaml")
    assert given.overrides == ("training.steps=9",)


DEVICES = {
    "auto": None,
    "cpu": ["cpu"],
    "cpu,cpu": ["cpu", "cpu"],
    "mps": ["mps"],
    "3": ["cuda:3"],
    "0,1": ["cuda:0", "cuda:1"],
    "0, 1": ["cuda:0", "cuda:1"],
}


@pytest.mark.parametrize("text", DEVICES)
def test_devices(text):
    assert parse_train_arguments(["--gpu", text]).devices == DEVICES[text]


LONG = "x" * 300  # file systems take 255
GPU = "must be an index such as 0, a list such as 0,1 or cpu,cpu, cpu, mps (a Mac's GPU), or auto"
OWN = "--resume goes on with a run's own folder and config: drop"
WRITTEN = "a setting of the config is written"
BAD_USAGE = {
    "--gpu mps,mps": f"argument --gpu: 'mps,mps' {GPU}",
    "--gpu cuda": f"argument --gpu: 'cuda' {GPU}",
    "--gpu 0,cpu": f"argument --gpu: '0,cpu' {GPU}",
    "--gpu=": f"argument --gpu: '' {GPU}",
    "--gpu=-1": f"argument --gpu: '-1' {GPU}",
    "--gpu 0,0": "argument --gpu: '0,0' must not name a GPU twice",
    "--gpu": "argument --gpu: expected one argument",
    "--name ../x": "argument --name: '../x' must be a folder's name without a path",
    "--name ..": "argument --name: '..' must be a folder's name without a path",
    "--name=": "argument --name: '' must be a folder's name without a path",
    "--congif x": "unknown option '--congif' (did you mean '--config'?)",
    "--device cpu": "unknown option '--device' (did you mean '--gpu'?)",
    "--cfg=a.yaml": "unknown option '--cfg=a.yaml' (did you mean '--config'?)",
    "--training.steps 10": f"unknown option '--training.steps'; {WRITTEN} training.steps=10",
    "--training.steps=10": f"unknown option '--training.steps=10'; {WRITTEN} training.steps=10",
    "--a.b-c": f"unknown option '--a.b-c'; {WRITTEN} a.b_c=VALUE",
    "--imgsz 640 --name x": f"unknown option '--imgsz'; {WRITTEN} data.image_size=640",
    "--patience 3": f"unknown option '--patience'; {WRITTEN} training.patience=3 or "
    "training.schedule.patience=3",
    "--epochs 100": f"unknown option '--epochs'; {WRITTEN} training.steps=N, it counts optimizer "
    "steps: 100 epochs of, for example, 1,000 images at training.batch_size 64 are 1,563",
    "--foo 1": "unknown option '--foo'",
    "--resume no/run": "--resume no/run: not the folder of a run: it has no config.yaml",
    f"--resume {LONG}": f"--resume {LONG}: not the folder of a run: it has no config.yaml",
    "--resume logs/a --name b": f"{OWN} --name",
    "--resume logs/a --config b": f"{OWN} --config",
}


@pytest.mark.parametrize("line", BAD_USAGE)
def test_bad_usage_is_one_sentence_and_exit_code_2(line, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    with pytest.raises(SystemExit) as stopped:
        parse_train_arguments(line.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"main.py: {BAD_USAGE[line]} (see --help)\n"


def test_a_name_that_no_file_can_have(capsys):
    parser, given = Parser(""), argparse.Namespace(source=[LONG], checkpoint=None)
    parser.take_checkpoint(given, "source")
    assert (given.source, given.checkpoint) == ([LONG], None)
    parser.check_folder(Path(LONG))
    with pytest.raises(SystemExit, match="2"):
        parser.check_file(Path(LONG) / "a.json")
    assert f"there is no folder {LONG}; make it first" in capsys.readouterr().err
    assert not is_picture(Path(LONG)) and is_picture(Path(f"{LONG}.png"))


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_train_arguments(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "python main.py --config configs/yolov3/darknet53_coco.yaml" in text
    assert "training.batch_size=16" in text


def test_a_classifier_is_no_detector(capsys):
    path = REPOSITORY_ROOT / "configs" / "pretrain" / "shapes_darknet53.yaml"
    with pytest.raises(SystemExit, match="2"):
        load_detector_config(path)
    assert capsys.readouterr().err == (
        f"{path}: task: 'classify': must be 'detect' for this command; name a detector's config\n"
    )


def test_every_problem_of_a_detectors_config_is_printed(capsys):
    with pytest.raises(SystemExit, match="2"):
        load_detector_config(DEFAULT_CONFIG, ["training.steps=0", "seed=x"])
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and "training.steps" in printed[1] + printed[0]


def test_a_detectors_config_comes_back():
    assert load_detector_config(DEFAULT_CONFIG, ["training.steps=7"]).config.training.steps == 7


@pytest.mark.parametrize(
    "begin",
    [
        "from yolo.config.command_line import Parser; Parser('').parse([]); work()",
        "from yolo.errors import exit_code; sys.exit(exit_code(work))",
    ],
)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "utf-8:strict", "gbk"])
def test_what_the_terminal_cannot_show_is_printed_escaped(begin, encoding):
    """Also half a character, as in the name of a file that is not UTF-8."""
    work = "lambda: [print('猫 ä \\udcff', file=file) for file in streams] and None"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; streams = sys.stdout, sys.stderr; work = {work}; {begin}",
        ],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPOSITORY_ROOT)},
        capture_output=True,
        check=False,
    )
    codec = encoding.partition(":")[0]
    expected = "猫 ä \udcff\n".encode(codec, "backslashreplace")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


def test_a_command_whose_output_is_closed():
    code = "from yolo.errors import exit_code; raise SystemExit(exit_code(lambda: print('猫')))"
    line = f'exec "$0" -c "{code}" >&-'
    done = subprocess.run(["sh", "-c", line, sys.executable], cwd=REPOSITORY_ROOT, check=False)
    assert done.returncode == 0


def test_a_restarted_run_has_its_own_config_once_it_has_a_checkpoint(tmp_path):
    given = parse_train_arguments(["a.b=1", "--gpu", "0,1", "--name", "x", "--config", "x.yaml"])
    assert given.going_on_with(None) is given and given.going_on_with(tmp_path) is given
    (tmp_path / "last.pt").touch()
    assert given.going_on_with(tmp_path) == TrainArguments(
        config=tmp_path / "config.yaml",
        devices=["cuda:0", "cuda:1"],
        resume=tmp_path,
        name=None,
        overrides=(),
    )
