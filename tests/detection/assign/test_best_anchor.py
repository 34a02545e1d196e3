import numpy as np
import torch

from yolo.detection.assign.best_anchor import Assignment, assign_best_anchor
from yolo.records import Targets

ANCHORS = torch.tensor([[[10.0, 10], [20, 40]], [[50, 50], [90, 60]]])
STRIDES, SIZE = (16, 32), 96
GRIDS = [(6, 6), (3, 3)]


def assign(rows: list[tuple], images: int = 2) -> Assignment:
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
    return assign_best_anchor(
        targets,
        boxes_px,
        anchors_px=ANCHORS,
        grids_hw=GRIDS,
        stride_px=STRIDES,
        images=images,
    )


def owned(found: Assignment) -> set[tuple[int, ...]]:
    """(level, image, anchor, row, column)."""
    return {
        (level, *place)
        for level, flags in enumerate(found.owned)
        for place in flags.nonzero().tolist()
    }


def test_by_hand() -> None:
    found = assign(
        [
            (0, 50, 20, 11, 9, False),  # like 10 x 10: stride 16, cell (1, 3)
            (0, 50, 20, 80, 70, False),  # like 90 x 60: stride 32, cell (0, 1)
            (0, 40, 40, 60, 60, True),  # ignored: owns nothing
            (1, 96, 96, 18, 42, False),  # on the far corner: the last cell
            (1, 50, 50, 12, 10, False),  # the next one has its anchor and cell
            (1, 55, 60, 9, 10, False),
        ]
    )
    assert found.level.tolist()[:2] + found.level.tolist()[3:] == [0, 1, 0, 0, 0]
    assert found.anchor.tolist()[:2] + found.anchor.tolist()[3:] == [0, 1, 1, 0, 0]
    assert found.row.tolist()[:2] + found.row.tolist()[3:] == [1, 0, 5, 3, 3]
    assert found.column.tolist()[:2] + found.column.tolist()[3:] == [3, 1, 5, 3, 3]
    assert found.owns.tolist() == [True, True, False, True, False, True]
    assert found.owner.tolist() == [0, 1, 6, 3, 5, 5]  # 6: nobody
    assert owned(found) == {(0, 0, 0, 1, 3), (1, 0, 1, 0, 1), (0, 1, 1, 5, 5), (0, 1, 0, 3, 3)}


def test_nothing_to_assign() -> None:
    found = assign([], images=3)
    assert len(found.level) == len(found.owner) == 0
    assert [flags.shape for flags in found.owned] == [(3, 2, 6, 6), (3, 2, 3, 3)]
    assert not any(flags.any() for flags in found.owned)


def test_many_truths_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    rows = [
        (i // 40, *generator.uniform(0, SIZE, 2), *generator.uniform(5, 95, 2), i % 7 == 0)
        for i in range(120)
    ]
    found = assign(rows, images=3)
    holder: dict[tuple[int, ...], int] = {}
    for t, (image, cx, cy, w, h, ignored) in enumerate(rows):
        fits = []
        for aw, ah in ANCHORS.view(-1, 2).tolist():
            shared = min(w, aw) * min(h, ah)
            fits.append(shared / (w * h + aw * ah - shared))
        level, anchor = divmod(int(np.argmax(fits)), 2)
        place = (level, image, anchor, int(cy / STRIDES[level]), int(cx / STRIDES[level]))
        assert (found.level[t], found.anchor[t]) == (level, anchor)
        assert (found.row[t], found.column[t]) == place[3:]
        if not ignored:
            holder[place] = t  # the later truth wins
    assert owned(found) == set(holder)
    assert found.owns.nonzero().flatten().tolist() == sorted(holder.values())
    assert 0 < len(holder) < 100  # some were taken over
