import numpy as np
import torch

from yolo.detection.assign.best_anchor import Assignment, assign_best_anchor
from yolo.detection.assign.greedy import assign_greedily
from yolo.records import Targets

ANCHORS = torch.tensor([[[10.0, 10], [20, 20], [40, 40]]])
STRIDE, SIZE = 32, 96


def assign(rows: list[tuple], images: int = 2, by=assign_greedily) -> Assignment:
    """rows: (image, cx, cy, w, h in pixels, ignored)."""
    boxes_px = torch.tensor([row[1:5] for row in rows], dtype=torch.float32).reshape(-1, 4)
    index = [row[0] for row in rows]
    targets = Targets(
        boxes_cxcywh_norm=boxes_px / SIZE,
        labels=torch.zeros(len(rows), dtype=torch.int64),
        image_index=torch.tensor(index, dtype=torch.int64),
        ignored=torch.tensor([row[5] for row in rows], dtype=torch.bool),
        max_per_image=max(map(index.count, index), default=0),
    )
    return by(
        targets,
        boxes_px,
        anchors_px=ANCHORS,
        grids_hw=[(3, 3)],
        stride_px=[STRIDE],
        images=images,
    )


def test_by_hand() -> None:
    found = assign(
        [
            (0, 40, 40, 22, 22, False),  # 20 x 20 fits best, but truth 1 fits it better
            (0, 50, 50, 20, 20, False),
            (0, 45, 60, 9, 9, False),  # 10 x 10
            (0, 60, 45, 21, 20, False),  # no anchor is left
            (0, 60, 45, 40, 40, True),  # ignored: takes nothing
            (0, 10, 10, 22, 22, False),  # alone in its cell
            (1, 50, 50, 22, 22, False),  # alone in its image
        ]
    )
    # what 40 x 40 shares with truth 0, 484 / 1600, is more than with truth 3, 420 / 1600
    assert found.anchor.tolist()[:3] == [2, 1, 0]
    assert found.anchor.tolist()[5:] == [1, 1]
    assert found.owns.tolist() == [True, True, True, False, False, True, True]
    assert found.dropped.tolist() == [False] * 3 + [True] + [False] * 3
    assert found.owner.tolist() == [0, 1, 2, 7, 7, 5, 6]
    (owned,) = found.owned
    expected = [[0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1], [0, 2, 1, 1], [1, 1, 1, 1]]
    assert owned.nonzero().tolist() == expected


def test_equal_fits_go_to_the_earlier_truth_and_the_smaller_anchor() -> None:
    found = assign([(0, 40, 40, 20, 20, False)] * 4, images=1)
    assert found.anchor.tolist()[:3] == [1, 0, 2]  # 20 x 20 shares a quarter with both others
    assert found.dropped.tolist() == [False, False, False, True]


def test_as_darknet_where_every_cell_has_one_truth() -> None:
    rows = [
        (0, 16 + 32 * i, 16 + 32 * j, 9 + 4 * i, 12 + 7 * j, False) for i, j in np.ndindex(3, 3)
    ]
    greedy, best = assign(rows, images=1), assign(rows, images=1, by=assign_best_anchor)
    for name in ("level", "anchor", "row", "column", "owns", "owner", "dropped"):
        assert torch.equal(getattr(greedy, name), getattr(best, name)), name
    assert torch.equal(greedy.owned[0], best.owned[0]) and greedy.owns.all()


def test_many_truths_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    rows = [
        (i // 40, *generator.uniform(0, SIZE, 2), *generator.uniform(5, 60, 2), i % 7 == 0)
        for i in range(120)
    ]
    found = assign(rows, images=3)
    pairs = sorted(
        (-fit(row, anchor), t, a)
        for t, row in enumerate(rows)
        for a, anchor in enumerate(ANCHORS[0].tolist())
        if not row[5]
    )
    taken: dict[int, tuple[int, ...]] = {}
    for _, t, a in pairs:  # over all cells at once: they do not touch each other
        image, cx, cy = rows[t][:3]
        place = (image, a, int(cy / STRIDE), int(cx / STRIDE))
        if t not in taken and place not in taken.values():
            taken[t] = place
    assert found.owns.nonzero().flatten().tolist() == sorted(taken)
    assert {tuple(p) for p in found.owned[0].nonzero().tolist()} == set(taken.values())
    assert all(found.anchor[t] == place[1] for t, place in taken.items())
    assert int(found.dropped.sum()) == sum(not row[5] for row in rows) - len(taken) > 10


def fit(row, anchor) -> float:
    shared = min(row[3], anchor[0]) * min(row[4], anchor[1])
    return shared / (row[3] * row[4] + anchor[0] * anchor[1] - shared)


def test_nothing_to_assign() -> None:
    found = assign([], images=3)
    assert len(found.anchor) == len(found.dropped) == 0
    assert found.owned[0].shape == (3, 3, 3, 3) and not found.owned[0].any()
