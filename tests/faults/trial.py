"""One trial: a function run in a process of its own, forked from one that has imported everything.

Importing torch and torchvision costs seconds, a fork some hundredths. The forking process must not
have computed anything in parallel before, for OpenMP's threads do not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from pathlib import Path

import torch

Trial = Callable[[int, Path], object]
"""``trial(seed, folder)``: raises AssertionError, or SkipTest with the reason."""

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x20000
_LISTENING = "0A"  # in /proc/net/tcp


@dataclass(frozen=True, kw_only=True)
class Property:
    """A kind of trial: one line of the table. `all_properties` fills in what a module leaves out.

    Attributes:
        trial: the function.
        full, quick: trials of the full run, and of every run of the test suite.
        limit_s: how long one may take.
        name: of the trial, the function's own if left out.
        checked: what it checks, in a line; the beginning of the function's docstring if left out.
        group, file: number and name of the property, and its module.
    """

    trial: Trial = field(kw_only=False)
    full: int
    quick: int
    limit_s: float = 60.0
    name: str = ""
    checked: str = ""
    group: str = ""
    file: Path = Path()


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
        name, seed: which trial.
        seconds: how long it took.
        outcome: ``passed``, ``failed`` or ``skipped``.
        message: the last line of the traceback, or the reason.
    """

    name: str
    seed: int
    seconds: float
    outcome: str
    message: str = ""


def run_trial(property_: Property, seed: int, folder: Path) -> Result:
    """Fork, run, wait; a trial that hangs is ended, with all that it started, and has failed.

    Args:
        property_, seed: what to run.
        folder: made for the trial, and removed unless it failed. ``output.txt`` in it is what the
            trial wrote on the terminal.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    adopt_orphans()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_in_child(property_.trial, seed, folder)
    code = wait_for(child, property_.limit_s)
    if code is None:
        end_all([child, *descendants(child)])
    end_all(descendants(os.getpid()))  # what a trial left behind is no concern of the next one
    outcome, message = _read_outcome(folder, code, property_.limit_s)
    seconds = time.monotonic() - start
    if outcome != "failed":
        shutil.rmtree(folder, ignore_errors=True)
    return Result(property_.name, seed, seconds, outcome, message)


def _run_in_child(trial: Trial, seed: int, folder: Path) -> None:
    """Never returns."""
    outcome = "failed: it ended its process"
    try:
        os.setsid()
        write_output_to(folder / "output.txt")
        adopt_orphans()
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        trial(seed, folder)
        outcome = "passed"
    except unittest.SkipTest as reason:
        outcome = f"skipped: {reason}"
    except BaseException as error:
        traceback.print_exc()
        last = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        first = next(iter(str(error).splitlines()), "")
        told = first if first == last else f"{first} ... {last}"
        outcome = f"failed: {type(error).__name__}: {told}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (folder / "outcome.txt").write_text(outcome)
        os._exit(0)


def _read_outcome(folder: Path, code: int | None, limit_s: float) -> tuple[str, str]:
    if code is None:
        return "failed", f"not done after {limit_s:.0f} s"
    try:
        outcome, _, message = (folder / "outcome.txt").read_text().partition(": ")
    except OSError:
        return "failed", f"its process ended with code {code}"
    return outcome, message


def write_output_to(path: Path) -> None:
    """Standard output and error of this process, and of those that it starts, go to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def wait_for(process: int, limit_s: float) -> int | None:
    """A child's exit code, negative for a signal; None if it still runs after so long."""
    end = time.monotonic() + limit_s
    pause = 0.002
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def mount_small(folder: Path, kibibytes: int) -> None:
    """A small file system, seen by this process and its children only, and gone with them."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        raise unittest.SkipTest("mounting a small file system needs root")
    tmpfs = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "faults", str(folder)]
    for command in (["mount", "--make-rprivate", "/"], tmpfs):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise unittest.SkipTest(f"{command[0]}: {done.stderr.strip()}")


def adopt_orphans() -> None:
    """Make this process the parent of all below it whose own parent ends, instead of init."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise unittest.SkipTest("prctl is not there: these trials need Linux")


def descendants(process: int) -> list[int]:
    """The living processes below one, from /proc; zombies are dead."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found, queue = [], [process]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def listening(processes: Iterable[int]) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """Address and port of every TCP socket on which processes accept connections, from /proc."""
    sockets = set()
    for path in chain.from_iterable(Path(f"/proc/{p}/fd").iterdir() for p in processes):
        with suppress(OSError):  # closed meanwhile
            sockets.add(str(path.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENING and f"socket:[{inode}]" in sockets:
                words, _, port = local.partition(":")
                parts = [bytes.fromhex(words[n : n + 8])[::-1] for n in range(0, len(words), 8)]
                found.append((ip_address(b"".join(parts)), int(port, 16)))
    return found


def end_all(processes: list[int]) -> None:
    """Kill and, where they are ours, bury."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    for process in processes:
        with suppress(ChildProcessError):
            os.waitpid(process, 0)
