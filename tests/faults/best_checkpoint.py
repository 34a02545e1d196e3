"""``best.pt`` is the argmax of what was logged, whatever the figures and wherever a kill comes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from tests.faults.tiny import check_whole
from tests.faults.trial import Property
from tests.train.toys import Notes, ToyEvaluator, trainer
from yolo.train import trainer as trainer_module
from yolo.train.checkpoint import link_checkpoint, load_checkpoint, save_checkpoint
from yolo.train.trainer import Trainer

PROPERTY = "10 Best checkpoint"
EVALUATIONS = 12


class Killed(BaseException):
    """Stands for the end of the process: nothing of the project catches it."""


class Remembering(ToyEvaluator):
    """Gives the figure of the step that the training has reached."""

    def __init__(self, history: list[float]) -> None:
        super().__init__()
        self._history = history
        self.training: Trainer | None = None

    def evaluate(self, model: Any, interruption: Any) -> Any:
        assert self.training is not None
        self._figures = [self._history[self.training.progress.step - 1]]
        self.seen.clear()
        return super().evaluate(model, interruption)


class Log(Notes):
    """Keeps the monitored figure by step, as metrics.jsonl does over the kills."""

    def __init__(self, logged: dict[int, float]) -> None:
        super().__init__()
        self._logged = logged

    def evaluation(self, step: int, figures: Any, pictures: Any) -> None:
        self._logged[step] = figures["toy"]


def histories(seed: int, folder: Path) -> None:
    """Random histories with ties, NaN, -Inf and kills before either file is written: best.pt is the
    argmax of the logged figure, of equals the earlier.
    """
    generator = random.Random(seed)
    levels = [-math.inf, math.nan, 0.0, 0.0, *(round(generator.random(), 1) for _ in range(4))]
    history = [generator.choice(levels) for _ in range(EVALUATIONS)]
    kills = set(generator.sample(range(1, 2 * EVALUATIONS), generator.randint(0, 4)))
    logged: dict[int, float] = {}
    while not _train(folder, history, logged, kills):
        check_whole(folder)
    _check(folder, history, logged)


def _train(folder: Path, history: list[float], logged: dict[int, float], kills: set[int]) -> bool:
    """Train from where the folder stands, up to the next kill; whether it came to the end."""
    evaluator = Remembering(history)
    run = trainer(folder, evaluator=evaluator, log=Log(logged), steps=EVALUATIONS, evaluate_every=1)
    evaluator.training = run
    with (
        mock.patch.object(trainer_module, "save_checkpoint", _dying(save_checkpoint, kills)),
        mock.patch.object(trainer_module, "link_checkpoint", _dying(link_checkpoint, kills)),
    ):
        try:
            if (folder / "last.pt").exists():
                run.load_state_dict(load_checkpoint(folder / "last.pt"))
            run.fit()
        except Killed:
            return False
    return True


def _dying(original: Callable[..., None], kills: set[int]) -> Callable[..., None]:
    """The saver itself, killed before it writes where its turn is among ``kills``."""

    def write(*arguments: Any) -> None:
        # every call counts one less for all; the turns of both writers lie in one row
        turns = {turn - 1 for turn in kills}
        kills.clear()
        kills.update(turn for turn in turns if turn > 0)
        if 0 in turns:
            raise Killed
        original(*arguments)

    return write


def _check(folder: Path, history: list[float], logged: dict[int, float]) -> None:
    assert len(logged) == EVALUATIONS
    assert all(repr(logged[i + 1]) == repr(figure) for i, figure in enumerate(history))
    numbers = [figure for figure in history if figure > -math.inf]  # neither NaN nor -Inf
    progress = load_checkpoint(folder / "last.pt")["progress"]
    assert progress["step"] == EVALUATIONS
    if not numbers:
        assert not (folder / "best.pt").exists() and progress["best_figure"] is None
        return
    expected = history.index(max(numbers)) + 1
    best = load_checkpoint(folder / "best.pt")["progress"]
    assert (best["step"], best["best_figure"]) == (expected, max(numbers)), f"{history}: {best}"
    assert (progress["best_step"], progress["best_figure"]) == (expected, max(numbers))


TRIALS = [
    Property(histories, full=200, quick=10),
]
