"""Two real processes, started once by the launcher under test; this file is the script they run.

Each assertion in ``main`` and below runs in the ranks: one that fails ends its rank with code 1.
"""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.detectors import ONE_RANK
from tests.evaluate.test_detection_evaluator import NoiseNet, batches, evaluator, never, same
from tests.faults.trial import listening
from tests.train.toys import (
    ToyBatches,
    ToyLoss,
    ToyNet,
    TwoPartNet,
    differences,
    fit,
    signal_at,
    toy_accuracy,
)
from yolo.config import REPOSITORY_ROOT
from yolo.errors import UserError
from yolo.train import distributed
from yolo.train.checkpoint import load_checkpoint
from yolo.train.command import launch
from yolo.train.distributed import (
    Ranks,
    join,
    lost_rank,
    one_process,
    share_batch_norm,
)
from yolo.train.freezing import Freeze
from yolo.train.interruption import Interrupted, Interruption
from yolo.train.launched import is_rank
from yolo.train.optimizers import adam, sgd
from yolo.train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
CODE_OF_RANK_1 = 7


def test_two_ranks_are_one_training(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = launch(Path(__file__).resolve(), [str(tmp_path)], ["cpu", "cpu"])
    printed = capfd.readouterr().err
    assert code == CODE_OF_RANK_1, printed
    assert f"error: rank 1 ended with exit code {CODE_OF_RANK_1}" in printed
    assert sorted(path.name for path in tmp_path.glob("done_*")) == ["done_0", "done_1"], printed


def test_with_one_rank_every_exchange_is_nothing() -> None:
    ranks = join(["cpu"])
    assert ranks == ONE_RANK and ranks.is_main
    assert not is_rank()
    with patch.dict(os.environ, RANK="7", WORLD_SIZE="8"):  # left over
        assert one_process(["cpu"]) == ONE_RANK  # of a command that starts no others
    assert ranks.any(True) and not ranks.any(torch.tensor(False))
    assert ranks.sum(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert ranks.gather("mine") == ["mine"] and ranks.broadcast("mine") == "mine"
    ranks.leave()


TWO_RANKS = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
BUSY = RuntimeError("CUDA error: CUDA-capable device(s) is/are busy\nCUDA kernel errors ...")
TAKEN = dist.DistNetworkError("The server socket has failed to listen on port 29500.\nat ...")


ONE_MACHINE = {**TWO_RANKS, "LOCAL_WORLD_SIZE": "2"}
NO_GPU = "--gpu 3: this machine has no GPU that PyTorch can use; choose --gpu cpu"


@pytest.mark.parametrize(
    ("gpus", "environment", "device", "message"),
    [
        (0, {}, "cuda:3", NO_GPU),
        (2, {}, "cuda:3", "--gpu 3: this machine has 2 GPU"),
        (0, {}, "mps", "--gpu mps: this is no Mac whose GPU"),
        (1, {}, "cuda:0", r"--gpu 0: this GPU cannot be used \(CUDA error: .* busy\);"),
        (0, TWO_RANKS, "cpu", r"the 2 processes .* do not meet at node:29500 \(The .* 29500\); "),
        (2, ONE_MACHINE, "cuda:0", "2 processes on this machine need as many GPUs"),
    ],
)
def test_a_device_or_an_exchange_that_is_not_to_be_had(
    gpus: int, environment: dict[str, str], device: str, message: str, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", Mock(side_effect=BUSY))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(dist, "rendezvous", Mock(side_effect=TAKEN))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join([device])


@pytest.mark.skipif(torch.version.cuda is None, reason="a PyTorch without CUDA counts no GPUs")
def test_a_gpu_that_is_counted_and_not_there_is_a_sentence(monkeypatch) -> None:
    """As with a driver that fails, or CUDA_VISIBLE_DEVICES changed after it was read."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 100)
    with pytest.raises(UserError, match=r"--gpu 99: this GPU cannot be used \(\w.*\); see nvidia"):
        join(["cuda:99"])


@pytest.mark.parametrize("visible", ["", "-1", "99", "GPU-nonsense", "0,0", "nonsense"])
def test_a_variable_that_hides_gpus_is_a_sentence(visible: str, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match="--gpu 50: this machine has "):
        join(["cuda:50"])


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ((), r"not meet at node:29500 \(within 0.003 minutes\); start all of them, or unset RANK"),
        ((0,), None),
        ((0, 1), "two processes have RANK=1; give each its own, from 0 on"),
    ],
)
def test_ranks_that_do_not_come_are_not_waited_for_in_silence(
    present, message, monkeypatch, capsys
) -> None:
    store = dist.HashStore()
    for rank in present:
        dist.PrefixStore("attempt 0", store).add(f"rank {rank}", 1)
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", begun := Mock())
    monkeypatch.setattr(distributed, "_MEETING_MINUTES", 0.003)
    monkeypatch.setattr(distributed, "_SILENT_SECONDS", 0.01 if not present else 60)
    for name, value in TWO_RANKS.items():
        monkeypatch.setenv(name, value)
    if message is None:
        monkeypatch.setattr(distributed, "_MEETING_MINUTES", 2)
        assert join(["cpu"]).rank == 1
        assert begun.call_args.kwargs["world_size"] == 2
        return
    with pytest.raises(UserError, match=message):
        join(["cpu"])
    dist.PrefixStore("attempt 0", store).add("rank 0", 1)  # lets the thread that waits end
    waits = "process 1 of 2 waits for the others at node:29500, at most 0.003 minutes; start all"
    assert capsys.readouterr().err.startswith("" if present else waits)
    assert not begun.called


def test_after_a_failure_nccl_is_not_waited_for(monkeypatch) -> None:
    """Its end is a meeting of all ranks, and they may be waiting for this one in another."""
    ended: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append("destroyed"))
    cuda = Ranks(rank=0, world_size=2, device=torch.device("cuda", 0))
    cuda.break_off()
    assert ended == []
    cuda.leave()
    assert ended == ["destroyed"]
    Ranks(rank=0, world_size=2, device=torch.device("cpu")).break_off()
    assert ended == ["destroyed"] * 2


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = join(["cpu"])
    assert is_rank() and ranks.world_size == 2
    assert ranks.rank == int(os.environ["RANK"]) and ranks.is_main == (ranks.rank == 0)
    check_exchanges(ranks)
    check_sockets()
    check_training(ranks, folder)
    check_freezing(ranks, folder)
    check_stopping(ranks, folder)
    check_evaluation(ranks)
    (folder / f"done_{ranks.rank}").touch()
    ranks.gather(None)  # both are done before one ends with an error
    ranks.leave()
    sys.exit(CODE_OF_RANK_1 if ranks.rank else 0)


def check_exchanges(ranks: Ranks) -> None:
    rank = ranks.rank
    assert ranks.sum(torch.tensor([1.0 + rank, 10.0])).tolist() == [3, 20]
    for flags in ((False, False), (True, False), (False, True), (True, True)):
        assert ranks.any(flags[rank]) == any(flags)
        assert ranks.any(torch.tensor(flags[rank])) == any(flags)
    assert ranks.gather({"rank": rank, "list": [rank] * rank}) == [
        {"rank": 0, "list": []},
        {"rank": 1, "list": [1]},
    ]
    assert ranks.broadcast(f"of {rank}") == "of 0"
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean.fill_(rank + 5)
    ranks.broadcast_buffers(norm)
    assert norm.running_mean.tolist() == [5, 5]


def check_sockets() -> None:
    """Other machines cannot connect."""
    if Path("/proc/net/tcp").exists():
        sockets = listening([os.getpid()])
        assert sockets and all(address.is_loopback for address, _ in sockets), sockets


def assert_same_reports(both: Trainer, single: Trainer) -> None:
    for (_, ours), (_, theirs) in zip(both.log.trained, single.log.trained, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-6)
        assert ours.get("accuracy/bright") == theirs.get("accuracy/bright")


def check_training(ranks: Ranks, folder: Path) -> None:
    """The same global batches give the same weights; a step that fails on one rank fails on all."""

    def spoil(terms: dict[str, Tensor], call: int) -> dict[str, Tensor]:
        """No number in step 3 on rank 1, though the gradient is finite."""
        wrong = call == 4 and ranks.rank == 1
        return {**terms, "xy": terms["xy"] + (torch.nan if wrong else 0)}

    def run(name: str, ranks: Ranks, micro_batches: int, loss: ToyLoss):
        model = ToyNet(plain=True).double()
        return fit(
            folder / name,
            model=model,
            ranks=ranks,
            loss=loss,
            optimizer=sgd(model, learning_rate=0.1, momentum=0.9, weight_decay=0.01),
            batches=ToyBatches(ranks=ranks, micro_batches=micro_batches),
            gradient_clip=0.3,
        )

    for micro_batches in (1, 2):
        both = run(f"both_{micro_batches}", ranks, micro_batches, ToyLoss())
        single = run(f"single_{ranks.rank}", ONE_RANK, 2, ToyLoss())
        weights = [list(done.learner.model.parameters()) for done in (both, single)]
        torch.testing.assert_close(*weights, rtol=1e-12, atol=1e-14)
        assert both.progress.step == single.progress.step
        assert len(both.log.trained) > 0
        assert_same_reports(both, single)
    spoiled = run("spoiled", ranks, 1, ToyLoss(spoil))
    assert spoiled.progress.skipped_steps == 1
    states = ranks.gather(spoiled.learner.model.state_dict())
    assert differences(states[0], states[1]) == []
    assert all(value.isfinite().all() for value in states[0].values())


def check_freezing(ranks: Ranks, folder: Path) -> None:
    """Gradients meet in what is trained now, before and after the unfreezing, and on resuming."""

    def run(name: str, ranks: Ranks, steps: int, **parts):
        model = TwoPartNet(plain=True).double()
        return fit(
            folder / name,
            model=model,
            ranks=ranks,
            optimizer=adam(model, learning_rate=0.01, encoder_learning_rate=0.001),
            batches=ToyBatches(ranks=ranks, micro_batches=2),
            steps=steps,
            freeze=Freeze(model, unfreeze_at=2),
            accuracy=toy_accuracy,
            **parts,
        )

    start = TwoPartNet(plain=True).double().state_dict()
    both, single = run("thawed", ranks, 5), run(f"thawed_single_{ranks.rank}", ONE_RANK, 5)
    for name, ours in both.learner.model.state_dict().items():
        theirs = single.learner.model.state_dict()[name]
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
        assert not torch.equal(ours, start[name])
    assert len(both.log.trained) == 5 and "accuracy/bright" in both.log.trained[0][1]
    assert_same_reports(both, single)
    states = ranks.gather(both.state_dict())
    assert differences(states[0], states[1]) == []
    run("halved", ranks, 1)
    ranks.gather(None)  # rank 0 has written
    resumed = run("halved", ranks, 5, resuming=True)
    for part in ("model", "optimizer", "ema"):
        assert differences(resumed.state_dict()[part], both.state_dict()[part]) == [], part


def check_stopping(ranks: Ranks, folder: Path) -> None:
    """With batch norm and dropout: a signal to rank 1 stops both, and both resume exactly."""

    def run(name: str, *, resuming: bool = False, **batches):
        parts = {"ranks": ranks, "batches": ToyBatches(ranks=ranks, **batches)}
        return fit(folder / name, resuming=resuming, **parts)

    seen = ranks.gather(run("whole").evaluator.seen)  # the averaged weights and rank 0's statistics
    assert len(seen[0]) == 2 and differences(seen[0], seen[1]) == []
    before = {"before": signal_at(3, 0)} if ranks.rank == 1 else {}
    with pytest.raises(Interrupted) as caught:
        run("stopped", **before)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    ranks.gather(None)  # rank 0 has written
    checkpoint = load_checkpoint(folder / "stopped" / "last.pt")
    assert checkpoint["progress"]["step"] == 4  # the step is finished: the other is in it already
    run("stopped", resuming=True)
    ranks.gather(None)
    for name in ("last.pt", "best.pt"):
        files = [load_checkpoint(folder / run / name) for run in ("whole", "stopped")]
        assert differences(*files) == [], name


def check_evaluation(ranks: Ranks) -> None:
    """Five batches on two ranks give what one rank finds, in the same order."""
    mine = batches(size=1)[ranks.rank :: ranks.world_size]
    both = evaluator(batches=mine, ranks=ranks, metrics=()).find(NoiseNet(), never)
    single = evaluator(batches=batches(size=1), ranks=ONE_RANK).find(NoiseNet(), never)
    assert both is not None and single is not None
    assert same(both, single) and len(single.scores) > 100 and both.run.images == 5
    for name, loss in single.run.losses.items():
        np.testing.assert_allclose(both.run.losses[name], loss, rtol=1e-6)
    assert both.accuracy == single.accuracy and set(single.accuracy) >= {"class", "no_object"}
    result = evaluator(batches=mine, ranks=ranks).evaluate(NoiseNet(), never)
    assert result is not None
    assert ranks.gather(result.figures)[0] == result.figures
    interruption = Interruption()
    interruption.signal_number = signal.SIGTERM if ranks.rank == 1 else None
    stopped = evaluator(batches=mine, ranks=ranks).evaluate(NoiseNet(), interruption)
    assert stopped is None  # on both


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_statistics_are_shared_by_gpus_only() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    names, parameters = list(model.state_dict()), list(model.parameters())
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    share_batch_norm(model, Ranks(rank=0, world_size=1, device=cpu))
    assert type(model[1]) is torch.nn.BatchNorm2d
    with pytest.raises(UserError, match=r"batch norm works on GPUs only, .* 2 processes"):
        share_batch_norm(model, Ranks(rank=0, world_size=2, device=cpu))
    share_batch_norm(model, Ranks(rank=0, world_size=2, device=cuda))
    assert type(model[1]) is torch.nn.SyncBatchNorm
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_a_lost_rank_is_explained() -> None:
    broken = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    two = Ranks(rank=1, world_size=2, device=torch.device("cpu"))
    assert str(lost_rank(broken, two)) == (
        "process 1 lost the others in an exchange ([gloo/transport/tcp/pair.cc:547] Connection "
        "closed by peer): most often one of them ended, and its own message says why"
    )
    own = dist.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:5, unhandled cuda error, NCCL version 2.27\n"
        "ncclUnhandledCudaError: Call to CUDA library failed.\n"
        "Last error:\nCuda failure 2 'out of memory'"
    )
    assert "(Cuda failure 2 'out of memory')" in str(lost_rank(own, two))
    assert lost_rank(RuntimeError("shapes differ"), two) is None
    assert lost_rank(broken, ONE_RANK) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_a_freed_tensors_memory_is_used_again():
    """In a process of its own: what other tests left of the heap decides where a tensor lies."""
    script = """
import resource
import torch
from yolo.train.distributed import keep_freed_memory

tensor_mb = 64
pages = tensor_mb * 2**20 // resource.getpagesize()
assert keep_freed_memory()
for _ in range(16):  # the heap grows to its size
    torch.ones(tensor_mb * 2**18)  # float32
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(tensor_mb * 2**18)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < pages / 4, faults  # mapped anew, each of the 8 would cost pages, or pages / 512
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY_ROOT)
