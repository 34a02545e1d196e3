"""validation.py --analyse on a detector with hostile names, and the captions of its pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

import validation
from tests.apps.report.pages import HOSTILE, Page
from tests.coco_files import write_coco
from tests.detectors import make_config, save_detector
from yolo.apps.report import analysis, gallery
from yolo.config import config_from_dict
from yolo.data.formats.coco import CocoDataset
from yolo.evaluate.metrics.detection_errors import find_errors
from yolo.evaluate.metrics.metric import DetectedBoxes
from yolo.factory.detector import build_detector

NAMES = [*HOSTILE[:2], "dog"]
CAT, TREE, DOG = 0, 1, 2
ANNOTATIONS = [  # image, label, xyxy, crowd
    (0, CAT, (10, 10, 50, 50), 0),
    (0, DOG, (60, 10, 100, 50), 0),
    (0, DOG, (10, 60, 50, 100), 1),
    (1, CAT, (0, 0, 120, 90), 0),
    (1, DOG, (70, 60, 74, 64), 0),
]


@pytest.fixture
def coco(tmp_path):
    """Three images of 120 x 110 pixels, the last without truth; their names are hostile too."""
    root = tmp_path / "images"
    root.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 110, 120, 3), np.uint8)
    boxes = [
        (image, label, [x1, y1, x2 - x1, y2 - y1], crowd)
        for image, label, (x1, y1, x2, y2), crowd in ANNOTATIONS
    ]
    return write_coco(root, dict(enumerate(pictures)), boxes, NAMES, "<b>{}&amp;.png")


@pytest.fixture
def checkpoint(coco, tmp_path):
    """A detector with random weights, which finds something everywhere."""
    data = make_config(width=0.25).model_dump(mode="json")
    data["data"] |= {"train": coco, "val": coco, "workers": 0}
    data["evaluation"] |= {"conf": 1e-6, "max_detections": 50}
    config = config_from_dict(data)
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    precision = {"name": "fp32", "reason": "test"}
    detector = build_detector(config, NAMES)
    return save_detector(path, detector, config, NAMES, precision=precision)


FOUND = [  # image, label, box, score
    (0, CAT, (10, 10, 50, 48), 0.9),  # right
    (0, CAT, (10, 12, 50, 50), 0.8),
    (0, CAT, (60, 10, 100, 48), 0.7),
    (0, DOG, (60, 10, 100, 26), 0.6),
    (1, TREE, (0, 0, 60, 45), 0.5),
    (2, CAT, (100, 90, 5000, np.inf), 0.4),
    (0, DOG, (10, 60, 50, 100), 0.3),  # in a crowd: nothing
]
WRONG = {
    0.8: "a second box for the same object",
    0.7: "wrong class, is dog",
    0.6: "badly placed, IoU 0.40",
    0.5: "wrong class and badly placed",
    0.4: "nothing there",
}


def judged(coco, found):
    """The data set, what was found in it, and its errors."""
    dataset = CocoDataset(annotations=coco["annotations"], images=coco["images"], class_names=None)
    image, label, boxes, scores = (np.array([row[i] for row in found]) for i in range(4))
    what = SimpleNamespace(
        image_ids=image, labels=label, boxes_xyxy_px=boxes.astype(np.float32), scores=scores
    )
    rows = DetectedBoxes(image, label, boxes, scores)
    return dataset, what, find_errors(dataset.ground_truth(), rows)


def captions_of(blocks):
    return [Page(block).texts[0] for block in blocks]


def test_the_captions_name_the_kind_of_error(coco):
    shown = gallery.Gallery(*judged(coco, FOUND)).false_positives()
    captions = captions_of(shown)
    wanted = [f"{score:.2f}: {why} · <b>" for score, why in WRONG.items()]
    assert all(want in caption for want, caption in zip(wanted, captions, strict=True))
    assert captions[0].startswith(NAMES[CAT])
    for block in shown:
        (image,) = Page(block).pictures
        assert max(image.shape) == gallery.SIDE_PX
        red = (image[..., 0] > 180) & (image[..., 1] < 110) & (image[..., 2] < 110)
        assert red.sum() > 100


def test_the_misses_name_what_came_nearest(coco):
    dataset, found, errors = judged(coco, FOUND)
    assert errors.conf == 0.9
    assert captions_of(gallery.Gallery(dataset, found, errors).misses()) == [
        f"{NAMES[CAT]}: not found · <b>1&amp;.png",
        "dog: not found · <b>0&amp;.png",
        "dog: not found · <b>1&amp;.png",
    ]
    low = [(1, DOG, (70, 60, 74, 64), 0.1), *FOUND, *[(2, CAT, (0, 0, 9, 9), 0.2)] * 9]
    captions = captions_of(gallery.Gallery(*judged(coco, low)).misses())
    assert captions[-1] == "dog: found with confidence 0.100 only · <b>1&amp;.png"


def test_an_image_that_cannot_be_read_has_its_pictures_too(coco):
    judgement = judged(coco, FOUND)
    judgement[0].image_path(1).write_bytes(b"no image")
    captions = captions_of(gallery.Gallery(*judgement).misses())
    failed = [caption.endswith("<b>1&amp;.png (cannot be read)") for caption in captions]
    assert failed == [True, False, True]


def test_no_image_has_all_pictures(coco):
    many = [(image, CAT, (60, 60, 90, 90), 0.9) for image in (0, 1, 2) for _ in range(30)]
    shown = gallery.Gallery(*judged(coco, many)).false_positives()
    assert len(shown) == 3 * gallery.MOST_PER_IMAGE


def test_the_page_of_a_checkpoint(checkpoint, capsys):
    outside = checkpoint.parent.parent / "outside"
    (checkpoint.parent / "analysis.html").symlink_to(outside)  # a stranger's, who means harm
    assert validation.main([str(checkpoint), "--gpu", "cpu", "--analyse"]) == 0
    assert not outside.exists()
    page = Page((checkpoint.parent / "analysis.html").read_text())
    assert "analysis.html" in capsys.readouterr().out
    assert "Error analysis of run/best.pt" in page.texts
    titles = {"Kinds of errors", "Confusions", "Sizes", "Calibration", "Worst misses"}
    assert titles | set(NAMES) <= set(page.texts)
    assert "Share of right boxes over confidence" in page.texts and page.tags.count("svg") == 1
    assert "nothing there" in page.texts and "mean" in page.texts
    assert 4 + gallery.MOST_PER_IMAGE <= len(page.pictures) <= 2 * gallery.MOST_PICTURES


def test_nothing_found(checkpoint, tmp_path):
    place = tmp_path / "p.html"
    argv = [str(checkpoint), "--gpu", "cpu", "--conf", "1", "--analyse", str(place)]
    assert validation.main(argv) == 0
    assert "No box is right at any confidence." in Page(place.read_text()).texts


def test_confusions_are_counted_by_pairs_of_classes():
    names = [f"<i>{number}" for number in range(80)]
    matrix = np.zeros((81, 81), int)
    matrix[0, 79] = 3
    matrix[0, 0] = 5
    ((truth, answer, boxes, share),) = analysis._confusions(matrix, names)
    assert (truth, answer, boxes, share.value) == ("<i>0", "<i>79", 3, "37.5%")
    assert analysis._confusions(matrix[[0, -1]][:, [0, -1]], names[:1]) == []


def test_with_many_classes_there_is_no_matrix(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "pages"
    for most, has_matrix in ((2, False), (3, True)):
        monkeypatch.setattr(analysis, "MOST_CLASSES_IN_MATRIX", most)
        assert validation.main([str(checkpoint), "--gpu", "cpu", "--analyse", str(folder)]) == 0
        texts = Page((folder / "analysis.html").read_text()).texts
        assert ("nothing there" in texts) == has_matrix
        assert any("taken for" in data for data in texts)


def test_a_place_that_is_no_page(checkpoint, usage_error):
    path, file = str(checkpoint), checkpoint.parent / "file"
    file.touch()
    for argv, sentence in (
        (["--analyse", path], "name the checkpoint before --analyse"),
        ([path, "--analyse", str(file)], "must be a folder or end in .html"),
        ([path, path, "--analyse"], "name one"),
    ):
        assert sentence in usage_error(validation.main, *argv)
