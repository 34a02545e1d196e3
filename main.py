"""Train what a YAML file describes: ``python main.py --config configs/quickstart.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from yolo.train.interruption import end_at_once_on_signals, end_process

if __name__ == "__main__":
    end_at_once_on_signals()  # even the imports below take a moment

from yolo.config.command_line import load_config_or_exit, parse_train_arguments
from yolo.train.launched import noted_run


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load the config, build, train.

    Returns:
        0 done, 1 a failure, 128 + signal when stopped; bad usage or a bad config exits with 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_train_arguments(argv).going_on_with(noted_run())
    resolved = load_config_or_exit(arguments.config, arguments.overrides)
    # torch takes seconds to import: only now that the config has proved right
    from yolo.apps.report.drawing import EvaluationPictures
    from yolo.factory.training import build_trainer
    from yolo.train.command import train

    build = partial(
        build_trainer,
        resolved,
        name=arguments.name,
        resume=arguments.resume,
        pictures=EvaluationPictures(),
        accept_changed_data=arguments.accept_changed_data,
    )
    script = Path(__file__).resolve()
    return train(build, devices=arguments.devices, argv=argv, script=script)


if __name__ == "__main__":
    end_process(main())
