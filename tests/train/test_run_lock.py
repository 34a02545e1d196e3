import os
import signal
from pathlib import Path

import pytest

from yolo.errors import UserError
from yolo.train.run_lock import NAME, RunLock


def test_one_run_in_a_folder(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(UserError) as error:
        RunLock(tmp_path)
    host = os.uname().nodename
    assert str(error.value) == (
        f"{tmp_path}: another run is at work here (process {os.getpid()} on {host}); wait for its "
        "end, or stop it"
    )
    lock.release()
    lock.release()
    RunLock(tmp_path).release()
    (tmp_path / NAME).write_text("process 1 on " + "a" * 300)  # a longer name from before
    RunLock(tmp_path).release()
    assert (tmp_path / NAME).read_text() == f"process {os.getpid()} on {host}\n"


def test_a_killed_run_leaves_the_folder_free_though_its_worker_lives_on(tmp_path: Path) -> None:
    told, tell = os.pipe()
    run = os.fork()
    if run == 0:
        RunLock(tmp_path)
        worker = os.fork()
        if worker == 0:
            signal.pause()
        os.write(tell, str(worker).encode())
        signal.pause()
    worker = int(os.read(told, 20))
    try:
        with pytest.raises(UserError, match=f"process {run} on"):
            RunLock(tmp_path)
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        os.kill(worker, 0)  # it lives
        RunLock(tmp_path).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_folder_without_room_for_a_lock(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(UserError, match=r"run\.lock: cannot be written"):
        RunLock(tmp_path)
