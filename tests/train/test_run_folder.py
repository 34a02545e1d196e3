import errno
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import main as training
from tests.train.toys import differences, quickstart
from yolo.errors import UserError
from yolo.train import checkpoint, run_folder
from yolo.train.checkpoint import load_checkpoint, save_checkpoint
from yolo.train.run_folder import (
    LOCK_NAME,
    RunLock,
    checkpoint_file,
    create_run_folder,
    find_checkpoint,
    newest_whole_checkpoint,
)
from yolo.train.trainer import Trainer


def test_a_run_is_called_after_the_time_and_its_config(tmp_path: Path) -> None:
    logs = tmp_path / "a" / "logs"
    folders = [create_run_folder(logs, name=None, config_name="quick") for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)
    for folder in folders:  # even those that began within one second
        assert folder.parent == logs
        assert re.fullmatch(r"\d{8}-\d{6}_quick(_\d)?", folder.name)


def test_a_name_is_taken_once(tmp_path: Path, capsys) -> None:
    folder = create_run_folder(tmp_path, name="mine", config_name="quick")
    assert folder == tmp_path / "mine" and folder.is_dir()
    with pytest.raises(UserError) as error:
        create_run_folder(tmp_path, name="mine", config_name="quick")
    assert str(error.value) == (
        f"{folder}: exists already; choose another --name, or go on with --resume {folder}"
    )
    argv = [*quickstart(tmp_path), "--name", "mine", f"logging.directory={tmp_path}"]
    assert training.main(argv) == 1
    assert str(error.value) in capsys.readouterr().err
    assert not (tmp_path / "shapes").exists()  # at once, before the data are read


@pytest.mark.parametrize("name", [[], ["--name", "mine"]])
def test_where_no_folder_can_be_made(tmp_path: Path, name, capsys) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "logs"):
        place = f"logging.directory={directory}"
        assert training.main([*quickstart(tmp_path), *name, "training.steps=1", place]) == 1
        error = capsys.readouterr().err
        assert error.startswith(
            f"error: logging.directory: {directory}: no run can be written here"
        )
        assert len(error.splitlines()) == 1 and "--name" not in error
        assert not (tmp_path / "shapes").exists()  # at once, before the data are read


def test_the_newest_best_checkpoint(tmp_path: Path) -> None:
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=re.escape(f"{nothing}: no run has a best.pt yet")):
            find_checkpoint(None, nothing)
    for name, seconds in (("z", 100), ("m", 300), ("a", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").write_text(name)
        os.utime(tmp_path / name / "best.pt", (seconds, seconds))
    (tmp_path / "without").mkdir()
    assert find_checkpoint(None, tmp_path) == tmp_path / "m" / "best.pt"


def test_a_runs_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    run, logs = tmp_path / "logs" / "run", tmp_path / "logs"
    run.mkdir(parents=True)
    with pytest.raises(UserError, match=r"this folder has no best\.pt, nor do the folders in it"):
        checkpoint_file(logs)
    (run / "last.pt").touch()
    with pytest.raises(
        UserError, match=re.escape(f"{run}: this folder has no best.pt; name {run}/l")
    ):
        checkpoint_file(run)
    (run / "best.pt").touch()
    with pytest.raises(UserError, match=re.escape(f"no best.pt; name {run}/best.pt")):
        checkpoint_file(logs)
    for named in (run, run / "best.pt"):
        assert checkpoint_file(named) == find_checkpoint(named, logs) == run / "best.pt"
    assert checkpoint_file(tmp_path / "nowhere.pt") == tmp_path / "nowhere.pt"


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
    (tmp_path / LOCK_NAME).write_text("process 1 on " + "a" * 300)  # a longer name from before
    RunLock(tmp_path).release()
    assert (tmp_path / LOCK_NAME).read_text() == f"process {os.getpid()} on {host}\n"


def test_the_lock_of_windows(tmp_path: Path, monkeypatch) -> None:
    """One byte behind the owner's name, which the other run has to read."""
    held = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count, os.lseek(descriptor, 0, os.SEEK_CUR)) == (3, 1, 1 << 20)
        if held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.append(descriptor)

    windows = SimpleNamespace(LK_NBLCK=3, locking=locking)
    monkeypatch.setattr(run_folder, "msvcrt", windows, raising=False)
    with monkeypatch.context() as system:
        system.setattr(sys, "platform", "win32")
        lock = RunLock(tmp_path)
        with pytest.raises(UserError, match=rf"another run .*process {os.getpid()} on"):
            RunLock(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on")
    lock.release()


def test_a_killed_run_leaves_the_folder_free_though_its_worker_lives_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    run = os.fork()
    if run == 0:
        RunLock(tmp_path)
        worker = os.fork()
        if worker == 0:
            signal.pause()
        os.write(writer, str(worker).encode())
        signal.pause()
    worker = int(os.read(reader, 20))
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
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(UserError, match=r"run\.lock: cannot be written"):
        RunLock(tmp_path)


@pytest.mark.parametrize("lead", [lambda path: path.symlink_to("others"), os.mkfifo])
def test_a_lock_that_leads_elsewhere_is_refused(tmp_path: Path, lead) -> None:
    (tmp_path / "others").write_text("others")
    lead(tmp_path / LOCK_NAME)
    with pytest.raises(UserError, match=r"run\.lock: cannot be written .it is a link, a pipe"):
        RunLock(tmp_path)
    assert (tmp_path / "others").read_text() == "others"


def move(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def replace(run: Path) -> None:
    move(run)
    run.mkdir()


def replace_by_another_run(run: Path) -> None:
    replace(run)
    (run / LOCK_NAME).touch()


def replace_by_a_file(run: Path) -> None:
    move(run)
    run.touch()


def replace_by_a_link(run: Path) -> None:
    replace_by_another_run(run)
    run.rename(run.with_name("other"))
    run.symlink_to("other")


@pytest.mark.parametrize(
    "spoil",
    [
        *(move, replace, replace_by_another_run, replace_by_a_file, replace_by_a_link),
        lambda run: (run / LOCK_NAME).unlink(),
        lambda run: (run / LOCK_NAME).rename(run / "old") and (run / LOCK_NAME).touch(),
    ],
)
def test_a_folder_that_is_no_longer_the_one_that_was_locked(tmp_path: Path, spoil) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lock = RunLock(run)
    (run / "more").touch()
    lock.check_place()
    spoil(run)
    with pytest.raises(UserError, match="run: is no longer the folder of this run"):
        lock.check_place()
    lock.release()


def test_a_training_whose_folder_is_replaced_ends(tmp_path: Path, capsys, monkeypatch) -> None:
    def write(self, state):
        replace(self.folder)
        original(self, state)

    original = Trainer._write
    monkeypatch.setattr(Trainer, "_write", write)
    assert training.main([*quickstart(tmp_path), "--name", "run", "training.steps=2"]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: is no longer the folder of this run" in error
    assert "Traceback" not in error and list((tmp_path / "run").iterdir()) == []


def flip_a_bit(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.unlink()  # the best one may be a second name of the same file
    path.write_bytes(damaged)


def test_the_newest_whole_checkpoint(tmp_path):
    for name, step in (("best.pt", 3), ("last.pt", 5)):
        save_checkpoint(tmp_path / name, {"progress": {"step": step}})
    origin = newest_whole_checkpoint(tmp_path)
    assert (origin.path.name, origin.complaint) == ("last.pt", None)
    flip_a_bit(tmp_path / "last.pt")
    origin = newest_whole_checkpoint(tmp_path)
    assert (origin.path.name, origin.content["progress"]["step"]) == ("best.pt", 3)
    assert origin.complaint == (
        f"{tmp_path / 'last.pt'}: the checkpoint is damaged: its checksum does not match; going "
        f"on from {tmp_path / 'best.pt'}, which is of step 3"
    )
    flip_a_bit(tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"last\.pt: .*best\.pt: .*nothing is left to go on from"):
        newest_whole_checkpoint(tmp_path)


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    """The best one would replace it, though all that lacks is a permission."""
    for name, step in (("best.pt", 3), ("last.pt", 5)):
        save_checkpoint(tmp_path / name, {"progress": {"step": step}})

    def refused(path):
        if path.name == "last.pt":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "_check", refused)
    with pytest.raises(UserError, match=r"last\.pt: the checkpoint cannot be read .*denied"):
        newest_whole_checkpoint(tmp_path)


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_its_best(tmp_path, capsys):
    """To the very bits of the run that was never stopped, and with one report of each step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    argv = quickstart(tmp_path)
    assert training.main([*argv, "--name", "whole", "training.steps=6"]) == 0
    assert training.main([*argv, "--name", "cut", "training.steps=2"]) == 0
    cut = tmp_path / "cut"
    best = (cut / "best.pt").read_bytes()
    assert training.main(["--resume", str(cut), "--gpu", "cpu", "training.steps=4"]) == 0
    (cut / "best.pt").unlink()
    (cut / "best.pt").write_bytes(best)  # as if step 4 had been worse, whatever it was
    flip_a_bit(cut / "last.pt")
    capsys.readouterr()
    assert training.main(["--resume", str(cut), "--gpu", "cpu", "training.steps=6"]) == 0
    message = capsys.readouterr().out
    assert f"going on from {cut / 'best.pt'}, which is of step 2" in message
    assert "training.steps: 2 -> 6\n" in message
    ours, whole = load_checkpoint(cut / "last.pt"), load_checkpoint(tmp_path / "whole" / "last.pt")
    assert differences(ours["model"], whole["model"]) == []
    records = map(json.loads, (cut / "metrics.jsonl").read_text().splitlines())
    steps = [("training", step) for step in range(1, 7)]
    steps += [("validation", step) for step in (2, 4, 6)]
    assert sorted((record["phase"], record["step"]) for record in records) == steps
    assert training.main(["--resume", str(cut), "--gpu", "cpu"]) == 0
    assert "finished already, at step 6" in capsys.readouterr().out
    torch.set_num_threads(threads)
