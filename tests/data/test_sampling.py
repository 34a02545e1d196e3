from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from yolo.data.annotations import Annotations
from yolo.data.sampling import RandomSizes, SampleKey, SampleOrder, StepSampler, repeat_factors


def flat(lists: Iterable[list[SampleKey]]) -> list[SampleKey]:
    return list(chain.from_iterable(lists))


def sampler_of(*, length: int = 10, **settings: Any) -> StepSampler:
    given = {"batch_size": 8, "micro_batch_size": 3, "size_px": lambda step: 64} | settings
    return StepSampler(order=SampleOrder(length=length, seed=3), **given)


def positions(order: SampleOrder, count: int) -> list[tuple[int, int, int]]:
    return [order.at(position) for position in range(count)]


def steps(count: int, **settings: Any) -> list[list[SampleKey]]:
    """The images of each of ``count`` steps, over all micro-batches of one rank."""
    start = settings.pop("start_step", 0)
    sampler = sampler_of(**settings)
    batches = sampler.from_step(start)
    per_step = sampler.micro_batches_per_step
    return [flat(islice(batches, per_step)) for _ in range(count)]


def test_each_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    stream = positions(SampleOrder(length=50, seed=1), 150)
    epochs = [[i for e, _, i in stream if e == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [at[:2] for at in stream] == [divmod(position, 50) for position in range(150)]


def test_the_order_is_a_function_of_seed_and_position() -> None:
    stream = positions(SampleOrder(length=7, seed=1), 70)
    backwards = [SampleOrder(length=7, seed=1).at(position) for position in reversed(range(70))]
    assert backwards[::-1] == stream
    assert positions(SampleOrder(length=7, seed=2), 70) != stream


def test_repeats_come_as_often_as_their_factor_on_average() -> None:
    factors = np.array([1.0, 1.25, 2.0, 3.5])
    order = SampleOrder(length=4, seed=0, repeat_factors=factors)
    counts = np.array([np.bincount(order.of_epoch(e), minlength=4) for e in range(2000)])
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    np.testing.assert_allclose(counts.mean(axis=0), factors, atol=0.05)


def test_repeats_of_varying_epochs_are_still_a_function_of_the_position() -> None:
    factors = np.array([1.0, 1.5, 1.5, 2.5])
    order = SampleOrder(length=4, seed=0, repeat_factors=factors)
    expected = [(e, p, i) for e in range(40) for p, i in enumerate(order.of_epoch(e).tolist())]
    assert positions(order, len(expected)) == expected
    fresh = SampleOrder(length=4, seed=0, repeat_factors=factors)
    assert fresh.at(len(expected) - 1) == expected[-1]
    assert fresh.at(3) == expected[3]


def test_repeat_factors_by_hand() -> None:
    # Class 0 in 4 of 4 images, class 1 in 1 of 4 (twice there), class 2 only as a crowd.
    annotations = Annotations.pack(
        image_ids=np.arange(4),
        file_names=list("abcd"),
        sizes_hw=np.full((4, 2), 9),
        image_index=np.array([0, 1, 2, 3, 3, 3, 0]),
        boxes_xyxy_px=np.ones((7, 4)),
        labels=np.array([0, 0, 0, 0, 1, 1, 2]),
        ignored=np.array([False] * 6 + [True]),
    )
    np.testing.assert_allclose(repeat_factors(annotations, 0.64), [1, 1, 1, 1.6])
    assert repeat_factors(annotations, 0.001).tolist() == [1, 1, 1, 1]
    assert repeat_factors(annotations.subset([]), 0.1).tolist() == []


def test_batches_span_epochs_and_drop_nothing() -> None:
    keys = flat(steps(5))
    assert [key.epoch for key in keys] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10
    assert sorted(key.index for key in keys) == sorted(list(range(10)) * 4)
    assert {key.size_px for key in keys} == {64}
    (step,) = steps(1, length=3)  # fewer than in a batch
    assert [key.epoch for key in step] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_micro_batches_are_cut_from_the_rank_share() -> None:
    for micro_batch_size, lengths in ((3, [3, 3, 2, 3, 3, 2]), (99, [8, 8])):
        batches = sampler_of(micro_batch_size=micro_batch_size).from_step(0)
        assert [len(batch) for batch in islice(batches, len(lengths))] == lengths


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_ranks_together_take_what_one_takes(world_size: int) -> None:
    single = steps(4)
    ranks = [steps(4, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(4):
        assert flat(rank[step] for rank in ranks) == single[step]
        sizes = [len(rank[step]) for rank in ranks]
        assert max(sizes) - min(sizes) <= 1


def test_resuming_gives_the_tail() -> None:
    assert steps(3, start_step=4) == steps(7)[4:]


def mixing(count: int = 6, **settings: Any) -> list[SampleKey]:
    return flat(steps(count, **({"mixes_until": 99} | settings)))


def test_neighbours_are_the_others_of_the_block_within_the_epoch() -> None:
    """40 images, blocks of 16: places 0-15, 16-31, 32-39, then of the next epoch 0-7, 8-23."""
    keys = mixing(10, length=40)
    for start, end in ((0, 16), (16, 32), (32, 40), (40, 48), (48, 64), (64, 80)):
        block = keys[start:end]
        for key in block:
            others = [other.index for other in block if other is not key]
            assert sorted(key.neighbours) == sorted(others)


def test_an_image_that_an_epoch_repeats_is_one_neighbour_and_none_of_itself() -> None:
    order = SampleOrder(length=2, seed=0, repeat_factors=np.array([1.0, 5.0]))
    for position in range(12):
        (*_, index), around = order.at(position), order.neighbours(position)
        assert set(around) == {1 - index}
    assert SampleOrder(length=1, seed=0).neighbours(4) == (0,)
    places = [key.place for key in flat(steps(4, length=3))]
    assert places == [position % 3 for position in range(32)]
    fours = SampleOrder(length=4, seed=0, repeat_factors=np.full(4, 4.0))
    assert sorted(fours.of_epoch(0).tolist()) == sorted([0, 1, 2, 3] * 4)
    for position in range(16):
        others = {0, 1, 2, 3} - {fours.at(position)[2]}
        assert sorted(fours.neighbours(position)) == sorted(others)


def test_mixing_stops_at_its_step() -> None:
    keys = mixing(6, mixes_until=5)
    assert [key.step for key in keys] == [step for step in range(6) for _ in range(8)]
    assert [bool(key.neighbours) for key in keys] == [True] * 40 + [False] * 8


def test_all_images_of_a_step_have_its_size_on_every_rank() -> None:
    sizes = RandomSizes(sides_px=(320, 352, 384), every=2, seed=4, until_step=9, final_px=64)
    expected = [sizes(step) for step in range(12)]
    assert len(set(expected)) == 4
    for rank in (0, 1):
        shares = steps(12, rank=rank, world_size=2, size_px=sizes)
        assert [{key.size_px for key in share} for share in shares] == [{s} for s in expected]


def test_the_size_of_micro_batches_changes_no_sample() -> None:
    expected = mixing(micro_batch_size=8)
    for micro_batch_size in (1, 3, 99):
        assert mixing(micro_batch_size=micro_batch_size) == expected


SIDES = (320, 352, 384, 416)


def sizes(**changes: object) -> RandomSizes:
    given = {"sides_px": SIDES, "every": 10, "seed": 3, "until_step": None, "final_px": 400}
    return RandomSizes(**(given | changes))  # type: ignore[arg-type]


def test_a_size_stays_for_some_steps_and_is_a_function_of_seed_and_step() -> None:
    drawn = [sizes()(step) for step in range(4000)]
    assert drawn == [drawn[step // 10 * 10] for step in range(4000)]
    assert drawn != [sizes(seed=4)(step) for step in range(4000)]
    counts = Counter(drawn[::10])
    assert set(counts) == set(SIDES)
    assert min(counts.values()) > 70  # of 100 each


def test_from_a_step_on_the_size_is_fixed() -> None:
    assert [sizes(until_step=25)(step) for step in (25, 26, 999)] == [400] * 3
    assert sizes(until_step=25)(24) == sizes()(24) != 400


def test_known_order_and_sizes() -> None:
    """numpy promises that PCG64's stream stays; a change here would break resuming older runs."""
    assert SampleOrder(length=8, seed=0).of_epoch(0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
    known = [320, 416, 416, 320, 416, 384]
    assert [sizes()(step) for step in range(0, 60, 10)] == known
