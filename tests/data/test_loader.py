from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tests.data.batches import Noise, digest, take, training
from yolo.data import loader
from yolo.data.loader import DecodedPool, EvaluationBatches
from yolo.data.sampling import RandomSizes, SampleOrder
from yolo.data.transforms.augment import MixUp, Mosaic
from yolo.data.workers import WorkerBatches, prepare_worker, start_workers
from yolo.errors import STOP_SIGNALS, UserError
from yolo.records import Sample


def evaluation(dataset: Noise | None = None, **settings: int) -> EvaluationBatches:
    return EvaluationBatches(dataset=dataset or Noise(), image_size_px=64, **settings)


def test_training_is_the_same_for_any_number_of_workers_and_ranks() -> None:
    single = take(training(), steps=4)
    assert [len(batch) for batch in single[:3]] == [3, 3, 2]
    assert single[0].images.shape == (3, 3, 64, 64)
    assert single[0].images.dtype == torch.uint8
    for workers in (1, 2):
        others = take(training(workers=workers), steps=4)
        assert digest(others) == digest(single)
        assert others[0].images.is_contiguous(memory_format=torch.channels_last)
    ranks = [take(training(rank=rank, world_size=2), steps=4) for rank in (0, 1)]
    for step in range(4):
        together = digest(batch for rank in ranks for batch in rank[2 * step : 2 * step + 2])
        assert together == digest(single[3 * step : 3 * step + 3])


MIXED: dict[str, Any] = {
    "mosaic": Mosaic(p=0.7, until_step=4),
    "mixup": MixUp(p=0.4, alpha=8.0, until_step=5),
    "size_px": RandomSizes(sides_px=(64, 96, 128), every=1, seed=5, until_step=6, final_px=32),
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_mixed_images_are_the_same_for_any_workers_ranks_and_pool() -> None:
    single = take(training(**MIXED), steps=7)
    assert len({batch.images.shape[-1] for batch in single}) == 4
    expected = digest(single)
    for workers in (1, 2, 4):
        assert digest(take(training(workers=workers, **MIXED), steps=7)) == expected
    for pool_bytes in (0, 20_000):  # a noise of 60 px sides takes 8,000
        assert digest(take(training(pool_bytes=pool_bytes, **MIXED), steps=7)) == expected
    assert digest(take(training(micro_batch_size=8, **MIXED), steps=7)) == expected
    ranks = [take(training(rank=rank, world_size=2, **MIXED), steps=7) for rank in (0, 1)]
    shares = (rank[2 * step : 2 * step + 2] for step in range(7) for rank in ranks)
    assert digest(batch for share in shares for batch in share) == expected
    whole = digest(take(training(size_px=MIXED["size_px"]), steps=7))
    same = [one == other for one, other in zip(whole, expected, strict=True)]
    assert all(same[40:])  # from step 5 on nothing is mixed
    assert sum(same[:32]) < 16


def test_a_micro_batch_that_is_a_block_decodes_each_image_once() -> None:
    loads = Counter()

    class Counting(Noise):
        def load(self, index: int) -> Sample:
            loads[index] += 1
            return super().load(index)

    mosaic = {"mosaic": Mosaic(p=1.0, until_step=9), "batch_size": 16, "micro_batch_size": 16}
    one_block = 16 * 60 * 80 * 3
    take(training(Counting(32), pool_bytes=one_block, **mosaic), steps=2)
    assert set(loads.values()) == {1} and len(loads) == 32


def test_an_image_looks_different_in_each_epoch_and_where_an_epoch_repeats_it() -> None:
    often = SampleOrder(length=2, seed=5, repeat_factors=np.array([1.0, 7.0]))
    for batches, steps in ((training(), 5), (training(Noise(2), order=often), 1)):
        seen = digest(take(batches, steps=steps))
        assert len(set(seen)) == len(seen) == 8 * steps


@pytest.mark.parametrize("workers", [0, 2])
def test_from_step_gives_the_tail(workers: int) -> None:
    batches = training(workers=workers)
    assert digest(take(batches, steps=2, start=3)) == digest(take(training(), steps=5)[9:])
    assert digest(take(batches, steps=1)) == digest(take(training(), steps=1))


def test_loading_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    take(training(), steps=1)
    assert (torch.rand(3) == expected).all()


def test_a_worker_that_is_missed_elsewhere_gives_the_same_sentence(monkeypatch) -> None:
    """On a GPU's machine a thread takes the tensors, and PyTorch reports that it is gone."""
    batches = training(workers=2)
    stream = batches.from_step(0)
    next(stream)
    (worker, *_) = multiprocessing.active_children()
    worker.kill()
    worker.join()

    def lost(_: object) -> None:
        raise RuntimeError("Pin memory thread exited unexpectedly")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__next__", lost)
    with pytest.raises(UserError, match=rf"process was lost \(process {worker.pid} ended\)"):
        next(stream)
    batches.close()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_the_workers_start_ends_none_of_them(monkeypatch, number: int) -> None:
    """As it comes to the whole group; the main process has its own way to stop."""

    def signalled(worker: int) -> None:
        os.kill(os.getpid(), number)
        prepare_worker(worker)

    monkeypatch.setattr(loader, "prepare_worker", signalled)
    take(training(workers=2), steps=3)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])  # the main process hears them again


def test_a_handler_runs_only_once_all_workers_have_started(monkeypatch) -> None:
    """Though another thread takes the signal, which this one blocks while they start."""

    class Stopped(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stopped

    class Signalled(WorkerBatches):
        def __init__(self, of: DataLoader) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
            super().__init__(of)
            made.append(self)

    monkeypatch.setattr("yolo.data.workers.WorkerBatches", Signalled)
    made: list[Any] = []
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stopped):
            start_workers(DataLoader(range(4), num_workers=2, worker_init_fn=prepare_worker))
        assert signal.getsignal(signal.SIGUSR1) is stop
    finally:
        signal.signal(signal.SIGUSR1, before)
        done.set()
    (batches,) = made
    assert [worker.is_alive() for worker in batches._workers] == [False, False]


def test_close_ends_the_workers() -> None:
    batches = training(workers=1)
    next(batches.from_step(0))
    children = _children()
    assert children
    batches.close()
    deadline = time.monotonic() + 10
    while set(children) & set(_children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(children) & set(_children())
    batches.close()


def test_python_ends_while_something_still_holds_the_batches() -> None:
    """Its end waits for every worker, and none of them heeds the SIGTERM it sends."""
    program = "from tests.data.batches import training; held = training(workers=2).from_step(0)"
    subprocess.run([sys.executable, "-c", f"{program}; next(held)"], check=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux alone")
def test_a_killed_process_takes_its_workers_with_it_at_once() -> None:
    """They hold copies of its connections to the other ranks, which should see it gone."""
    open_end, ours = os.pipe()  # closed when the last process that inherited it has ended
    parent = os.fork()
    if parent == 0:
        os.close(open_end)
        batches = training(workers=2)
        next(batches.from_step(0))
        os.write(ours, b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(ours)
    assert os.read(open_end, 1) == b"x"
    start = time.monotonic()
    assert os.read(open_end, 1) == b"" and time.monotonic() - start < 2.5
    os.close(open_end)
    os.waitpid(parent, 0)


def _children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children()]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_the_same_sentence_with_and_without_workers(workers: int) -> None:
    with pytest.raises(UserError) as caught:
        take(training(Noise(broken=4), workers=workers), steps=2)
    assert str(caught.value) == "the image 4.jpg cannot be decoded."
    assert not _children()  # although the traceback is still held
    with pytest.raises(UserError, match=r"^the image 4.jpg cannot be decoded.$"):
        list(evaluation(Noise(broken=4), batch_size=3, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_in_order(workers: int) -> None:
    batches = evaluation(batch_size=4, workers=workers)
    taken = list(batches)
    assert len(batches) == len(taken) == 3
    assert [batch.image_ids.tolist() for batch in taken] == [
        [100, 101, 102, 103],
        [104, 105, 106, 107],
        [108, 109],
    ]
    assert taken[0].original_sizes_hw[1].tolist() == [41, 60]
    assert digest(batches) == digest(taken)


def test_ranks_take_whole_batches_in_turn() -> None:
    single = list(evaluation(batch_size=4))
    for rank, places in ((0, [0, 2]), (1, [1])):
        batches = evaluation(batch_size=4, rank=rank, world_size=2)
        assert len(batches) == len(places)
        assert [digest([batch]) for batch in batches] == [digest([single[i]]) for i in places]
    idle = evaluation(batch_size=16, rank=1, world_size=2, workers=2)
    assert list(idle) == []


@pytest.mark.parametrize(
    ("limit_bytes", "wanted", "expected"),
    [(600, [1, 2, 1, 3, 1, 2], [1, 2, 3, 2]), (299, [1, 1], [1, 1])],
    ids=["not wanted for longest", "does not fit"],
)
def test_an_image_that_is_not_kept_is_loaded_again(limit_bytes: int, wanted, expected) -> None:
    loaded: list[int] = []

    def load(index: int) -> Sample:
        loaded.append(index)
        of_300_bytes = np.zeros((10, 10, 3), np.uint8)
        return replace(Noise().load(index), image=of_300_bytes)

    pool = DecodedPool(load, limit_bytes)
    assert [pool.load(index).image_id - 100 for index in wanted] == wanted
    assert loaded == expected
