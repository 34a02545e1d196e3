import json
import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from yolo.train.schedules import (
    Plateau,
    cosine_restarts,
    linear,
    one_cycle,
    step_schedule,
    warmup,
)


def rates_of(make_scheduler, steps, base_rate=1.0):
    """The rates that a scheduler of PyTorch's sets before each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_rate)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_steps_against_pytorch():
    schedule = step_schedule(milestones=(5, 12), factors=(1.0, 0.1, 0.01))
    expected = rates_of(lambda o: MultiStepLR(o, milestones=[5, 12], gamma=0.1), 20)
    assert [schedule(step) for step in range(20)] == pytest.approx(expected)


def test_steps_of_the_reference_run():
    schedule = step_schedule(
        milestones=(75_000, 100_000, 125_000), factors=(1, 0.5, 0.1, 0.05), warmup_steps=1000
    )
    at = {0: 1e-12, 499: 0.0625, 999: 1, 1000: 1, 74_999: 1, 75_000: 0.5, 99_999: 0.5}
    at |= {100_000: 0.1, 125_000: 0.05, 149_999: 0.05}
    assert {step: schedule(step) for step in at} == pytest.approx(at)


@pytest.mark.parametrize("t_mult", [1, 2, 3])
def test_cosine_against_pytorch(t_mult):
    base_rate, eta_min = 1e-4, 1e-6
    schedule = cosine_restarts(t_0=10, t_mult=t_mult, eta_min_ratio=eta_min / base_rate)
    expected = rates_of(
        lambda o: CosineAnnealingWarmRestarts(o, T_0=10, T_mult=t_mult, eta_min=eta_min),
        steps=200,
        base_rate=base_rate,
    )
    assert [base_rate * schedule(step) for step in range(200)] == pytest.approx(expected)


def test_cosine_restarts_exactly_at_the_ends_of_its_cycles():
    schedule = cosine_restarts(t_0=10_000, t_mult=2, eta_min_ratio=0.01)
    for restart in (0, 10_000, 30_000, 70_000, 150_000, 10_000 * (2**30 - 1)):
        assert schedule(restart) == 1.0
        assert restart == 0 or schedule(restart - 1) == pytest.approx(0.01, abs=1e-6)
    assert schedule(20_000) == pytest.approx(0.505)


def test_warmup_multiplies_without_moving_the_cosine():
    plain = cosine_restarts(t_0=8)
    warm = cosine_restarts(t_0=8, warmup_steps=4)
    expected = [plain(0) / 256, plain(1) / 16, plain(2) * 81 / 256, plain(3), plain(4)]
    assert [warm(step) for step in range(5)] == pytest.approx(expected)


def test_warmup_starts_above_zero_and_may_be_absent():
    assert warmup(0, 1000) > 0
    assert warmup(0, 0) == warmup(0, 1) == 1.0


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("steps", "share"), [(100, 0.3), (97, 0.25), (40, 0.9), (4, 0.5)])
def test_one_cycle_against_pytorch(shape, steps, share):
    schedule = one_cycle(steps=steps, warm_share=share, div=20, final_div=500, shape=shape)
    expected = rates_of(
        lambda o: OneCycleLR(
            o,
            max_lr=0.1,
            total_steps=steps,
            pct_start=share,
            div_factor=20,
            final_div_factor=500,
            anneal_strategy={"linear": "linear", "cosine": "cos"}[shape],
            cycle_momentum=False,
        ),
        steps,
    )
    rates = [0.1 * schedule(step) for step in range(steps)]
    assert rates == pytest.approx(expected, rel=1e-9)
    assert schedule(steps - 1) == 1 / (20 * 500)  # exactly


def test_one_cycle_by_hand():
    """Ten steps, the fifth is the peak: up by quarters, down by fifths."""
    schedule = one_cycle(steps=10, warm_share=0.5, div=5, final_div=2, shape="linear")
    rise, fall = [0.2, 0.4, 0.6, 0.8, 1.0], [0.82, 0.64, 0.46, 0.28, 0.1]
    assert [schedule(step) for step in range(10)] == pytest.approx(rise + fall)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_one_cycle_without_a_rise_begins_at_its_peak(share):
    schedule = one_cycle(steps=10, warm_share=share, div=4, final_div=25, shape="cosine")
    assert (schedule(0), schedule(9)) == (1.0, 0.01)
    assert one_cycle(steps=1, warm_share=share, div=4, final_div=25, shape="cosine")(0) == 1.0


def test_one_cycle_ends_at_its_lowest_rate_even_after_a_long_rise():
    schedule = one_cycle(steps=10, warm_share=0.95, div=4, final_div=25, shape="linear")
    assert schedule(9) == 0.01


def test_linear_against_pytorch():
    schedule = linear(steps=51, end_factor=0.2)
    expected = rates_of(
        lambda o: LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=50), steps=51
    )
    assert [schedule(step) for step in range(51)] == pytest.approx(expected)
    assert schedule(50) == 0.2
    assert linear(steps=1, end_factor=0.2)(0) == 1.0


def test_linear_rises_first():
    schedule = linear(steps=5, end_factor=0.0, warmup_steps=2)
    assert [schedule(step) for step in range(5)] == pytest.approx([1 / 16, 0.75, 0.5, 0.25, 0])


def histories():
    """Figures that rise, stall and fall in ties and tiny steps."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        figures = np.cumsum(rng.choice([-0.02, -1e-3, 0, 0, 5e-4, 1e-3, 0.03], size=60))
        yield rng, (figures + 0.3).round(6).tolist()


def test_plateau_against_pytorch():
    falls = 0
    for rng, figures in histories():
        figures[7] = math.nan
        settings = {"factor": float(rng.choice([0.1, 0.5])), "patience": int(rng.integers(0, 5))}
        threshold, lowest = float(rng.choice([0, 1e-3, 0.01])), float(rng.choice([0, 1e-3, 0.3]))
        plateau = Plateau(**settings, threshold=threshold, min_factor=lowest)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = ReduceLROnPlateau(
            optimizer,
            mode="max",
            threshold_mode="abs",
            threshold=threshold,
            min_lr=lowest,
            eps=0,
            **settings,
        )
        for figure in figures:
            plateau.note(figure)
            reference.step(figure)
            assert plateau(0) == pytest.approx(optimizer.param_groups[0]["lr"])
        falls += plateau(0) < 1
    assert falls > 20


def test_plateau_goes_on_from_its_state():
    """Patience 1: the second evaluation in a row without a better figure lowers the rate."""
    settings = {"factor": 0.5, "patience": 1, "threshold": 0.01, "min_factor": 0.3}
    first = Plateau(**settings, warmup_steps=2)
    first.note(0.5)
    first.note(0.51)  # not above 0.5 by more than 0.01
    second = Plateau(**settings, warmup_steps=2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    factors = []
    for figure in (0.4, 0.52, 0.4, 0.52, 0.4):
        second.note(figure)
        factors.append(second(9))
    assert factors == [0.5, 0.5, 0.5, 0.3, 0.3]
    assert second(0) == 0.3 / 16
    assert first(9) == 1.0
