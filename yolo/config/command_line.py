"""The command line of main.py, and the pieces that the other commands share. Imports no torch."""

import argparse
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from yolo.config.describing import did_you_mean
from yolo.config.errors import ConfigError
from yolo.config.loading import REPOSITORY_ROOT, Resolved, load_config

DEFAULT_CONFIG = REPOSITORY_ROOT / "configs" / "quickstart.yaml"

LONGEST_NAME_BYTES = 200
"""Of a run's folder; file systems take 255."""

Devices = list[str] | Literal["auto"]

EXAMPLES = """examples:
  python main.py
  python main.py --config configs/yolov3/darknet53_coco.yaml --gpu 0 training.batch_size=32
  python main.py --gpu 0,1 --name first_try model.encoder.weights=null
  python main.py --config configs/yolov3/darknet53_coco.yaml data.train.images=/coco/train2017
  python main.py --resume logs/first_try
"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What main.py was asked for.

    Attributes:
        config: the YAML file; with `resume` the one that the run saved.
        devices: names for `torch.device`, one per process, or "auto".
        resume: the run's folder to go on with.
        name: the run's folder under logs/; None for date, time and config name.
        overrides: `key=value` each, unchecked.
    """

    config: Path
    devices: Devices
    resume: Path | None
    name: str | None
    overrides: tuple[str, ...]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that tells of bad usage in one sentence, and exits with 2."""

    def __init__(self, *, description: str, epilog: str | None = None) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses options and positional arguments in any order."""
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            near = did_you_mean(unknown[0].split("=")[0], known)
            self.error(f"unknown option {unknown[0]!r}{near}")
        return arguments


def parse_train_arguments(
    argv: Sequence[str] | None = None,
    *,
    default_config: Path = DEFAULT_CONFIG,
    description: str = "Train a detector from one YAML file.",
    examples: str = EXAMPLES,
) -> TrainArguments:
    """Parses the command line of main.py, or of another command that trains.

    Args:
        argv: the process' own unless given.
        default_config: what is trained where neither --config nor --resume is given.
        description, examples: for --help.

    Raises:
        SystemExit: 2 after one sentence on bad usage, 0 after --help.
    """
    parser = train_parser(default_config, description, examples)
    given = parser.parse(argv)
    for option, value in (("--config", given.config), ("--name", given.name)):
        if given.resume is not None and value is not None:
            parser.error(f"--resume goes on with a run's own folder and config: drop {option}")
    resume = given.resume
    if resume is not None:
        resume = resume.parent if resume.suffix == ".pt" else resume
        if not (resume / "config.yaml").is_file():
            parser.error(f"--resume {resume}: not the folder of a run: it has no config.yaml")
    return TrainArguments(
        config=given.config or (resume / "config.yaml" if resume else default_config),
        devices=given.gpu,
        resume=resume,
        name=given.name,
        overrides=tuple(given.overrides),
    )


def train_parser(default_config: Path, description: str, examples: str) -> Parser:
    """The options of a command that trains."""
    parser = Parser(description=description, epilog=examples)
    default = default_config.relative_to(REPOSITORY_ROOT)
    parser.add_argument("--config", type=Path, metavar="YAML", help=f"what to train ({default})")
    add_gpu_option(parser)
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with a run: logs/<name> or its last.pt"
    )
    parser.add_argument(
        "--name", type=run_name, help="name of the run's folder (date, time and config name)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="set a value of the config, such as training.batch_size=16",
    )
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds --config, the quickstart unless given, and `key=value` for `load_config`."""
    default = DEFAULT_CONFIG.relative_to(REPOSITORY_ROOT)
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="YAML", help=f"({default})"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="set a value of the config"
    )


def load_detector_config(path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Reads the config of a command that works on detectors alone.

    Args:
        path, overrides: as ``load_config`` takes them.

    Raises:
        SystemExit: 2, after each problem was told; that it is a classifier's is one.
    """
    try:
        resolved = load_config(path, overrides)
        if resolved.config.task != "detect":
            wrong = f"{path}: task: {resolved.config.task!r}: must be 'detect'"
            raise ConfigError([f"{wrong} for this command; name a detector's config"])
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    return resolved


def add_gpu_option(parser: argparse.ArgumentParser) -> None:
    """Adds --gpu, parsed to `Devices`."""
    parser.add_argument(
        "--gpu",
        type=parse_devices,
        default="auto",
        help="an index (0), a list for several processes (0,1 or cpu,cpu), cpu, or auto",
    )


def parse_devices(text: str) -> Devices:
    """Reads the value of --gpu.

    Returns:
        "auto", or names for `torch.device`: ["cuda:0", "cuda:1"], ["cpu"], ["cpu", "cpu"].

    Raises:
        argparse.ArgumentTypeError: anything else, in one sentence.
    """
    if text == "auto":
        return "auto"
    names = [name.strip() for name in text.split(",")]
    if all(name == "cpu" for name in names):
        return names
    if not all(name.isascii() and name.isdigit() for name in names):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be an index such as 0, a list such as 0,1 or cpu,cpu, cpu, or auto"
        )
    devices = [f"cuda:{int(name)}" for name in names]
    if len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"{text!r} must not name a GPU twice")
    return devices


def run_name(text: str) -> str:
    """Checks the value of --name: one folder's name.

    Raises:
        argparse.ArgumentTypeError: it would lead out of the folder of the runs, or cannot be the
            name of a folder everywhere.
    """
    if not text.strip() or text in (".", "..") or any(c in "/\\" for c in text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a folder's name without a path")
    if not text.isprintable() or len(text.encode()) > LONGEST_NAME_BYTES:
        raise argparse.ArgumentTypeError(
            f"{reprlib.repr(text)} must be printable, and at most {LONGEST_NAME_BYTES} bytes long"
        )
    return text


def fraction(text: str) -> float:
    """A number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return value


def image_size(text: str) -> int:
    """A side of the network's input: a multiple of 32.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if not text.isdecimal() or int(text) % 32 or not 32 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} must be a multiple of 32 from 32 to 2048")
    return int(text)


def picture_file(text: str) -> Path:
    """The name of a picture to write.

    Raises:
        argparse.ArgumentTypeError: the suffix is of no picture.
    """
    path = Path(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png or .jpg")
    return path
