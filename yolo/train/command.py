"""What a command that trains does once its command line and config are read."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from yolo.errors import UserError
from yolo.train.distributed import Ranks, check_devices, join, lost_rank
from yolo.train.interruption import Interrupted, Interruption
from yolo.train.launched import LAUNCHER, RENDEZVOUS_FILE, SECONDS_TO_STOP, is_rank
from yolo.train.trainer import Trainer


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
    """Run a script once for each device; returns the exit code.

    torchrun's agent listens on all interfaces and unpickles what it is sent. These ranks meet in a
    file that only their user can open.
    """
    count, kind = len(devices), devices[0].partition(":")[0]
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    ranks: list[subprocess.Popen[bytes]] = []
    with Interruption() as interruption:
        descriptor, meeting = tempfile.mkstemp(prefix="yolo_")
        os.close(descriptor)
        environment = {
            "OMP_NUM_THREADS": str(max(1, cores // count)),
            **os.environ,
            **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count)),
            LAUNCHER: str(os.getpid()),
            RENDEZVOUS_FILE: meeting,
        }
        try:
            for rank in map(str, range(count)):
                own = {**environment, "RANK": rank, "LOCAL_RANK": rank}
                command = [sys.executable, "-u", str(script), *arguments]
                ranks.append(subprocess.Popen(command, env=own, start_new_session=True))
            return _wait(ranks, interruption, SECONDS_TO_STOP[kind])
        finally:
            for process in ranks:
                process.kill()
            Path(meeting).unlink(missing_ok=True)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], stop: Interruption, seconds: int) -> int:
    """Until all ranks have ended, or one has failed or a signal came, which ends the others too."""
    codes: list[int | None] = [None]
    while None in codes and not any(codes) and not stop():
        time.sleep(0.05)
        codes = [rank.poll() for rank in ranks]
    if not stop():
        seconds = min(seconds, 30)  # they have lost one of them
    end = time.monotonic() + seconds
    for rank in ranks:
        rank.send_signal(stop.signal_number or signal.SIGTERM)  # nothing where it has ended
    for rank in ranks:
        with suppress(subprocess.TimeoutExpired):
            rank.wait(max(0.0, end - time.monotonic()))
        rank.kill()
        rank.wait()
    # of ranks that were told to stop, the one that writes the checkpoint tells how it went
    number = next((n for n, code in enumerate(codes) if code), 0)
    code = ranks[number].returncode
    exit_code = code if code >= 0 else 128 - code
    if exit_code and (stop.signal_number is None or exit_code != 128 + stop.signal_number):
        ending = f"exit code {code}" if code >= 0 else f"signal {-code}"
        print(f"error: rank {number} ended with {ending}", file=sys.stderr)
    return exit_code
