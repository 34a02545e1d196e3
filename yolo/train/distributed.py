"""The device of this process, and its exchange with others that train the same model."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from yolo.errors import UserError
from yolo.train.launched import (
    ALONE,
    RENDEZVOUS_FILE,
    SECONDS_TO_STOP,
    Place,
    end_with_launcher,
    read_place,
)

T = TypeVar("T")

_MEETING_MINUTES = 10
"""How long a rank waits for all others to start; torchrun gives its agents as long."""

_SILENT_SECONDS = 10
"""How long it does so without a word."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all that train one model together; of one, every exchange is a no-op."""

    rank: int
    world_size: int
    device: torch.device  # where this process computes

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files and prints."""
        return self.rank == 0

    def any(self, flag: bool | torch.Tensor) -> bool:
        """Whether a flag, a bool or bool tensor, is set on any rank: waits for the device."""
        if self.world_size == 1:
            return bool(flag)
        value = torch.as_tensor(flag, device=self.device).to(torch.int32)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks, on all of them."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value on all ranks."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all ranks rank 0's buffers: batch norm's statistics are gathered rank by rank."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def leave(self) -> None:
        """End the exchange with the other ranks, once all of them do."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
            # Gloo's threads need Python to free the tensors of their last exchange, which
            # DistributedDataParallel keeps alive till then. One that comes to it while the
            # interpreter ends aborts the process.
            time.sleep(0.2)

    def break_off(self) -> None:
        """End the exchange after a failure that the other ranks may not share.

        NCCL's own end waits for all of them, and they may be waiting for this one: there the end
        of the process is the end of the exchange.
        """
        if self.device.type != "cuda":
            self.leave()


def lost_rank(error: RuntimeError, ranks: Ranks) -> UserError | None:
    """The sentence for an exchange that another process left, or None for any other error."""
    signs = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    if ranks.world_size == 1 or not any(sign in str(error) for sign in signs):
        return None
    return UserError(
        f"process {ranks.rank} lost the others in an exchange ({_reason(error)}): most often one "
        "of them ended, and its own message says why"
    )


def _reason(error: Exception) -> str:
    """The line that explains most: NCCL names its last error behind its own call stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    after = [line for mark, line in pairwise(lines) if mark.startswith("Last error")]
    return (after or lines or ["no reason is given"])[0].rstrip(".:")


def share_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Let batch norms gather their statistics over all ranks; parameters stay the same objects."""
    if ranks.world_size == 1:  # it has the whole batch already
        return
    if ranks.device.type != "cuda":
        raise UserError(
            "synchronised batch norm works on GPUs only, but this training runs on "
            f"{ranks.world_size} processes on the {ranks.device.type}; set it to false, or name "
            "GPUs with --gpu"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def in_parallel(model: nn.Module) -> DistributedDataParallel:
    """Average gradients over the ranks; batch norm's statistics are each rank's own."""
    with warnings.catch_warnings():  # newer releases rename broadcast_buffers, older know no other
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def join(devices: Sequence[str] | None) -> Ranks:
    """Find this process's device, prepare for it and, under a launcher, meet the other ranks.

    Args:
        devices: names for ``torch.device``, one for each local rank (or ``["cpu"]`` for all);
            None for the best there is.
    """
    place = read_place()
    device = prepare_device(devices, place)
    end_with_launcher(SECONDS_TO_STOP[device.type])
    if place.world_size > 1:
        _meet(place, "nccl" if device.type == "cuda" else "gloo")
    return Ranks(rank=place.rank, world_size=place.world_size, device=device)


def one_process(devices: Sequence[str] | None) -> Ranks:
    """As `join` for a command of one process, whatever a launcher's variables say."""
    return Ranks(rank=0, world_size=1, device=prepare_device(devices))


def _meet(place: Place, backend: str) -> None:
    """Begin the exchange, once all ranks are there."""
    if place.local_world_size == place.world_size:  # whatever this machine is called
        for name in {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}:  # Linux, macOS
            os.environ.update(GLOO_SOCKET_IFNAME=name, NCCL_SOCKET_IFNAME=name)
    at = "" if RENDEZVOUS_FILE in os.environ else " at {MASTER_ADDR}:{MASTER_PORT}"
    at = at.format_map(os.environ)
    remedy = "start all of them, or unset RANK and WORLD_SIZE to train with one process"
    executor = ThreadPoolExecutor(1)  # PyTorch's own wait hears no signals
    waiting = executor.submit(_open_store, place)
    executor.shutdown(wait=False)
    try:
        if not wait([waiting], _SILENT_SECONDS).done:
            text = f"process {place.rank} of {place.world_size} waits for the others{at}, at most "
            print(f"{text}{_MEETING_MINUTES} minutes; {remedy}", file=sys.stderr, flush=True)
        store = waiting.result(60 * _MEETING_MINUTES - _SILENT_SECONDS)
        dist.init_process_group(
            backend,
            store=store,
            rank=place.rank,
            world_size=place.world_size,
            # for a rank that hangs, and longer than rank 0 takes to score or to save; one that died
            # is noticed at once, by its closed connection or by the launcher
            timeout=timedelta(minutes=30),
        )
    except (RuntimeError, WaitedTooLong) as error:
        reason = _reason(error) if str(error) else f"within {_MEETING_MINUTES} minutes"
        raise UserError(
            f"the {place.world_size} processes of this training do not meet{at} ({reason}); "
            f"{remedy}; the port must be free"
        ) from error


def _open_store(place: Place) -> dist.Store:
    """Through what the ranks find each other, once all are there."""
    timeout = timedelta(minutes=_MEETING_MINUTES + 1)  # longer than it is waited for
    store: dist.Store
    if RENDEZVOUS_FILE in os.environ:
        store = dist.FileStore(os.environ[RENDEZVOUS_FILE], place.world_size)
    else:
        store, *_ = next(dist.rendezvous("env://", timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    if store.add(f"rank {place.rank}", 1) > 1:
        raise UserError(f"two processes have RANK={place.rank}; give each its own, from 0 on")
    store.wait([f"rank {rank}" for rank in range(place.world_size)], timeout)
    return store


def prepare_device(devices: Sequence[str] | None, place: Place = ALONE) -> torch.device:
    """Find this process's device, see ``join``, and prepare for it."""
    processes = place.local_world_size
    if devices is None:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    if processes > len(devices) and devices[0] != "cpu":  # they may share the CPU, but no GPU
        raise UserError(
            f"{processes} processes on this machine need as many GPUs, but there are "
            f"{len(devices)} to use; start fewer processes, or name more with --gpu"
        )
    name = devices[place.local_rank % len(devices)]
    check_devices([name])
    device = torch.device(name)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type != "cuda":
        return device
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:  # in exclusive use, out of memory, an unfit driver
        raise UserError(
            f"--gpu {device.index}: this GPU cannot be used ({_reason(error)}); see nvidia-smi for "
            "what uses it, or choose another one, or --gpu cpu"
        ) from error
    return device


def check_devices(names: Sequence[str]) -> None:
    """Refuse GPUs that this machine lacks."""
    count = torch.cuda.device_count() if any(name != "cpu" for name in names) else 0
    found = f"this machine has {count} GPU(s), numbered from 0; name one of them, or --gpu cpu"
    if count == 0:
        found = "this machine has no GPU that PyTorch can use; choose --gpu cpu"
    for device in map(torch.device, names):
        if device.type == "cuda" and device.index >= count:
            raise UserError(f"--gpu {device.index}: {found}")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise UserError("--gpu mps: this is no Mac whose GPU PyTorch can use; choose --gpu cpu")


def keep_freed_memory() -> bool:
    """Let the C library use freed memory again instead of returning it to the system.

    glibc maps every tensor of 32 MB or more anew and unmaps it at its end, so that each step has
    the system clear the same gigabytes again: a quarter of the time of a MobileNetV3-large at
    416 px. The process then keeps its peak, which the next step would have asked for anyway.
    False where the allocator is another, which lacks these settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
