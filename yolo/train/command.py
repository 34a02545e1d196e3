"""What main.py and scripts/pretrain_encoder.py do once their command line and config are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from yolo.config import Resolved
from yolo.config.command_line import TrainArguments
from yolo.errors import UserError
from yolo.factory.training import build_trainer, resume_trainer
from yolo.train.distributed import (
    SECONDS_TO_STOP,
    check_devices,
    is_rank,
    join,
    launch,
    lost_rank,
)
from yolo.train.evaluation import Pictures
from yolo.train.interruption import Interrupted


def train(
    arguments: TrainArguments,
    resolved: Resolved,
    argv: Sequence[str],
    *,
    script: Path,
    pictures: Pictures | None = None,
) -> int:
    """Train on one device, or start a process for each and wait for them.

    Args:
        arguments, resolved: the command line and the config.
        argv: the command line as it was given, for the other processes.
        script: the file that they run.
        pictures: draws what an evaluation shows; None draws nothing.

    Returns:
        0 done, 1 a failure that one sentence explains, 128 + signal when stopped.
    """
    devices = arguments.devices
    ranks = None
    try:
        if devices is not None and len(devices) > 1 and not is_rank():
            check_devices(devices)
            patience = SECONDS_TO_STOP["cpu" if "cpu" in devices else "cuda"]
            return launch(script, argv, processes=len(devices), seconds_to_stop=patience)
        ranks = join(devices)
        if arguments.resume is not None:
            trainer = resume_trainer(arguments.resume, resolved, ranks, pictures=pictures)
        else:
            trainer = build_trainer(resolved, ranks, name=arguments.name, pictures=pictures)
        trainer.fit()
        ranks.leave()
    except Interrupted as stopped:
        if ranks is not None:
            ranks.leave()
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except (UserError, OSError) as error:  # a full disk or a lost permission is no bug either
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        lost = None if ranks is None else lost_rank(error, ranks)
        if lost is None:
            raise
        print(f"error: {lost}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the training began to listen for signals
        return 130
    finally:
        if ranks is not None:
            ranks.break_off()  # where it did not leave with the others
    return 0
