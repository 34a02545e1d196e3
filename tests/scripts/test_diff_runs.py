"""Two configs against each other, as the runs saved them and as YAML has them."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import diff_runs
from yolo.config import REPOSITORY_ROOT, load_config, resolved_yaml
from yolo.config.save import read_settings

QUICKSTART = REPOSITORY_ROOT / "configs" / "quickstart.yaml"


def run_folder(path: Path, *overrides: str) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(resolved_yaml(load_config(QUICKSTART, overrides)))
    return path


def test_what_was_saved_is_read_back_with_its_origins(tmp_path):
    overrides = ("training.batch_size=8", "data.class_names=['a  # b', 'c: d']")
    resolved = load_config(QUICKSTART, overrides)
    settings = read_settings(run_folder(tmp_path / "a", *overrides))
    assert {key: setting.origin for key, setting in settings.items()} == resolved.origins
    assert settings["training.batch_size"].value == 8
    assert settings["data.class_names"].value == ["a  # b", "c: d"]
    for key, setting in settings.items():
        value = resolved.data
        for name in key.split("."):
            value = value[name]
        assert setting.value == value


def test_the_settings_that_differ_are_shown_with_their_origins(tmp_path, capsys):
    a = run_folder(tmp_path / "a", "training.batch_size=8", "training.ema=null")
    b = run_folder(tmp_path / "b", "data.augment=[]")
    assert diff_runs.main([str(a), str(b / "config.yaml")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"A  {a}",
        f"B  {b / 'config.yaml'}",
        "",
        "data.augment",
        "  A  [{type: HorizontalFlip, p: 0.5}, {type: RandomBrightnessContrast, p: 0.2}]  "
        "configs/quickstart.yaml",
        "  B  []                                                                          "
        "command line",
        "",
        "training.batch_size",
        "  A  8   command line",
        "  B  16  configs/quickstart.yaml",
        "",
        "training.ema",
        "  A  null  command line",
        "  B  -     no such setting",
        "",
        "training.ema.decay",
        "  A  -      no such setting",
        "  B  0.995  configs/quickstart.yaml",
        "",
        "training.ema.ramp",
        "  A  -      no such setting",
        "  B  false  default",
        "",
        f"5 of {len({*read_settings(a), *read_settings(b)})} settings differ",
    ]


def test_a_run_against_the_yaml_it_was_started_with(tmp_path, capsys):
    assert diff_runs.main([str(run_folder(tmp_path / "a")), str(QUICKSTART)]) == 0
    assert capsys.readouterr().out.startswith("no difference in ")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_is_no_config(tmp_path, capsys, name):
    assert diff_runs.main([str(QUICKSTART), str(tmp_path / name)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error():
    """As ``| head`` is; ``true`` has gone before Python has started."""
    config = REPOSITORY_ROOT / "configs/quickstart.yaml"
    command = f"{sys.executable} {REPOSITORY_ROOT}/scripts/diff_runs.py {config} {config} | true"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (141, "")
