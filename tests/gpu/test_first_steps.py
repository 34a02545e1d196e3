"""Thirty steps of every generation and encoder in every number format."""

import itertools
from dataclasses import replace

import pytest
import torch

from tests.detectors import ONE_RANK
from tests.gpu.device import DEVICE, RANKS, only_cuda
from tests.gpu.learners import CASES, GENERATIONS, STEPS, make_batch, make_learner, train
from yolo.models.necks import NECKS
from yolo.train.precision import Precision, precision_by_rule

pytestmark = pytest.mark.gpu

LEARNT = 0.9
"""The last losses over the first one, at most: thirty steps on the same eight images."""

FIRST, EARLY, LATE = 1e-4, 0.03, 0.15
"""How far a loss in fp32 may be from the CPU's, in first losses: of the first step, of the next
four, and of the last. Rounding, batch norm over few numbers and Adam drive two trainings apart: on
a CPU, with the weights in another memory layout, by 3e-7, 8e-3 and 2e-2 at most."""

COMPARED = (*GENERATIONS, "darknet53", "mobilenet_v3_small")


def test_every_neck_is_tried() -> None:
    assert {case.neck for case in CASES.values()} == set(NECKS)


def precision_named(name: str) -> Precision:
    """``auto`` as a GPU has it; a CPU that would measure takes bf16."""
    return precision_by_rule(name, DEVICE) or Precision("bf16")


OTHER_FORMATS = itertools.product(COMPARED, ["fp16", "bf16"])


@pytest.mark.parametrize(("name", "form"), [*((name, "auto") for name in CASES), *OTHER_FORMATS])
def test_a_training_is_finite_and_learns(name: str, form: str) -> None:
    precision, case = precision_named(form), CASES[name]
    if form == "bf16" and precision_named("auto").name == form:
        pytest.skip("auto is bf16 here")
    learner = make_learner(case, precision)
    losses = train(learner, make_batch(case))
    assert len(losses) > STEPS / 2 and len(losses) >= STEPS * (precision.name == "bf16")
    assert sum(losses[-5:]) / 5 < LEARNT * losses[0], losses
    assert all(p.isfinite().all() for p in learner.model.parameters())


@pytest.mark.parametrize("name", COMPARED)
def test_losses_in_fp32_are_the_cpus(name: str) -> None:
    case = CASES[name]
    ours, theirs = (
        train(make_learner(case, ranks=ranks), make_batch(case)) for ranks in (RANKS, ONE_RANK)
    )
    apart = [abs(a - b) / theirs[0] for a, b in zip(ours, theirs, strict=True)]
    print(f"{name}: apart {apart[0]:.1e}, {max(apart[:5]):.1e}, {max(apart):.1e}")
    assert apart[0] <= FIRST and max(apart[:5]) <= EARLY and max(apart) <= LATE, apart
    assert sum(ours[-5:]) / 5 < LEARNT * ours[0], ours


@pytest.mark.parametrize("name", GENERATIONS)
def test_truths_that_are_none_or_alone(name: str) -> None:
    """Empty tensors have kernels of their own to start, or none."""
    learner, batch = make_learner(GENERATIONS[name]), make_batch(GENERATIONS[name])
    for kept in (0, 1):
        columns = ("boxes_cxcywh_norm", "labels", "image_index", "ignored")
        few = {column: getattr(batch.targets, column)[:kept] for column in columns}
        targets = replace(batch.targets, **few, max_per_image=kept)
        result = learner.step(kept, iter([replace(batch, targets=targets)]), 1)
        assert not result.faults and all(term.isfinite() for term in result.terms.values())


@only_cuda
def test_auto_is_what_the_gpu_computes_natively() -> None:
    native = torch.cuda.get_device_capability(DEVICE) >= (8, 0)
    assert precision_named("auto").name == ("bf16" if native else "fp16")
