from functools import partial

import numpy as np
import pytest
import torch

from tests.detection.losses.cases import make_targets
from yolo.detection.assign import (
    Assignment,
    assign_best_anchor,
    assign_by_ratio,
    assign_by_shape_iou,
    assign_first_in_cell,
    assign_greedily,
)
from yolo.detection.coders import AnchorCoder

SIZE = 96
TWO_MAPS = AnchorCoder(anchors_px=[[[10, 10], [20, 40]], [[50, 50], [90, 60]]], stride_px=(16, 32))
ONE_MAP = AnchorCoder(anchors_px=[[[10, 10], [20, 20], [40, 40]]], stride_px=(32,))


def assign(by, rows: list[tuple], coder: AnchorCoder, images: int) -> Assignment:
    """rows: (image, cx, cy, w, h in pixels, ignored), sorted by image."""
    boxes_px = torch.tensor([row[1:5] for row in rows], dtype=torch.float32).reshape(-1, 4)
    targets = make_targets([(i, *(v / SIZE for v in box), 0, skip) for i, *box, skip in rows])
    anchors = coder.anchors_px.shape[1]
    raw = [torch.zeros(images, anchors, SIZE // s, SIZE // s, 6) for s in coder.stride_px]
    return by(targets, boxes_px, coder, raw)


def best(rows: list[tuple], coder: AnchorCoder = TWO_MAPS, images: int = 2) -> Assignment:
    return assign(assign_best_anchor, rows, coder, images)


def greedy(rows: list[tuple], images: int = 2) -> Assignment:
    return assign(assign_greedily, rows, ONE_MAP, images)


def owned(found: Assignment) -> set[tuple[int, ...]]:
    """(level, image, anchor, row, column)."""
    maps = enumerate(found.owned)
    return {(level, *place) for level, flags in maps for place in flags.nonzero().tolist()}


def many_truths(largest: int) -> list[tuple]:
    generator = np.random.default_rng(0)
    return [
        (i // 40, *generator.uniform(0, SIZE, 2), *generator.uniform(5, largest, 2), i % 7 == 0)
        for i in range(120)
    ]


def fit(row: tuple, anchor: list[float]) -> float:
    """Shape IoU."""
    shared = min(row[3], anchor[0]) * min(row[4], anchor[1])
    return shared / (row[3] * row[4] + anchor[0] * anchor[1] - shared)


def test_best_anchor_by_hand() -> None:
    found = best(
        [
            (0, 50, 20, 11, 9, False),  # like 10 x 10: stride 16, cell (1, 3)
            (0, 50, 20, 80, 70, False),  # like 90 x 60: stride 32, cell (0, 1)
            (0, 40, 40, 60, 60, True),  # ignored: owns nothing
            (1, 96, 96, 18, 42, False),  # on the far corner: the last cell
            (1, 50, 50, 12, 10, False),  # the next one has its anchor and cell
            (1, 55, 60, 9, 10, False),
        ]
    )
    places = torch.stack((found.level, found.anchor, found.row, found.column), dim=1).tolist()
    assert places[:2] == [[0, 0, 1, 3], [1, 1, 0, 1]]
    assert places[3:] == [[0, 1, 5, 5], [0, 0, 3, 3], [0, 0, 3, 3]]
    assert found.owns.tolist() == [True, True, False, True, False, True]
    assert found.owner.tolist() == [0, 1, 6, 3, 5, 5]  # 6: nobody
    assert owned(found) == {(0, 0, 0, 1, 3), (1, 0, 1, 0, 1), (0, 1, 1, 5, 5), (0, 1, 0, 3, 3)}


def test_best_anchor_of_many_truths_against_a_loop() -> None:
    rows = many_truths(95)
    found = best(rows, images=3)
    holder: dict[tuple[int, ...], int] = {}
    for t, row in enumerate(rows):
        fits = [fit(row, anchor) for anchor in TWO_MAPS.anchors_px.view(-1, 2).tolist()]
        level, anchor = divmod(int(np.argmax(fits)), 2)
        stride = TWO_MAPS.stride_px[level]
        place = (level, row[0], anchor, int(row[2] / stride), int(row[1] / stride))
        assert (found.level[t], found.anchor[t]) == (level, anchor)
        assert (found.row[t], found.column[t]) == place[3:]
        if not row[5]:
            holder[place] = t  # the later truth wins
    assert owned(found) == set(holder)
    assert found.owns.nonzero().flatten().tolist() == sorted(holder.values())
    assert 0 < len(holder) < 100  # some were taken over


def test_greedy_by_hand() -> None:
    found = greedy(
        [
            (0, 40, 40, 22, 22, False),  # 20 x 20 fits best, but truth 1 fits it better
            (0, 50, 50, 20, 20, False),
            (0, 45, 60, 9, 9, False),  # 10 x 10
            (0, 60, 45, 21, 20, False),  # no anchor is left
            (0, 60, 45, 40, 40, True),  # ignored: takes nothing
            (0, 10, 10, 22, 22, False),  # the only one in its cell
            (1, 50, 50, 22, 22, False),  # the only one in its image
        ]
    )
    # what 40 x 40 shares with truth 0, 484 / 1600, is more than with truth 3, 420 / 1600
    assert found.anchor.tolist()[:3] == [2, 1, 0]
    assert found.anchor.tolist()[5:] == [1, 1]
    assert found.owns.tolist() == [True, True, True, False, False, True, True]
    assert found.dropped.tolist() == [False] * 3 + [True] + [False] * 3
    assert found.owner.tolist() == [0, 1, 2, 7, 7, 5, 6]
    expected = [[0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1], [0, 2, 1, 1], [1, 1, 1, 1]]
    assert found.owned[0].nonzero().tolist() == expected


def test_equal_fits_go_to_the_earlier_truth_and_the_smaller_anchor() -> None:
    found = greedy([(0, 40, 40, 20, 20, False)] * 4, images=1)
    assert found.anchor.tolist()[:3] == [1, 0, 2]  # 20 x 20 shares a quarter with both others
    assert found.dropped.tolist() == [False, False, False, True]


def test_greedy_is_darknets_where_every_cell_has_one_truth() -> None:
    rows = [
        (0, 16 + 32 * i, 16 + 32 * j, 9 + 4 * i, 12 + 7 * j, False) for i, j in np.ndindex(3, 3)
    ]
    one, other = greedy(rows, images=1), best(rows, ONE_MAP, images=1)
    for name in ("level", "anchor", "row", "column", "owns", "owner", "dropped"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(one.owned[0], other.owned[0]) and one.owns.all()


def test_greedy_of_many_truths_against_a_loop() -> None:
    rows = many_truths(60)
    found = greedy(rows, images=3)
    pairs = sorted(
        (-fit(row, anchor), t, a)
        for t, row in enumerate(rows)
        for a, anchor in enumerate(ONE_MAP.anchors_px[0].tolist())
        if not row[5]
    )
    taken: dict[int, tuple[int, ...]] = {}
    for _, t, a in pairs:  # over all cells at once: they do not touch each other
        image, cx, cy = rows[t][:3]
        place = (0, image, a, int(cy / 32), int(cx / 32))
        if t not in taken and place not in taken.values():
            taken[t] = place
    assert found.owns.nonzero().flatten().tolist() == sorted(taken)
    assert owned(found) == set(taken.values())
    assert all(found.anchor[t] == place[2] for t, place in taken.items())
    assert int(found.dropped.sum()) == sum(not row[5] for row in rows) - len(taken) > 10


def pairs(found: Assignment, rows: list[tuple]) -> list[tuple[int, tuple[int, ...]]]:
    """Truth and place (level, image, anchor, row, column) of each pair that owns it."""
    columns = (found.truth, found.level, found.anchor, found.row, found.column)
    return [
        (t, (level, rows[t][0], *place))
        for t, level, *place in torch.stack(columns, dim=1)[found.owns].tolist()
    ]


def by_iou(rows: list[tuple], images: int = 3) -> Assignment:
    return assign(partial(assign_by_shape_iou, threshold=0.4), rows, TWO_MAPS, images)


def by_ratio(rows: list[tuple], images: int = 3) -> Assignment:
    return assign(partial(assign_by_ratio, factor=2.5), rows, TWO_MAPS, images)


def assert_later_pairs_win(found: Assignment, rows: list[tuple], wanted: list[tuple]) -> None:
    """``wanted`` are the truths and places that a rule asks for, truth after truth."""
    holder = {place: t for t, place in wanted}
    assert sorted(pairs(found, rows)) == sorted((t, place) for place, t in holder.items())
    assert owned(found) == set(holder)
    without = [t for t, row in enumerate(rows) if not row[5] and t not in holder.values()]
    assert found.dropped.nonzero().flatten().tolist() == without
    assert len(wanted) > len(holder) > 20, "some places were wanted twice"
    assert without and len(set(holder.values())) < len(holder), "some truths have several places"


def test_anchors_above_an_iou_against_a_loop() -> None:
    rows, wanted = many_truths(95), []
    anchors = TWO_MAPS.anchors_px.view(-1, 2).tolist()
    for t, row in enumerate(rows):
        fits = [fit(row, anchor) for anchor in anchors]
        for index, value in enumerate(fits):
            if not row[5] and (value > 0.4 or value == max(fits)):
                level, anchor = divmod(index, 2)
                stride = TWO_MAPS.stride_px[level]
                cell = int(row[2] / stride), int(row[1] / stride)
                wanted.append((t, (level, row[0], anchor, *cell)))
    assert_later_pairs_win(by_iou(rows), rows, wanted)


def test_anchors_within_a_ratio_against_a_loop() -> None:
    rows, wanted, unfit = many_truths(95), [], 0
    for t, (image, x, y, w, h, ignored) in enumerate(rows):
        worst = [
            max(w / anchor_w, anchor_w / w, h / anchor_h, anchor_h / h)
            for anchor_w, anchor_h in TWO_MAPS.anchors_px.view(-1, 2).tolist()
        ]
        unfit += min(worst) >= 2.5  # these have the nearest anchor
        for level, anchor in np.ndindex(2, 2):
            if ignored or worst[2 * level + anchor] >= max(2.5, min(worst) + 1e-6):
                continue
            cells = SIZE // TWO_MAPS.stride_px[level]
            column, x_within = divmod(x / TWO_MAPS.stride_px[level], 1)
            row, y_within = divmod(y / TWO_MAPS.stride_px[level], 1)
            left_or_right = column - 1 if x_within < 0.5 else column + 1
            above_or_below = row - 1 if y_within < 0.5 else row + 1
            near = [(row, column), (row, left_or_right), (above_or_below, column)]
            places = [cell for cell in near if min(cell) >= 0 and max(cell) < cells]
            wanted += [(t, (level, image, anchor, *map(int, cell))) for cell in places]
    assert_later_pairs_win(by_ratio(rows), rows, wanted)
    assert unfit > 5


@pytest.mark.parametrize("rule", [by_iou, by_ratio])
def test_no_truth_of_another_image_changes_a_pair(rule) -> None:
    rows = [row for row in many_truths(95) if row[0] == 1]
    alone, among = rule(rows), rule(many_truths(95))
    before = sum(row[0] == 0 for row in many_truths(95))
    mine = [(t - before, place) for t, place in pairs(among, many_truths(95)) if place[1] == 1]
    assert pairs(alone, rows) == mine


@pytest.mark.parametrize(
    ("find", "shapes"),
    [(rule, [(3, 2, 6, 6), (3, 2, 3, 3)]) for rule in (by_iou, by_ratio)],
)
def test_nothing_and_only_ignored_truths_to_assign(find, shapes) -> None:
    for rows in ([], [(0, 40, 40, 60, 60, True)]):
        found = find(rows, images=3)
        assert len(found.dropped) == len(rows) and not found.dropped.any()
        assert not found.owns.any() and (found.owner == len(found.truth)).all()
        assert [flags.shape for flags in found.owned] == shapes
        assert not any(flags.any() for flags in found.owned)


@pytest.mark.parametrize(
    ("find", "shapes"), [(best, [(3, 2, 6, 6), (3, 2, 3, 3)]), (greedy, [(3, 3, 3, 3)])]
)
def test_nothing_to_assign(find, shapes) -> None:
    found = find([], images=3)
    assert len(found.level) == len(found.anchor) == len(found.owner) == len(found.dropped) == 0
    assert [flags.shape for flags in found.owned] == shapes
    assert not any(flags.any() for flags in found.owned)
    assert assign_first_in_cell(make_targets([]), cells=7, images=2).owns.shape == (0,)


def test_first_in_cell_by_hand() -> None:
    rows = [
        (0, 0.3, 0.6, False),  # of 4 cells a side: row 2, column 1
        (0, 0.49, 0.51, False),  # the same cell, later
        (0, 0.5, 0.5, False),  # a centre on a border belongs to the cell behind it
        (0, 1.0, 1.0, False),  # but on the image's border to the last one
        (1, 0.3, 0.6, True),  # owns nothing
        (1, 0.3, 0.6, False),  # and leaves the cell to this one
        (1, 0.0, 0.0, True),
    ]
    targets = make_targets([(*row[:3], 0.1, 0.1, 0, row[3]) for row in rows])
    found = assign_first_in_cell(targets, cells=4, images=2)
    assert found.row.tolist() == [2, 2, 2, 3, 2, 2, 0]
    assert found.column.tolist() == [1, 1, 2, 3, 1, 1, 0]
    assert found.cell.tolist() == [9, 9, 10, 15, 25, 25, 16]
    assert found.owns.tolist() == [True, False, True, True, False, True, False]
