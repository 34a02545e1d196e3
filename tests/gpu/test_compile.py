"""The same steps under torch.compile."""

import pytest
import torch

from tests.gpu.device import DEVICE
from tests.gpu.learners import GENERATIONS, IMAGES, STEPS, Case, make_batch, make_learner, train
from tests.gpu.test_first_steps import EARLY, LEARNT, precision_named
from yolo.train.learner import Learner
from yolo.train.precision import Precision

pytestmark = pytest.mark.gpu


def compiled(case: Case, precision: Precision) -> Learner:
    torch.compiler.reset()
    learner = make_learner(case, precision)
    learner.model.compile()
    return learner


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_compiled_training_is_finite_and_learns(name: str) -> None:
    case = GENERATIONS[name]
    losses = train(compiled(case, precision_named("auto")), make_batch(case))
    assert len(losses) > STEPS / 2 and sum(losses[-5:]) / 5 < LEARNT * losses[0], losses


def test_the_first_losses_in_fp32_are_those_without_it() -> None:
    case, steps = GENERATIONS["yolov3"], 5
    ours, theirs = (
        train(learner, make_batch(case), steps)
        for learner in (compiled(case, Precision("fp32")), make_learner(case))
    )
    apart = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    assert apart[0] <= EARLY / 10 and max(apart) <= EARLY, apart


def test_fp16_and_its_scaler_train_compiled() -> None:
    """A step that the scaler gives up is looked into without compiling anew."""
    case = GENERATIONS["yolov3"]
    losses = train(compiled(case, Precision("fp16")), make_batch(case))
    assert len(losses) > STEPS / 2 and sum(losses[-5:]) / 5 < LEARNT * losses[0], losses


def test_evaluation_takes_a_smaller_last_batch_of_a_compiled_network() -> None:
    case = GENERATIONS["yolov3"]
    learner = compiled(case, Precision("fp32"))
    train(learner, make_batch(case), 1)
    model = learner.model.eval()
    images = make_batch(case).images.to(DEVICE)
    with torch.inference_mode():
        whole, part = model(images), model(images[: IMAGES // 2 - 1])
        torch.compiler.reset()
        plain = model.forward(images)
    for ours, few, theirs in zip(whole, part, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(few, theirs[: len(few)], rtol=1e-3, atol=1e-3)
