"""Train variants of a config with several seeds, and compare them: ``scripts/ablate.py FILE``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.ablation import AblationConfig, PlannedRun, read_ablation
from yolo.config import ConfigError
from yolo.config.command_line import Parser
from yolo.config.save import read_settings
from yolo.errors import UserError, exit_code
from yolo.files import write_or_refuse
from yolo.train.interruption import Interruption

SCORES = "scores.json"
"""In a run's folder once it is trained and scored."""

EXAMPLES = """a file:
  config: ../configs/yolov3/bccd.yaml
  settings: [training.steps=520]
  seeds: [0, 1, 2]
  split: test
  variants:
    plain: []
    mosaic: ["data.mosaic={}"]
    mosaic_flat: ["data.mosaic={}", "training.schedule.eta_min=1e-4"]
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score what is not done yet, one run after the other; print the table of all.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage or a bad file exits with 2, a
        signal with 128 and its number.
    """
    parser = Parser("Train variants of a config with several seeds, and compare them.", EXAMPLES)
    parser.add_argument("file", type=Path, help="a YAML with config, seeds and variants (below)")
    parser.add_overrides("further settings of all variants, such as data.train.root=DIR")
    parser.add_gpu_option()
    parser.add_logs_option()
    arguments = parser.parse(argv)
    try:
        ablation, runs = read_ablation(arguments.file, arguments.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return exit_code(lambda: ablate(ablation, runs, arguments))


def ablate(
    ablation: AblationConfig, runs: Sequence[PlannedRun], arguments: argparse.Namespace
) -> None:
    """What ``main`` does once command line and file have proved right."""
    directory = arguments.logs.resolve() / arguments.file.stem
    names = [name.removeprefix("cuda:") for name in arguments.gpu or ()]
    gpu, one = (["--gpu", ",".join(some)] if some else [] for some in (names, names[:1]))
    for run in runs:
        _check_settings(directory / run.name, run)
    for number, run in enumerate(runs, start=1):
        folder, start = directory / run.name, time.monotonic()
        if (folder / SCORES).is_file():
            continue
        print(f"{number}/{len(runs)} {run.name} ...", flush=True)
        config = (arguments.file.parent / ablation.config).resolve()
        _train(folder, run, config, gpu)
        scoring = [str(folder), "--split", ablation.split, "--json", str(folder / SCORES)]
        _execute("validation.py", [*scoring, *one], folder)
        print(f"  done in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    from benchmarks.comparison import Comparison, Run
    from yolo.apps.report.drawing import save_image

    in_order = sorted(runs, key=lambda run: list(ablation.variants).index(run.variant))
    table = Comparison.of([Run.read(directory / run.name, SCORES) for run in in_order])
    print(table.text())
    for name, content in (("table.txt", table.text() + "\n"), ("table.csv", table.csv())):
        write_or_refuse("the table", directory / name, content.encode(), remedy="make room")
    save_image(directory / "table.png", table.picture())
    print(f"\n{directory}: table.txt, table.csv, table.png")


def _check_settings(folder: Path, run: PlannedRun) -> None:
    """Refuse a run that was trained, or begun, with other settings than the file has by now."""
    if not (folder / "config.yaml").is_file():
        return
    before = {key: setting.value for key, setting in read_settings(folder).items()}
    now = {key: value for key, value in run.settings.items() if value != "auto"}  # a run settles it
    keys = [k for k in now if before.get(k) != now[k] and k != "logging.directory"]
    if keys:
        raise UserError(
            f"{folder}: was trained with other settings ({', '.join(keys[:5])}); give the variant "
            "another name, or remove the folder"
        )


def _train(folder: Path, run: PlannedRun, config: Path, gpu: Sequence[str]) -> None:
    """Begin a run, or go on with it."""
    if (folder / "last.pt").is_file():
        _execute("main.py", ["--resume", str(folder), *gpu], folder)
        return
    if (folder / "config.yaml").is_file():
        shutil.rmtree(folder)  # it was stopped before its first checkpoint
    own = [f"logging.directory={folder.parent}"]
    named = ["--config", str(config), "--name", folder.name, *gpu]
    _execute("main.py", [*named, *run.overrides, *own], folder)


def _execute(script: str, arguments: Sequence[str], folder: Path) -> None:
    """Run a command, its output in a file beside the run's folder; a signal is handed on to it."""
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    with log.open("a") as file, Interruption() as stop:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        while process.poll() is None and not stop():
            time.sleep(0.1)
        if stop.signal_number is not None:
            process.send_signal(stop.signal_number)
            process.wait()  # it writes a checkpoint
            print("stopped; the same command goes on where it was stopped", file=sys.stderr)
            raise SystemExit(128 + stop.signal_number)
    if process.returncode:
        lines = log.read_text("utf-8", "replace").splitlines() or ["no word"]
        raise UserError(
            f"{script} ended with exit code {process.returncode}: {lines[-1]} (all of it: {log})"
        )


if __name__ == "__main__":
    sys.exit(main())
