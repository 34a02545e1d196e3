"""The command line of main.py, and what the other commands' share. Imports no torch."""

from __future__ import annotations

import argparse
import reprlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from yolo.config.errors import ConfigError
from yolo.config.hints import meant_option
from yolo.config.layers import REPOSITORY_ROOT
from yolo.config.load import Resolved, load_config
from yolo.config.read import exists, is_file, is_folder
from yolo.config.schema import DEFAULT_TASK, TASKS
from yolo.config.wording import schema_of
from yolo.errors import print_any_text

DEFAULT_CONFIG = REPOSITORY_ROOT / "configs" / "quickstart.yaml"

LONGEST_NAME_BYTES = 200  # of a run's folder; file systems take 255
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".onnx", ".torchscript")
PAGE_SUFFIXES = (".html", ".htm")

Devices = list[str] | None
"""Names for `torch.device`, one per process; None for the best there is."""

EXAMPLES = """examples:
  python main.py
  python main.py --config configs/yolov3/darknet53_coco.yaml --gpu 0 training.batch_size=32
  python main.py --gpu 0,1 --name first_try model.encoder.weights=null
  python main.py --config configs/yolov3/darknet53_coco.yaml data.train.images=/coco/train2017
  python main.py --resume logs/first_try
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that explains bad usage in one sentence and exits with 2."""

    def __init__(self, description: str, epilog: str | None = None) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.takes_settings = False  # of the config, as `key=value`
        self._user_of_one_device = ""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses options and positional arguments in any order; exits with 2 on bad usage."""
        print_any_text()
        argv = sys.argv[1:] if argv is None else argv
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            self.error(f"unknown option {unknown[0]!r}{self._meant(unknown[0], argv)}")
        if self._user_of_one_device and len(arguments.gpu or ()) > 1:
            self.error(f"--gpu: {self._user_of_one_device} one device, name one")
        return arguments

    def _meant(self, unknown: str, argv: Sequence[str]) -> str:
        option, equals, value = unknown.partition("=")
        if not equals:
            behind = argv[argv.index(unknown) + 1 :][:1]
            value = behind[0] if behind and not behind[0].startswith("-") else "VALUE"
        options = [name for action in self._actions for name in action.option_strings]
        positions = [action.dest for action in self._actions if not action.option_strings]
        schema = schema_of(TASKS[DEFAULT_TASK]) if self.takes_settings else None
        return meant_option(option, value, options, positions, schema)

    def add_gpu_option(self, one_for: str = "") -> None:
        """Adds --gpu; with `one_for`, such as "prediction uses", several devices are refused."""
        self._user_of_one_device = one_for
        self.add_argument(
            "--gpu",
            type=parse_devices,
            help="an index (0), a list for several processes (0,1 or cpu,cpu), cpu, mps, or auto",
        )

    def add_config_options(self) -> None:
        default = DEFAULT_CONFIG.relative_to(REPOSITORY_ROOT)
        self.add_argument(
            "--config", type=Path, default=DEFAULT_CONFIG, metavar="YAML", help=f"({default})"
        )
        self.add_overrides("set a value of the config")

    def add_overrides(self, help: str) -> None:
        self.takes_settings = True
        self.add_argument("overrides", nargs="*", metavar="key=value", help=help)

    def add_logs_option(self) -> None:
        """Adds --logs, for a command that takes the newest run."""
        default = REPOSITORY_ROOT / "logs"
        self.add_argument("--logs", type=Path, default=default, help="where the runs lie (logs)")

    def add_picture_option(self, name: str, what: str = "") -> None:
        """Adds -o/--output, the picture to write: by default predictions/``name``."""
        self.add_argument(
            "-o",
            "--output",
            type=picture_file,
            default=REPOSITORY_ROOT / "predictions" / name,
            metavar="PICTURE",
            help=f"{what}a .png or .jpg file (predictions/{name})",
        )

    def take_checkpoint(self, arguments: argparse.Namespace, name: str) -> None:
        """Moves a checkpoint from among the positional arguments ``name`` to ``checkpoint``."""
        given = getattr(arguments, name)
        found = [path for path in map(Path, given) if _is_checkpoint(path)]
        setattr(arguments, name, [one for one in given if Path(one) not in found])
        found += [arguments.checkpoint] if arguments.checkpoint is not None else []
        if len(found) > 1:
            self.error(f"{found[0]} and {found[1]}: name one checkpoint")
        arguments.checkpoint = found[0] if found else None

    def check_file(self, path: Path | None, option: str = "") -> None:
        """Refuses a file to write that is a folder, or whose folder does not exist."""
        if path is not None and not is_folder(path.absolute().parent):
            self.error(f"{option}{path}: there is no folder {path.parent}; make it first")
        if path is not None and is_folder(path):
            self.error(f"{option}{path}: must be a file, but is a folder")

    def check_folder(self, path: Path | None) -> None:
        """Refuses a folder to write to that is a file, or below one."""
        above = [] if path is None else [path, *path.absolute().parents]
        there = next((place for place in above if exists(place)), None)
        if there is not None and not is_folder(there):
            self.error(f"{there}: must be a folder, but is a file")


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The command line of a command that trains."""

    config: Path  # with `resume` the one that the run saved
    devices: Devices
    resume: Path | None  # the run's folder to go on with
    name: str | None  # of the run's folder under logs/; None for date, time and config name
    overrides: tuple[str, ...]  # `key=value` each, unchecked
    accept_changed_data: bool = False  # with `resume`, go on with other data

    def going_on_with(self, run: Path | None) -> TrainArguments:
        """The same for a run that began with them and has a checkpoint; else they themselves."""
        if run is None or not (run / "last.pt").is_file():
            return self
        return replace(self, config=run / "config.yaml", resume=run, name=None, overrides=())


def parse_train_arguments(
    argv: Sequence[str] | None = None,
    *,
    default_config: Path = DEFAULT_CONFIG,
    description: str = "Train a detector from one YAML file.",
    examples: str = EXAMPLES,
) -> TrainArguments:
    """Parses the command line of main.py, or of another command that trains."""
    parser = Parser(description, examples)
    add = parser.add_argument
    default = default_config.relative_to(REPOSITORY_ROOT)
    add("--config", type=Path, metavar="YAML", help=f"what to train ({default})")
    parser.add_gpu_option()
    add("--resume", type=Path, metavar="RUN", help="go on with a run: logs/<name> or its last.pt")
    add("--accept-changed-data", action="store_true", help="resume though the data sets changed")
    add("--name", type=_run_name, help="name of the run's folder (date, time and config name)")
    parser.add_overrides("set a value of the config, such as training.batch_size=16")
    given = parser.parse(argv)
    for option, value in (("--config", given.config), ("--name", given.name)):
        if given.resume is not None and value is not None:
            parser.error(f"--resume goes on with a run's own folder and config: drop {option}")
    if given.accept_changed_data and given.resume is None:
        parser.error("--accept-changed-data is for --resume: name the run to go on with")
    resume = given.resume
    if resume is not None:
        resume = resume.parent if resume.suffix == ".pt" or is_file(resume) else resume
        if not is_file(resume / "config.yaml"):
            parser.error(f"--resume {resume}: not the folder of a run: it has no config.yaml")
    return TrainArguments(
        config=given.config or (resume / "config.yaml" if resume else default_config),
        devices=given.gpu,
        resume=resume,
        name=given.name,
        overrides=tuple(given.overrides),
        accept_changed_data=given.accept_changed_data,
    )


def load_config_or_exit(
    path: Path, overrides: Sequence[str] = (), *, task: str | None = None, advice: str = ""
) -> Resolved:
    """Reads the config of a command; exits with 2 after printing every problem.

    With ``task`` it must be of that one; ``advice`` follows "must be 'detect'" where it is not.
    """
    try:
        resolved = load_config(path, overrides)
        found = resolved.config.task
        if found != (task or found):
            raise ConfigError([f"{path}: task: {found!r}: must be {task!r}{advice}"])
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    return resolved


def load_detector_config(path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """`load_config_or_exit` of a command that works only on detectors."""
    advice = " for this command; name a detector's config"
    return load_config_or_exit(path, overrides, task="detect", advice=advice)


def device_name(devices: Devices) -> str:
    """The one device of --gpu, or "auto"."""
    return "auto" if devices is None else devices[0]


def parse_devices(text: str) -> Devices:
    """Reads the value of --gpu: "0,1" -> ["cuda:0", "cuda:1"], "cpu,cpu" -> ["cpu", "cpu"]."""
    if text == "auto":
        return None
    names = [name.strip() for name in text.split(",")]
    if all(name == "cpu" for name in names) or names == ["mps"]:
        return names
    if not all(name.isascii() and name.isdigit() for name in names):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be an index such as 0, a list such as 0,1 or cpu,cpu, cpu, mps (a "
            "Mac's GPU), or auto"
        )
    devices = [f"cuda:{int(name)}" for name in names]
    if len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"{text!r} must not name a GPU twice")
    return devices


def _run_name(text: str) -> str:
    """The value of --name: one folder's name, everywhere."""
    if not text.strip() or text in (".", "..") or any(c in "/\\" for c in text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a folder's name without a path")
    if not text.isprintable() or len(text.encode()) > LONGEST_NAME_BYTES:
        raise argparse.ArgumentTypeError(
            f"{reprlib.repr(text)} must be printable, and at most {LONGEST_NAME_BYTES} bytes long"
        )
    return text


def fraction(text: str) -> float:
    """An option's value: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return value


def image_size(text: str) -> int:
    """An option's value: a side of the network's input."""
    if not text.isdecimal() or int(text) % 32 or not 32 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} must be a multiple of 32 from 32 to 2048")
    return int(text)


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint or an exported one by its name, or a folder a run's."""
    is_run = all(is_file(path / name) for name in ("config.yaml", "last.pt"))
    return is_run or path.suffix.lower() in CHECKPOINT_SUFFIXES


def pictures_folder(given: Path | None, prefix: str = "") -> Path:
    """The folder of --output, or predictions/``prefix``<date>-<time> where there is none."""
    return given or REPOSITORY_ROOT / "predictions" / time.strftime(f"{prefix}%Y%m%d-%H%M%S")


def picture_file(text: str) -> Path:
    """An option's value: the name of a picture to write."""
    path = Path(text)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png or .jpg")
    return path


def is_picture(path: Path) -> bool:
    """Whether the path of --curves names a picture, not a folder."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not is_folder(path)
