import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from tests.data.batches import Noise, take, training
from yolo.data import loader
from yolo.data.workers import lost_worker, prepare_worker, shortage
from yolo.errors import UserError

NO_SPACE = "unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)"
NO_FILES = "unable to open shared memory object </torch_7> in read-write mode: Too many open files"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError(NO_SPACE), errno.ENOSPC),
        (RuntimeError(NO_FILES), errno.EMFILE),
        (RuntimeError("received 0 items of ancdata"), errno.EMFILE),
        (RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"), errno.ENOMEM),
        (OSError(errno.ENFILE, "", "a.jpg"), errno.ENFILE),
        (BlockingIOError(errno.EAGAIN, ""), errno.EAGAIN),  # of a fork
        (MemoryError(), errno.ENOMEM),
        (BrokenPipeError(errno.EPIPE, ""), None),
        (RuntimeError("CUDA error"), None),
    ],
)
def test_what_ran_out_is_known_by_number_or_by_text(error: Exception, number: int | None) -> None:
    assert shortage(error) == number


def _cannot_send(error: Exception) -> Callable[[], None]:
    def dumps(*_: Any) -> None:
        raise error

    return lambda: setattr(ForkingPickler, "dumps", dumps)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_cannot_send(RuntimeError(NO_SPACE)), "shared memory in /dev/shm .* --shm-size"),
        (_cannot_send(OSError(errno.EMFILE, "")), "too many files .*ulimit -n"),
        (_cannot_send(TypeError("cannot pickle")), "most often the memory"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "shared memory in /dev/shm .* --shm-size"),
    ],
)
def test_a_worker_that_cannot_send_a_batch_is_one_sentence(monkeypatch, act, words: str) -> None:
    def prepare(worker: int) -> None:
        prepare_worker(worker)
        act()

    monkeypatch.setattr(loader, "prepare_worker", prepare)
    with pytest.raises(UserError, match=rf"process was lost .*{words}.*data.workers=0"):
        take(training(workers=1), steps=2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_one_file_too_many_is_not_a_bad_image(workers: int) -> None:
    class Full(Noise):
        def load(self, index: int) -> Any:
            raise OSError(errno.EMFILE, "Too many open files", "4.jpg")

    with pytest.raises(UserError, match=r"too many files were open.*ulimit -n"):
        take(training(Full(), workers=workers), steps=1)


def test_workers_start_where_signals_cannot_be_held_back(monkeypatch) -> None:
    """As on Windows."""
    handler = signal.getsignal(signal.SIGCHLD)
    monkeypatch.delattr(signal, "pthread_sigmask")
    try:
        assert len(take(training(workers=1), steps=1)) == 3
    finally:
        signal.signal(signal.SIGCHLD, handler)


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"a data loading process was lost .*fewer workers"):
        take(training(Noise(deadly=4), workers=1), steps=2)
    assert lost_worker(RuntimeError("CUDA error"), None) is None


def test_a_signal_ends_a_wait_that_it_does_not_wake() -> None:
    """Another thread takes it, as where it comes just before the wait."""

    class Stopped(BaseException):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stopped

    class Hanging(Noise):
        def load(self, index: int) -> Any:
            time.sleep(60)

    batches = training(Hanging(), workers=1)
    before = signal.signal(signal.SIGUSR1, stop)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # in this thread
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            next(batches.from_step(0))
        assert time.monotonic() - began < 4.5
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR1, before)
        batches.close()


@pytest.mark.parametrize("after_the_last_batch", [False, True])
def test_workers_that_hang_are_ended_by_force(after_the_last_batch: bool) -> None:
    batches = loader._batches(
        lambda key: Noise().load(key), [[0], [1]], workers=2, pin_memory=False
    )
    for _ in range(2 if after_the_last_batch else 1):
        next(batches)
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    if after_the_last_batch:
        assert next(batches, None) is None
    batches.close()
    assert time.monotonic() - began < 4 and not any(worker.is_alive() for worker in workers)
