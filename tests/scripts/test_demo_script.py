"""scripts/demo.py as a user runs it, in process."""

import subprocess
import sys

import pytest

from scripts import demo
from tests.apps.demo.stand_ins import write_trained
from yolo.config import REPOSITORY_ROOT


def test_without_a_checkpoint_it_says_how_to_make_one(tmp_path, capsys):
    assert demo.main(["--logs", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "train one with `python main.py`" in errors
    assert demo.main([str(tmp_path / "best.pt")]) == 1
    assert "there is no such file; `python main.py` trains a model" in capsys.readouterr().err


def test_the_space_of_the_newest_run(tmp_path, capsys):
    (tmp_path / "logs" / "first").mkdir(parents=True)
    write_trained(tmp_path / "logs" / "first" / "best.pt")
    space = tmp_path / "space"
    assert demo.main(["--logs", str(tmp_path / "logs"), "--make-space", str(space)]) == 0
    assert str(space / "app.py") in capsys.readouterr().out.splitlines()


def test_the_confidence_at_first(tmp_path, monkeypatch):
    write_trained(tmp_path / "best.pt")
    shown = []
    monkeypatch.setattr("yolo.apps.demo.show.show", lambda _, **given: shown.append(given["conf"]))
    for given in ([], ["--conf", "0.4"], ["--conf", "auto"]):
        assert demo.main([str(tmp_path / "best.pt"), *given]) == 0
    assert shown == [None, 0.4, "auto"]


@pytest.mark.parametrize("wrong", [["--port", "80"], ["--port", "x"], ["--gpu", "0,1"], ["--prot"]])
def test_bad_usage(wrong, usage_error):
    assert usage_error(demo.main, *wrong).count("\n") == 1


def test_bad_usage_loads_no_torch():
    program = (
        "import runpy, sys\n"
        "sys.argv = ['demo.py', '--port', 'x']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    command, folder = [sys.executable, "-c", program], REPOSITORY_ROOT / "scripts"
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.stdout == "False\n"
