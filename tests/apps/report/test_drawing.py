from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yolo.apps.report import drawing
from yolo.apps.report.drawing import class_colour, draw_boxes, draw_tile, save_image, shrink
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Detections, Sample


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(axis=-1)


def test_a_box_is_drawn_at_its_place_in_its_colour_on_a_copy() -> None:
    image = grey(240, 320)
    drawn = draw_boxes(image, np.array([[40.0, 60, 140, 160]]), np.array([1]), ("cat", "dog"))
    assert (image == 90).all()
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    changed = (drawn != 90).any(axis=-1)
    assert changed[:, 40].sum() >= 100 and changed[100, 139]
    assert not changed[75:150, 45:130].any()  # the inside stays visible
    assert has_colour(drawn, class_colour(1)).sum() > 300
    assert not has_colour(drawn, class_colour(0)).any()


def test_colours_are_distinct() -> None:
    colours = np.array([class_colour(label) for label in range(80)], dtype=float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    np.fill_diagonal(distances, 999)
    assert distances.min() > 8
    assert distances[:6, :6].min() > 60


def test_an_ignored_region_looks_different() -> None:
    arguments = (grey(200, 200), np.array([[20.0, 40, 180, 180]]), np.array([0]), ("crowd",))
    ordinary = draw_boxes(*arguments, ignored=np.array([False]))
    hatched = draw_boxes(*arguments, ignored=np.array([True]))
    inside = np.s_[60:170, 30:170]
    assert (ordinary[inside] == 90).all()
    assert 0.05 < (hatched[inside] != 90).any(axis=-1).mean() < 0.6
    outline = has_colour(hatched[100:160, 20:22], class_colour(0)).any(axis=1)
    assert 0.2 < outline.mean() < 0.9  # dashed


@pytest.mark.parametrize("size", [(1, 1), (33, 500), (256, 256), (1280, 960)])
def test_any_size_any_name_any_box(size: tuple[int, int]) -> None:
    height, width = size
    names = ("łódź", "кошка", "猫 🐱", "", "two\nlines", "x" * 400)
    size_wh = np.array([width, height])
    nan, inf = float("nan"), float("inf")
    ends = [(0 * size_wh, size_wh), (0 * size_wh - 50, 2 * size_wh), (size_wh / 2, size_wh / 2)]
    ends += [(size_wh, size_wh + 5), ((nan, 0), (1, 1)), ((0, 0), (inf, 1))]
    boxes = np.array([[*low, *high] for low, high in ends])
    ignored = np.array([True, False, True, False, True, False])
    scores = np.linspace(1, 0, 6)
    drawn = draw_boxes(grey(*size), boxes, np.arange(6), names, scores=scores, ignored=ignored)
    assert drawn.shape == (*size, 3)
    assert (drawn != 90).any()
    nothing = draw_boxes(grey(*size), np.zeros((0, 4)), np.zeros(0, np.int64), names)
    assert (nothing == 90).all()


def test_letters_beyond_ascii_are_written() -> None:
    box, label = np.array([[5.0, 40, 190, 75]]), np.array([0])
    names = ("łódź", "кошка", "Größe", "\ue000\ue001\ue002\ue003")
    tags = [draw_boxes(grey(80, 200), box, label, (name,))[20:40] for name in names]
    assert len({tag.tobytes() for tag in tags}) == 4


def test_the_best_box_is_on_top() -> None:
    boxes = torch.tensor([[20.0, 50, 120, 150]] * 2)
    found = Detections(boxes, torch.tensor([0.9, 0.3]), torch.tensor([0, 1]))
    drawn = drawing.draw_detections(grey(160, 160), found, ("cat", "dog"))
    assert has_colour(drawn, class_colour(0)).any()
    assert not has_colour(drawn[60:], class_colour(1)).any()


def test_truth_beside_prediction() -> None:
    box = np.array([[10, 40, 90, 110]], np.float32)
    sample = Sample(grey(120, 100), box, np.array([0]), np.array([False]), 1, (120, 100))
    truth = draw_boxes(sample.image, sample.boxes_xyxy_px, sample.labels, ("cat",))
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    pair = drawing.EvaluationPictures().draw(sample, found, ("cat",))
    title_px = pair.shape[0] - 120
    assert title_px > 8
    np.testing.assert_array_equal(pair[title_px:, :100], truth)
    np.testing.assert_array_equal(pair[title_px:, -100:], sample.image)
    titles = pair[:title_px, :100], pair[:title_px, -100:]
    assert all((title != FILL_COLOUR_RGB).any() for title in titles)


def test_contact_sheet_centres_images_in_equal_cells() -> None:
    images = [grey(20, 40), grey(30, 10), grey(30, 40) + 50]
    sheet = drawing.contact_sheet(images, columns=2)
    assert sheet.shape == (30 + 4 + 30, 40 + 4 + 40, 3)
    assert (sheet[5:25, :40] == 90).all() and (sheet[:5, :40] == FILL_COLOUR_RGB).all()
    assert (sheet[:30, 59:69] == 90).all()
    assert (sheet[34:, :40] == 140).all() and (sheet[34:, 44:] == FILL_COLOUR_RGB).all()
    assert drawing.contact_sheet(images[:1], columns=5).shape == (20, 40, 3)
    with pytest.raises(ValueError, match="at least one image"):
        drawing.contact_sheet([], columns=2)


def test_save_image_writes_rgb_whole_or_not_at_all(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "new" / "picture.png"
    save_image(path, image)
    np.testing.assert_array_equal(cv2.imread(str(path))[:, :, ::-1], image)
    save_image(path, image[:10])
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
    with pytest.raises(UserError, match=r"picture\.doc: .*suffix '\.doc'; name the file \.png"):
        save_image(tmp_path / "picture.doc", image)
    (tmp_path / "folder.png").mkdir()
    for place in (tmp_path / "folder.png", path / "below-a-file.png"):
        with pytest.raises(UserError, match=f"{place.name}: the image cannot be written"):
            save_image(place, image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "new"]
    save_image(path.with_suffix(".jpg"), np.zeros((131_000, 8, 3), np.uint8))  # many pictures
    assert cv2.imread(str(path.with_suffix(".jpg"))).shape == (65_500, 4, 3)


def tile_of(image: np.ndarray, boxes: np.ndarray, *, side_px: int, title: str = "") -> np.ndarray:
    """With boxes of class 0, which has no name."""
    return draw_tile(image, boxes, np.zeros(len(boxes), int), ("",), side_px=side_px, title=title)


@pytest.mark.parametrize("size_hw", [(8, 12), (20, 900), (900, 20), (1500, 2000), (240, 240)])
def test_a_tile_has_the_box_around_the_object(size_hw: tuple[int, int]) -> None:
    """A white object of a quarter of each side, found again in the tile, with its box around it."""
    height, width = size_hw
    x1, y1, x2, y2 = width // 4, height // 2, width // 2, height * 3 // 4
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    box = np.array([[x1, y1, x2, y2]])
    bare, tile = tile_of(image, box[:0], side_px=240), tile_of(image, box, side_px=240)
    assert tile.shape == bare.shape and tile.shape[1] == 240
    rows, columns = np.nonzero((bare > 140).all(axis=-1))
    drawn_rows, drawn_columns = np.nonzero(has_colour(tile, class_colour(0)))
    # lines of one pixel on the object's last pixels, or around one too small to be seen
    slack = [1 if np.ptp(side) > 10 else 7 for side in (columns, rows)]
    assert abs(drawn_columns.min() - columns.min()) <= slack[0]
    assert abs(drawn_columns.max() - columns.max()) <= slack[0]
    assert abs(drawn_rows.max() - rows.max()) <= slack[1]


def test_a_box_of_one_pixel_is_seen_and_no_text_hides_it() -> None:
    image = np.zeros((480, 480, 3), np.uint8)
    spots = [(0, 0), (240, 0), (479, 479), (0, 479), (100, 200)]
    boxes = np.array([(x, y, x + 1, y + 1) for x, y in spots])
    for box, (x, y) in zip(boxes, spots, strict=True):
        image[y, x] = 255
        tile = draw_tile(image, box[None], np.array([0]), ("cup",), side_px=480, title="")
        top = tile.shape[0] - 480
        around = tile[top + max(0, y - 6) : top + y + 7, max(0, x - 6) : x + 7]
        assert has_colour(around, class_colour(0)).sum() >= 12
        if 0 < x < 479 and 0 < y < 479:  # elsewhere the image's edge forces the line onto it
            assert (around[6, 6] == 255).all()


def test_a_title_too_long_keeps_its_end() -> None:
    titles = ("a/long/path/to/some/image.jpg", "another/path/to/some/image.jpg")
    tiles = [tile_of(grey(90, 90), np.zeros((0, 4)), side_px=90, title=title) for title in titles]
    np.testing.assert_array_equal(*tiles)
    assert (tiles[0][:12] != FILL_COLOUR_RGB).any()


def test_sheets_are_written_as_they_fill(tmp_path: Path) -> None:
    tiles = (grey(20, 30) + number for number in range(5))
    sheets = drawing.write_sheets(tiles, tmp_path, columns=2, per_sheet=4)
    assert next(sheets) == tmp_path / "sheet_01.jpg" and len(list(tmp_path.iterdir())) == 1
    assert cv2.imread(str(tmp_path / "sheet_01.jpg")).shape == (44, 64, 3)
    assert [path.name for path in sheets] == ["sheet_02.jpg"]
    assert cv2.imread(str(tmp_path / "sheet_02.jpg")).shape == (20, 30, 3)


def test_a_large_image_is_shrunk() -> None:
    assert shrink(np.zeros((4000, 2000, 3), np.uint8), 1600).shape == (1600, 800, 3)
    assert shrink(np.zeros((1, 5000, 3), np.uint8), 1600).shape == (1, 1600, 3)
    small = grey(10, 20)
    assert shrink(small, 1600) is small


def test_boxes_are_counted_in_words() -> None:
    assert drawing.count_boxes(np.array([], bool)) == "0 boxes"
    assert drawing.count_boxes(np.array([False])) == "1 box"
    assert drawing.count_boxes(np.array([False, True, False])) == "2 boxes, 1 ignored"
