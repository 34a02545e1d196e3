import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

from yolo.errors import STOP_SIGNALS
from yolo.train.interruption import Interrupted, Interruption, WaitEnded

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of another process."""
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_the_handlers_come_back(number) -> None:
    seen = []
    before = {n: signal.signal(n, lambda n, frame: seen.append(n)) for n in (2, 15)}
    try:
        with Interruption() as interruption:
            assert not interruption()
            signal.raise_signal(number)  # neither ends the process nor raises
            assert interruption() and interruption.signal_number == number
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert interruption.signal_number == number
        assert seen == []
        signal.raise_signal(number)
        assert seen == [number]
        with pytest.raises(KeyError), Interruption():
            raise KeyError
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_a_wait_and_nothing_else(number: int) -> None:
    def stalled() -> Iterator[int]:
        yield 1
        signal.raise_signal(number)
        yield 2

    with Interruption() as interruption:
        batches = interruption.heed(stalled())
        assert next(batches) == 1
        with pytest.raises(WaitEnded):
            next(batches)
        signal.raise_signal(number)
        assert interruption.signal_number == number
        with pytest.raises(WaitEnded):  # also one that begins later
            next(interruption.heed([3]))
    assert list(Interruption().heed([1, 2])) == [1, 2]


class Finalized:
    """Gets a signal while it is cleared away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


class Watched:
    """The same by a callback of its own, as the workers' end has one."""

    def __init__(self) -> None:
        Finalize(self, signal.raise_signal, [signal.SIGTERM])


@pytest.mark.parametrize("kind", [Finalized, Watched])
@pytest.mark.parametrize("patience_s", [0.0, 0.1])
def test_a_signal_in_a_finalizer_ends_the_wait_once_that_is_over(
    kind, patience_s, monkeypatch
) -> None:
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    def stalled() -> Iterator[int]:
        one = kind()
        del one
        time.sleep(5)
        yield 1

    start = time.monotonic()
    with Interruption() as interruption, pytest.raises(WaitEnded):
        next(interruption.heed(stalled(), patience_s=patience_s))
    assert time.monotonic() - start < 2 and lost == []


def test_the_patience_of_a_wait_begins_at_the_signal() -> None:
    def slow() -> Iterator[int]:
        signal.raise_signal(signal.SIGTERM)
        yield 1
        time.sleep(0.01)
        yield 2
        time.sleep(60)

    before = signal.getsignal(signal.SIGALRM)
    with Interruption() as interruption:
        batches = interruption.heed(slow(), patience_s=0.3)
        assert [next(batches), next(batches)] == [1, 2]
        time.sleep(0.5)  # an alarm that nobody waits for
        began = time.monotonic()
        with pytest.raises(WaitEnded):
            next(batches)
        assert 0.2 < time.monotonic() - began < 10
        interruption._hurry()
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("taken", [signal.SIG_IGN, lambda number, frame: None])
def test_what_nohup_ignores_or_a_host_uses_stays_so(taken) -> None:
    before = signal.signal(signal.SIGHUP, taken)
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGHUP) == taken
            assert signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, taken)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_exit_code_is_the_shells() -> None:
    assert Interrupted(signal.SIGTERM, 7, Path("run")).exit_code == 143
    stopped = Interrupted(signal.SIGINT, 7, Path("run"))
    assert stopped.exit_code == 130
    assert str(stopped) == "stopped by SIGINT at step 7" and stopped.folder == Path("run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_before_the_training_a_signal_ends_the_process_at_once(number) -> None:
    """In the middle of an import, without a traceback; after the work it changes nothing."""
    script = """
import os, signal, sys
from yolo.train.interruption import end_at_once_on_signals, ignore_signals
if sys.argv[2] == "during":
    end_at_once_on_signals()
else:
    ignore_signals()
assert "torch" not in sys.modules
os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(7)
"""
    printed = f"stopped by {signal.Signals(number).name}\n"
    assert run(script, str(int(number)), "during") == (128 + number, "", printed)
    assert run(script, str(int(number)), "after") == (7, "", "")


def test_the_end_of_a_process_loses_nothing_but_time() -> None:
    """What was printed and registered comes out, and no signal changes the exit code."""
    script = """
import atexit, os, signal, sys
from yolo.train.interruption import end_process
class Slow:
    def __del__(self):
        print("taken apart")
atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), print("registered")))
kept = Slow()
print("printed")
end_process(7)
"""
    assert run(script) == (7, "printed\nregistered\n", "")


HOSTS = {
    "runpy": "import runpy\nrunpy.run_path(sys.argv[1], run_name='__main__')",
    "a profiler": "import cProfile\ncProfile.run(open(sys.argv[1]).read())",
    "a notebook": "exec(compile(open(sys.argv[1]).read(), 'x', 'exec'), {'__name__': '__main__'})",
    "a thread": "import runpy, threading\n"
    "run = threading.Thread(target=runpy.run_path, args=(sys.argv[1],), "
    "kwargs={'run_name': '__main__'})\nrun.start(); run.join()",
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_runs_a_script_outlives_it(host: str, tmp_path: Path) -> None:
    """With its own handlers, and a normal end of the script, whose exit code it may look at."""
    script = tmp_path / "script.py"
    script.write_text(
        "from yolo.train.interruption import end_at_once_on_signals, end_process\n"
        "end_at_once_on_signals()\nend_process(7)\n"
    )
    around = (
        "import signal, sys\nbefore = signal.getsignal(signal.SIGINT)\ntry:\n    "
        + HOSTS[host].replace("\n", "\n    ")
        + "\nexcept SystemExit as end:\n    assert end.code == 7\n"
        "assert signal.getsignal(signal.SIGINT) is before\nprint('goes on')"
    )
    code, printed, errors = run(around, str(script))
    assert (code, errors) == (0, "") and printed.endswith("goes on\n")


def test_a_script_of_its_own_ends_at_once_unless_it_is_traced(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom yolo.train.interruption import end_process\n"
        "if len(sys.argv) > 1:\n    sys.setprofile(lambda *event: None)\n"
        "try:\n    end_process(7)\nexcept SystemExit:\n    print('as usual')\n    raise\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments, printed in (([], ""), (["profiled"], "as usual\n")):
        command = [sys.executable, str(script), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (ended.returncode, ended.stdout, ended.stderr) == (7, printed, "")


def test_a_thread_is_told_of_no_signal() -> None:
    handler, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interruption() as interruption:
            seen.append((signal.getsignal(signal.SIGINT) is handler, interruption()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
