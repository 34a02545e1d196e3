import torch

from yolo.detection.assign.first_in_cell import assign_first_in_cell
from yolo.records import Targets


def make_targets(rows):
    """rows: (image, cx, cy, ignored), sorted by image."""
    return Targets(
        boxes_cxcywh_norm=torch.tensor([[cx, cy, 0.1, 0.1] for _, cx, cy, _ in rows]),
        labels=torch.zeros(len(rows), dtype=torch.int64),
        image_index=torch.tensor([row[0] for row in rows]),
        ignored=torch.tensor([row[3] for row in rows]),
        max_per_image=len(rows),
    )


def test_cells_by_hand():
    rows = [
        (0, 0.3, 0.6, False),  # of 4 cells a side: row 2, column 1
        (0, 0.49, 0.51, False),  # the same cell, later
        (0, 0.5, 0.5, False),  # a centre on a border belongs to the cell behind it
        (0, 1.0, 1.0, False),  # but on the image's border to the last one
        (1, 0.3, 0.6, True),  # owns nothing
        (1, 0.3, 0.6, False),  # and leaves the cell to this one
        (1, 0.0, 0.0, True),
    ]
    found = assign_first_in_cell(make_targets(rows), cells=4, images=2)
    assert found.row.tolist() == [2, 2, 2, 3, 2, 2, 0]
    assert found.column.tolist() == [1, 1, 2, 3, 1, 1, 0]
    assert found.cell.tolist() == [9, 9, 10, 15, 25, 25, 16]
    assert found.owns.tolist() == [True, False, True, True, False, True, False]


def test_nothing_to_assign():
    empty = torch.zeros(0, dtype=torch.int64)
    targets = Targets(torch.zeros(0, 4), empty, empty, empty.bool(), max_per_image=0)
    assert assign_first_in_cell(targets, cells=7, images=2).owns.shape == (0,)
