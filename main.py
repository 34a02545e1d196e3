"""Train what a YAML file describes: ``python main.py --config configs/quickstart.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from yolo.config import ConfigError, Resolved, load_config
from yolo.config.command_line import TrainArguments, parse_train_arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load the config, build, train.

    Returns:
        0 done, 2 bad config (bad usage exits with it), 1 any other failure, 128 + signal when
        stopped.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_train_arguments(argv)
    try:
        resolved = load_config(arguments.config, arguments.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return train(arguments, resolved, argv)


def train(arguments: TrainArguments, resolved: Resolved, argv: Sequence[str]) -> int:
    """Train on one device, or start a process for each and wait for them."""
    # torch takes seconds to import: only now that the config has proved right
    from yolo.build.training import build_trainer, resume_trainer
    from yolo.engine.distributed import is_rank, join, launch
    from yolo.engine.interruption import Interrupted
    from yolo.errors import UserError

    devices = None if arguments.devices == "auto" else arguments.devices
    if devices is not None and len(devices) > 1 and not is_rank():
        return launch(Path(__file__).resolve(), argv, processes=len(devices))
    ranks = None
    try:
        ranks = join(devices)
        if arguments.resume is not None:
            trainer = resume_trainer(arguments.resume, resolved, ranks)
        else:
            trainer = build_trainer(resolved, ranks, name=arguments.name)
        trainer.fit()
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except (UserError, OSError) as error:  # a full disk or a lost permission is no bug either
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the training began to listen for signals
        return 130
    finally:
        if ranks is not None:
            ranks.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
