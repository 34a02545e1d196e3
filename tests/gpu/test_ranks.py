"""Several processes: the same gradients as one. This file is also the script that they run.

NCCL refuses two ranks on one GPU, so there they exchange through gloo; NCCL is tried with one rank,
and with two where there are two GPUs.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.faults.equal_gradients import Recording, freeze_batch_norm
from tests.gpu.device import DEVICE, IS_CUDA, NAME, RANKS
from tests.gpu.learners import GENERATIONS, IMAGES, Case, make_batch, make_learner, of_dtype
from yolo.config import REPOSITORY_ROOT
from yolo.train import distributed
from yolo.train.command import launch
from yolo.train.distributed import Ranks, in_parallel, join, prepare_device, share_batch_norm
from yolo.train.launched import read_place

pytestmark = pytest.mark.gpu

LARGEST = 1e-9
"""The norm of two gradients' difference over the norm of one, in float64: rounding alone."""

MEET = distributed._meet


@pytest.mark.parametrize(
    ("backend", "devices"), [("gloo", (NAME, NAME)), ("nccl", ("cuda:0", "cuda:1"))]
)
def test_two_ranks_have_the_gradient_of_one(
    backend: str, devices: tuple[str, str], tmp_path: Path, monkeypatch, capfd
) -> None:
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each rank, and there are not two")
    run_ranks(["gradients", backend, *devices], devices, tmp_path, monkeypatch, capfd)


def test_nccl_with_one_rank_meets_in_a_file_and_exchanges(tmp_path, monkeypatch, capfd) -> None:
    backend = "nccl" if IS_CUDA else "gloo"
    run_ranks(["alone", backend], (NAME,), tmp_path, monkeypatch, capfd)


def run_ranks(what: list[str], devices: tuple, folder: Path, monkeypatch, capfd) -> None:
    paths = filter(None, (str(REPOSITORY_ROOT), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    code = launch(Path(__file__).resolve(), [str(folder), *what], devices)
    printed = capfd.readouterr()
    assert code == 0, f"{printed.out}\n{printed.err}"
    assert len([*folder.glob("done_*")]) == len(devices)


def main(folder: Path, what: str, backend: str, *devices: str) -> None:
    """What each rank does; an assertion that fails ends it with code 1."""
    rank = check_gradients(backend, devices) if what == "gradients" else check_exchanges(backend)
    (folder / f"done_{rank}").touch()


def check_gradients(backend: str, devices: tuple[str, ...]) -> int:
    with patch.object(distributed, "_meet", lambda place, _: MEET(place, backend)):
        ranks = join(devices)
    alone = Ranks(rank=0, world_size=1, device=ranks.device)
    for name, case in GENERATIONS.items():
        whole = gradient(case, alone, 1, freeze_batch_norm)
        for micro_batches in (1, 2):
            check(gradient(case, ranks, micro_batches, freeze_batch_norm), whole, ranks, name)
        if IS_CUDA:
            shared = gradient(case, ranks, 1, partial(share_batch_norm, ranks=ranks))
            check(shared, gradient(case, alone, 1), ranks, f"{name}, synchronised batch norm")
    ranks.leave()
    return ranks.rank


def gradient(
    case: Case,
    ranks: Ranks,
    micro_batches: int,
    prepare: Callable[[nn.Module], object] = lambda model: None,
    *,
    parallel: bool = False,
) -> Tensor:
    """Of one step in float64, this rank having its share of the images."""

    def record(model: nn.Module) -> Recording:
        return Recording(model.parameters(), 0.0)

    learner = make_learner(
        case,
        ranks=ranks,
        optimizer=record,
        prepare=prepare,
        dtype=torch.float64,
        gradient_clip=None,  # which would hide a wrong factor
    )
    if parallel:
        learner._parallel = in_parallel(learner.model)
    share = IMAGES // ranks.world_size // micro_batches
    starts = [(ranks.rank * micro_batches + i) * share for i in range(micro_batches)]
    batches = [make_batch(case, range(start, start + share)) for start in starts]
    stream = (of_dtype(batch, torch.float64) for batch in batches)
    result = learner.step(0, stream, micro_batches)
    assert not result.faults, result.faults
    return learner.optimizer.seen[-1]


def check(found: Tensor, whole: Tensor, ranks: Ranks, what: str) -> None:
    apart = float((found - whole).norm() / whole.norm())
    print(f"{what}: {apart:.1e}", flush=True)
    assert apart <= LARGEST, f"{what}: {apart:.1e}"
    lowest, highest = found.clone(), found.clone()
    if ranks.world_size > 1:
        dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    assert torch.equal(lowest, highest), f"{what}: the ranks' gradients differ"


def check_exchanges(backend: str) -> int:
    """Every exchange of `Ranks`, and a backward pass, in a group of one."""
    prepare_device([NAME])
    place = read_place()
    distributed._meet(place, backend)
    flag = torch.ones((), dtype=torch.int32, device=DEVICE)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    sums = torch.arange(3, dtype=torch.float64, device=DEVICE)
    dist.all_reduce(sums)
    assert flag.item() == 1 and sums.tolist() == [0, 1, 2]
    found, told = [None], [{"precision": "bf16"}]
    dist.all_gather_object(found, {"rank": 0})
    dist.broadcast_object_list(told, src=0, device=DEVICE)
    assert (found, told) == ([{"rank": 0}], [{"precision": "bf16"}])
    for buffer in nn.BatchNorm2d(3).to(DEVICE).buffers():  # one is int64
        dist.broadcast(buffer, src=0)
    case = GENERATIONS["yolov3"]
    plain, parallel = (gradient(case, RANKS, 2, parallel=each) for each in (False, True))
    check(parallel, plain, RANKS, "in a group of one")
    dist.destroy_process_group()
    return place.rank


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
