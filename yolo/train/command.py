"""What a command that trains does once its command line and config are read."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from yolo.errors import UserError
from yolo.train.distributed import Ranks, check_devices, is_rank, join, lost_rank
from yolo.train.interruption import Interrupted, signals_to_heed
from yolo.train.trainer import Trainer

SECONDS_TO_STOP = {"cpu": 120, "cuda": 30}
"""How long the launcher lets ranks end their step and write a checkpoint before it kills them. On
a CPU a large batch takes more than torch's 30 s; on GPUs a rank may wait in NCCL for a lost one."""


def train(
    build: Callable[[Ranks], Trainer],
    *,
    devices: Sequence[str] | None,
    argv: Sequence[str],
    script: Path,
) -> int:
    """Train on one device, or start a process for each and wait for them.

    Args:
        devices: names for ``torch.device``, one for each process; None for the best there is.
        argv, script: the command line as it was given, for other processes, and what they run.

    Returns:
        The exit code: 1 for a failure that one sentence explains, 128 + signal when stopped.
    """
    ranks = None
    try:
        if devices is not None and len(devices) > 1 and not is_rank():
            check_devices(devices)
            return launch(script, argv, devices)
        ranks = join(devices)
        build(ranks).fit()
        ranks.leave()
        return 0
    except Interrupted as stopped:
        if ranks is not None:
            if not stopped.alone:
                ranks.leave()
            if ranks.is_main:
                again = _resume_line(script, stopped.folder, devices)
                with suppress(OSError):  # the terminal may be gone
                    print(f"{stopped}; go on with: {again}", file=sys.stderr)
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


def _resume_line(script: Path, folder: Path, devices: Sequence[str] | None) -> str:
    """The command that goes on with a run, on the same devices."""
    here = Path.cwd()
    short = [str(p.relative_to(here) if p.is_relative_to(here) else p) for p in (script, folder)]
    gpus = ",".join(name.removeprefix("cuda:") for name in devices or ())
    return shlex.join(
        ["python", short[0], "--resume", short[1], *(["--gpu", gpus] if gpus else [])]
    )


def launch(script: Path, arguments: Sequence[str], devices: Sequence[str]) -> int:
    """Run a script once for each device through torch's own launcher; returns its exit code."""
    for name in ("agent.server.api", "multiprocessing.api"):  # replaced by a sentence below
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    cores = len(os.sched_getaffinity(0))
    seconds = SECONDS_TO_STOP["cpu" if "cpu" in devices else "cuda"]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // len(devices))))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(seconds))
    heeded = [n.name for n in signals_to_heed()]
    command = [
        "--standalone",
        f"--nproc-per-node={len(devices)}",
        f"--signals-to-handle={','.join(heeded)},SIGQUIT",  # and passed on to the ranks
        str(script),
        *arguments,
    ]
    try:
        run(get_args_parser().parse_args(command))
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        code = failure.exitcode
        ending = f"exit code {code}" if code >= 0 else f"signal {-code}"
        print(f"error: rank {rank} ended with {ending}", file=sys.stderr)
        return code if code > 0 else 128 - code
    return 0
