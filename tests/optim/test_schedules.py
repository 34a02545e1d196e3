import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, MultiStepLR

from yolo.optim.schedules import cosine_restarts, step_schedule, warmup


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
