import signal
import subprocess
import sys
from pathlib import Path

import pytest

from yolo.train.interruption import Interrupted, Interruption

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


def test_the_exit_code_is_the_shells() -> None:
    assert Interrupted(signal.SIGTERM).exit_code == 143
    assert Interrupted(signal.SIGINT).exit_code == 130
    assert str(Interrupted(signal.SIGINT)) == "stopped by SIGINT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
