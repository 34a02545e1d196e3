"""Several devices: which one is mine, who else is there, and starting the others."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run
from torch.nn.parallel import DistributedDataParallel

from yolo.errors import UserError
from yolo.train.host_memory import keep_freed_memory

T = TypeVar("T")

_LET_GO_SECONDS = 0.2
"""Gloo's threads need Python to free the tensors of their last exchange. One that comes to it while
the interpreter ends aborts the process, and DistributedDataParallel keeps them alive till then."""

_PATIENCE = timedelta(minutes=30)
"""How long a rank waits in an exchange. One that died is noticed at once, by its closed connection
or by the launcher; this is for one that hangs, and longer than rank 0 takes to score or to save."""

SECONDS_TO_STOP = {"cpu": 120, "cuda": 30}
"""How long the launcher waits for ranks that were told to stop before it kills them. They end their
step and write a checkpoint, and on a CPU a step of a large batch takes more than torch's 30 s; on
GPUs it is also what a rank costs that NCCL keeps waiting for one that failed."""

_BROKEN_EXCHANGE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Signs of an error of the exchange between processes."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all that train one model together.

    Attributes:
        rank: 0 writes the files and speaks.
        world_size: number of processes; with 1, every exchange is a no-op.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool | torch.Tensor) -> bool:
        """Whether a flag, a bool or bool tensor, is set on any rank: waits for the device."""
        if self.world_size == 1:
            return bool(flag)
        value = torch.as_tensor(flag, device=self.device).to(torch.int32)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the ranks."""
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
        if self.world_size == 1:
            return value
        values = [value]
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
            time.sleep(_LET_GO_SECONDS)

    def break_off(self) -> None:
        """End the exchange after a failure that the other ranks may not share.

        NCCL's own end waits for all of them, and they may be waiting for this one: there the end
        of the process is the end of the exchange.
        """
        if self.device.type != "cuda":
            self.leave()


def lost_rank(error: RuntimeError, ranks: Ranks) -> UserError | None:
    """The sentence for an exchange that another process left, or None for any other error."""
    told = str(error)
    if ranks.world_size == 1 or not any(sign in told for sign in _BROKEN_EXCHANGE):
        return None
    return UserError(
        f"process {ranks.rank} lost the others in an exchange ({_reason(told)}): most often one of "
        "them ended, and its own message says why"
    )


def _reason(told: str) -> str:
    """The line that tells most: NCCL names its last error behind its own call stack."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    after = [line for mark, line in pairwise(lines) if mark.startswith("Last error")]
    return (after or lines or ["no reason is given"])[0].rstrip(".:")


def share_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Let batch norms gather their statistics over all ranks; alone they have the batch already.

    Parameters stay the same objects and names the same: optimizers and checkpoints see no change.

    Raises:
        UserError: several ranks compute on CPUs, for which PyTorch has no such layer.
    """
    if ranks.world_size == 1:
        return
    if ranks.device.type != "cuda":
        raise UserError(
            "training.sync_batch_norm: works on GPUs only, but this training runs on "
            f"{ranks.world_size} processes on the {ranks.device.type}; set it to false, or name "
            "GPUs with --gpu"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def in_parallel(model: nn.Module) -> DistributedDataParallel:
    """Average gradients over the ranks.

    Each rank's batch-norm statistics are its own until an evaluation takes rank 0's.
    """
    with warnings.catch_warnings():  # newer releases rename broadcast_buffers, older know no other
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def is_rank() -> bool:
    """Whether a launcher (torchrun, or ``launch`` below) started this process as one of several."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def join(devices: Sequence[str] | None) -> Ranks:
    """Find this process's device, prepare for it and, under a launcher, meet the other ranks.

    Args:
        devices: names for ``torch.device``, one for each local rank (or ``["cpu"]`` for all);
            None for the best there is.

    Raises:
        UserError: a device that this machine lacks or that cannot be used, or ranks that do not
            meet.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0)) if is_rank() else 0
    if devices is None:
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    _check_enough(devices)
    device = _device(devices[local_rank % len(devices)])
    if device.type == "cpu":
        keep_freed_memory()
    if not is_rank() or int(os.environ["WORLD_SIZE"]) == 1:
        return Ranks(rank=0, world_size=1, device=device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except dist.DistError as error:
        raise UserError(
            f"the {os.environ['WORLD_SIZE']} processes of this training do not meet "
            f"({_reason(str(error))}); start all of them, with one MASTER_ADDR and a free "
            "MASTER_PORT"
        ) from error
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def _check_enough(devices: Sequence[str]) -> None:
    """Processes may share the CPU but no GPU."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_rank() else 1
    if processes > len(devices) and devices[0] != "cpu":
        raise UserError(
            f"{processes} processes on this machine need as many GPUs, but there are "
            f"{len(devices)} to use; start fewer processes, or name more with --gpu"
        )


def check_devices(names: Sequence[str]) -> None:
    """Refuse what this machine lacks before a process is started for each.

    Raises:
        UserError: it has no such GPU.
    """
    count = torch.cuda.device_count() if any(name != "cpu" for name in names) else 0
    for device in map(torch.device, names):
        if device.type == "cuda" and device.index >= count:
            raise UserError(f"--gpu {device.index}: {_found(count)}")


def _device(name: str) -> torch.device:
    check_devices([name])
    device = torch.device(name)
    if device.type == "cuda":
        try:
            torch.cuda.set_device(device)
        except RuntimeError as error:  # in exclusive use, out of memory, an unfit driver
            raise UserError(
                f"--gpu {device.index}: this GPU cannot be used ({_reason(str(error))}); see "
                "nvidia-smi for what uses it, or choose another one, or --gpu cpu"
            ) from error
    return device


def _found(count: int) -> str:
    if count == 0:
        return "this machine has no GPU that PyTorch can use; choose --gpu cpu"
    return f"this machine has {count} GPU(s), numbered from 0; name one of them, or --gpu cpu"


def launch(
    script: Path, arguments: Sequence[str], *, processes: int, seconds_to_stop: int = 30
) -> int:
    """Run a script once for each device through torch's own launcher.

    Args:
        script, arguments: the command line of each process.
        processes: how many.
        seconds_to_stop: until a process that was told to stop is killed, see ``SECONDS_TO_STOP``.

    Returns:
        The exit code: 0, that of the first rank to fail, or 128 + signal.
    """
    for name in ("agent.server.api", "multiprocessing.api"):  # it is told below, in a sentence
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(seconds_to_stop))
    command = ["--standalone", f"--nproc-per-node={processes}", str(script), *arguments]
    try:
        run(get_args_parser().parse_args(command))
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        code = failure.exitcode
        print(f"error: rank {rank} ended with {_ending(code)}", file=sys.stderr)
        return code if code > 0 else 128 - code
    return 0


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
