"""However a step's images are shared out, its gradient is that of one big batch."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tests.detectors import ONE_RANK
from tests.faults.tiny import fork_ranks, last_lines, tiny_config
from tests.faults.trial import Property, wait_for
from yolo.config import Config
from yolo.data.formats.detection import DetectionDataset
from yolo.factory.data import build_dataset, build_training_batches
from yolo.factory.detector import build_coder, build_detector, build_loss
from yolo.records import Batch, Sample
from yolo.train.distributed import Ranks
from yolo.train.learner import Learner
from yolo.train.precision import Precision

PROPERTY = "3 Equal gradients"

IMAGES = 11
STEP = 1
"""With 7 or 8 images in a step, its batch lies over the border of the first two epochs."""

LARGEST = {torch.float64: 1e-12, torch.float32: 1e-6}
"""The most that the gradients may differ: norm of the difference over the norm."""

GENERATIONS: dict[str, tuple[str, ...]] = {
    "yolov3": (),
    "yolov2": (
        "model.neck={type: yolov2, width: 0.05}",
        "model.head={type: yolov2}",
        "loss={type: yolov2}",
    ),
    "yolov1": (
        "model.neck={type: yolov1, width: 0.05}",
        "model.head={type: yolov1, dropout: 0}",
        "loss={type: yolov1}",
    ),
}


class Recording(torch.optim.SGD):
    """Keeps the whole gradient of each step."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.seen: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        self.seen.append(torch.cat([g.detach().flatten() for g in gradients if g is not None]))
        super().step(closure)


class OneSided:
    """A data set whose objects all lie in some of its images."""

    def __init__(self, dataset: DetectionDataset, with_objects: set[int]) -> None:
        self._dataset, self._with_objects = dataset, with_objects
        self.annotations = dataset.annotations

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> Sample:
        sample = self._dataset.load(index)
        if index in self._with_objects:
            return sample
        return dataclasses.replace(
            sample,
            boxes_xyxy_px=sample.boxes_xyxy_px[:0],
            labels=sample.labels[:0],
            ignored=sample.ignored[:0],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """The same images, weights and step for every way to share them out."""

    config: Config
    data: Any
    class_names: list[str]
    state: dict[str, Tensor]
    dtype: torch.dtype

    def gradient(
        self, micro_batch: int, ranks: Ranks, *, lr: float = 0.0
    ) -> tuple[Tensor, Learner]:
        """Of the one step, the learner's own."""
        model = build_detector(self.config, self.class_names).to(self.dtype)
        model.load_state_dict(self.state)
        freeze_batch_norm(model)
        if self.dtype == torch.float32:
            smooth(model)
        loss = build_loss(self.config, build_coder(self.config), self.class_names)
        learner = Learner(
            model=model,
            loss=loss.to(self.dtype),
            optimizer=Recording(model.parameters(), lr),
            schedule=lambda step: 1.0,
            precision=Precision("fp32"),
            ranks=ranks,
            images_in_step=self.config.training.batch_size,
        )
        syncs = count_synchronisations(learner)
        training = self.config.training.model_copy(update={"micro_batch_size": micro_batch})
        config = self.config.model_copy(update={"training": training})
        batches = build_training_batches(config, self.data, ranks)
        count = batches.micro_batches_per_step
        stream = (_of_dtype(batch, self.dtype) for batch in batches.from_step(STEP))
        result = learner.step(STEP, stream, count)
        batches.close()
        assert result is not None and result.terms, "the step was skipped"
        assert set(syncs.values()) <= {1}, f"{syncs} exchanges by bucket in one step"
        assert bool(syncs) == (ranks.world_size > 1), "the ranks did not exchange"
        assert isinstance(learner.optimizer, Recording)
        return learner.optimizer.seen[-1], learner


def _of_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    boxes = batch.targets.boxes_cxcywh_norm.to(dtype)
    targets = dataclasses.replace(batch.targets, boxes_cxcywh_norm=boxes)
    return dataclasses.replace(batch, targets=targets)


def freeze_batch_norm(model: nn.Module) -> None:
    """Its statistics stay, whatever mode the network is put in."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]


def smooth(model: nn.Module) -> None:
    """Put SiLU in LeakyReLU's place, which has a slope for every number.

    A convolution of one image rounds otherwise than one of many. Of a million numbers, now and then
    one falls on the other side of 0, and LeakyReLU's slope there is ten times as large or small.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LeakyReLU):
                setattr(module, name, nn.SiLU())


def count_synchronisations(learner: Learner) -> Counter[int]:
    """How often each bucket of gradients is exchanged from now on."""
    counts: Counter[int] = Counter()
    parallel = learner._parallel
    if isinstance(parallel, DistributedDataParallel):

        def hook(group, bucket):  # DistributedDataParallel takes no annotation that is text
            counts[bucket.index()] += 1
            return allreduce_hook(group, bucket)

        parallel.register_comm_hook(None, hook)
    return counts


def equal_gradients(seed: int, folder: Path, *, generation: str) -> None:
    generator = random.Random(f"{generation} {seed}")
    for dtype, largest in LARGEST.items():
        case = _case(seed, folder, generation, dtype, batch=generator.choice([7, 8]))
        whole, _ = case.gradient(case.config.training.batch_size, ONE_RANK)
        assert whole.norm() > 0
        for micro_batch in (4, 2, 1, 3):
            found, _ = case.gradient(micro_batch, ONE_RANK)
            _check(found, whole, largest, f"{dtype}, micro-batches of {micro_batch}")
        micro_batch = generator.choice([1, 2, 3, 4])
        found = _gradient_of_two_ranks(case, micro_batch, folder / f"{dtype}".rpartition(".")[2])
        _check(found, whole, largest, f"{dtype}, two ranks with micro-batches of {micro_batch}")


def _case(seed: int, folder: Path, generation: str, dtype: torch.dtype, *, batch: int) -> Case:
    """A network some steps into its training; with odd seeds all objects are on one rank."""
    config = tiny_config(
        folder.parent / "shared",
        *GENERATIONS[generation],
        f"seed={seed}",
        f"data.train.images={IMAGES}",
        f"training.batch_size={batch}",
        "training.micro_batch_size=1",
    )
    data: Any = build_dataset(config, "train")
    names = list(data.class_names)
    if seed % 2:
        data = OneSided(data, _images_of_rank(seed // 2 % 2, config, data))
    model = build_detector(config, names).to(dtype).train()
    images = torch.stack([torch.from_numpy(data.load(i).image[:64, :64]) for i in range(4)])
    model(images.permute(0, 3, 1, 2))  # gathers statistics
    case = Case(config=config, data=data, class_names=names, state=model.state_dict(), dtype=dtype)
    for _ in range(seed % 4):
        _, learner = case.gradient(batch, ONE_RANK, lr=1e-3)
        case = dataclasses.replace(case, state=learner.model.state_dict())
    return case


def _images_of_rank(rank: int, config: Config, data: DetectionDataset) -> set[int]:
    """The indices of the images that a rank gets in the step, and the other one does not."""
    shares = []
    ids = {int(data.load(index).image_id): index for index in range(len(data))}
    for r in range(2):
        ranks = Ranks(rank=r, world_size=2, device=torch.device("cpu"))
        batches = build_training_batches(config, data, ranks)
        stream = batches.from_step(STEP)
        seen = [next(stream).image_ids for _ in range(batches.micro_batches_per_step)]
        batches.close()
        shares.append({ids[int(i)] for i in torch.cat(seen)})
    return shares[rank] - shares[1 - rank]


def _gradient_of_two_ranks(case: Case, micro_batch: int, folder: Path) -> Tensor:
    """In two real processes."""
    folder.mkdir()

    def work() -> int:
        dist.init_process_group("gloo")
        ranks = Ranks(rank=dist.get_rank(), world_size=2, device=torch.device("cpu"))
        found, _ = case.gradient(micro_batch, ranks)
        torch.save(found, folder / f"rank{ranks.rank}.pt")
        dist.barrier()
        return 0

    processes, outputs = fork_ranks(work, folder)
    codes = [wait_for(process, 30) for process in processes]
    assert codes == [0, 0], f"the ranks ended with {codes}: {[*map(last_lines, outputs)]}"
    first, second = (torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert torch.equal(first, second), "the ranks' gradients differ"
    return first


def _check(found: Tensor, whole: Tensor, largest: float, what: str) -> None:
    relative = float((found - whole).double().norm() / whole.double().norm())
    print(f"{what}: {relative:.2e}")
    assert relative <= largest, f"{what}: relative norm of the difference {relative:.2e}"


_SAME = (
    "accumulation and 2 ranks against one batch: fp64 within 1e-12, fp32 (SiLU for LeakyReLU, "
    "whose slope jumps) within 1e-6; uneven "
    "micro-batches, over the border of two epochs, all objects on one rank; one exchange a step"
)
TRIALS = [
    Property(
        partial(equal_gradients, generation=name),
        name=f"gradients_{name}",
        checked=_SAME if name == "yolov3" else "the same",
        full=50,
        quick=1,
    )
    for name in GENERATIONS
]
