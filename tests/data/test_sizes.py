from __future__ import annotations

from collections import Counter

from yolo.data.sizes import FixedSize, RandomSizes

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
    assert FixedSize(96)(7) == 96


def test_known_sizes() -> None:
    """A change here would break resuming older runs."""
    known = [320, 416, 416, 320, 416, 384]
    assert [sizes()(step) for step in range(0, 60, 10)] == known
