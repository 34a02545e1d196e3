"""Variants and seeds from one YAML: trained, scored, gone on with, compared."""

import os
import signal

import pytest
import yaml

import main as training
import validation
from benchmarks.ablation import read_ablation
from scripts import ablate
from tests.train.toys import quickstart


@pytest.fixture
def executed(monkeypatch):
    """The commands that an ablation starts, run in this process."""
    commands = []

    def execute(script, arguments, folder):
        commands.append((script, folder.name, arguments[0]))
        run = training.main if script == "main.py" else validation.main
        assert run(list(arguments)) == 0

    monkeypatch.setattr(ablate, "_execute", execute)
    return commands


def write(path, settings, **more):
    variants = {"plain": [], "large": ["training.batch_size=4"]}
    content = {"config": "config.yaml", "settings": settings, "variants": variants, **more}
    quickstart_yaml = ablate.REPOSITORY / "configs" / "quickstart.yaml"
    (path.parent / "config.yaml").write_text(f"extends: {quickstart_yaml}\n")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_it_trains_and_scores_each_variant_and_goes_on(tmp_path, executed, capsys):
    settings = quickstart(
        tmp_path / "shapes",
        model={"encoder.width": 0.25},
        data={"train.images": 6, "val.images": 3, "test.images": 3},
        training={"steps": 2, "schedule.warmup_steps": 0, "schedule.t_0": 2, "batch_size": 2},
        evaluation={"every": 2, "pictures": 0},
    )
    settings = settings[1:]  # without --gpu
    file = write(tmp_path / "sizes.yaml", settings, seeds=[0, 1], split="test")
    argv = [str(file), "evaluation.conf=0.002", "--logs", str(tmp_path / "logs"), "--gpu", "cpu"]
    assert ablate.main(argv) == 0
    names = ["plain-seed0", "large-seed0", "plain-seed1", "large-seed1"]
    assert [(script, name) for script, name, _ in executed] == [
        (script, name) for name in names for script in ("main.py", "validation.py")
    ]
    folder = tmp_path / "logs" / "sizes"
    table = (folder / "table.txt").read_text().splitlines()
    assert [row.split()[:2] for row in table] == [["run", "runs"], ["plain", "2"], ["large", "2"]]
    assert table[2].endswith("training.batch_size=4") and "±" in table[1]
    assert len((folder / "table.csv").read_text().splitlines()) == 5
    assert "conf: 0.002  # command line" in (folder / "plain-seed0" / "config.yaml").read_text()

    executed.clear()
    (folder / "large-seed1" / ablate.SCORES).unlink()  # stopped while it was scored
    assert ablate.main(argv) == 0
    assert executed == [
        ("main.py", "large-seed1", "--resume"),
        ("validation.py", "large-seed1", str(folder / "large-seed1")),
    ]

    executed.clear()
    write(file, [*settings, "training.ema.decay=0.5"], seeds=[0, 1], split="test")
    capsys.readouterr()
    assert ablate.main(argv) == 1 and executed == []
    assert "was trained with other settings (training.ema.decay)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"seed": [0]}, "seed: [0]: unknown key"),
        ({"seeds": []}, "seeds: []: must be"),
        ({"variants": {}}, "variants: {}: must be"),
        ({"variants": {"a/b": []}}, "'a/b': must be letters, digits and -_+. alone"),
        ({"variants": {"a": ["training.stepz=1"]}}, "variant a: command line: training.stepz"),
        ({"config": "none.yaml"}, "none.yaml: no such file"),
    ],
)
def test_every_problem_of_the_file_is_told_before_anything_runs(tmp_path, capsys, more, sentence):
    file = write(tmp_path / "a.yaml", [], **more)
    assert ablate.main([str(file), "--logs", str(tmp_path / "logs")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Stands in for main.py."""
    monkeypatch.setattr(ablate, "REPOSITORY", tmp_path)
    return tmp_path / "script.py"


def test_a_signal_reaches_the_command_that_runs(tmp_path, script, capsys):
    script.write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
        f"os.kill({os.getpid()}, signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(SystemExit) as stopped:
        ablate._execute("script.py", [], tmp_path / "run")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "run.log").read_text() == "saved\n"
    assert "the same command goes on" in capsys.readouterr().err


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path, script, capsys):
    script.write_text("print('all well')\nraise SystemExit('error: no room')\n")
    assert ablate.exit_code(lambda: ablate._execute("script.py", [], tmp_path / "run")) == 1
    said = capsys.readouterr().err
    assert (
        f"script.py ended with exit code 1: error: no room (all of it: {tmp_path}/run.log)" in said
    )


@pytest.mark.parametrize(
    "path",
    sorted(ablate.REPOSITORY.glob("benchmarks/ablations/*.yaml")),
    ids=lambda path: path.name,
)
def test_every_file_that_is_kept_can_be_run(path):
    ablation, runs = read_ablation(path)
    assert len(runs) == len(ablation.seeds) * len(ablation.variants)
    assert ablation.variants["best" if "_best" in path.stem else "plain"] == ()
