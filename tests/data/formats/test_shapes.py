import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.mask import area as mask_area
from pycocotools.mask import frPyObjects, toBbox

from yolo.data.formats import shapes
from yolo.data.formats.shapes import CLASS_SHAPES, SHAPES, Kind, generate, open_shapes
from yolo.data.formats.shapes_drawing import CATEGORY_IDS, _run_lengths
from yolo.errors import UserError

IMAGES = 120

# pycocotools.mask warns so under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return generate(SHAPES, root, "train", IMAGES, 0)


@pytest.fixture(scope="module")
def coco(folder: Path) -> COCO:
    return COCO(folder / "instances.json")


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    files = (path for path in folder.rglob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(("kind", "images"), [(SHAPES, IMAGES), (CLASS_SHAPES, 12)])
def test_same_seed_gives_the_same_bytes(tmp_path: Path, kind: Kind, images: int) -> None:
    first = contents(generate(kind, tmp_path / "a", "train", images, 0))
    assert contents(generate(kind, tmp_path / "b", "train", images, 0)) == first
    shorter = contents(generate(kind, tmp_path / "a", "train", 6, 0), "*.jpg")
    assert shorter.items() <= first.items()
    for split, seed in (("val", 0), ("test", 0), ("train", 1)):
        other = contents(generate(kind, tmp_path / "a", split, 6, seed), "*.jpg")
        assert other.keys() == shorter.keys()
        assert not {*other.values()} & {*first.values()}


def test_files_are_jpegs_of_the_sizes_in_the_json(folder: Path, coco: COCO) -> None:
    assert len(coco.imgs) == IMAGES
    sizes = [(image["height"], image["width"], 3) for image in coco.imgs.values()]
    names = [str(folder / image["file_name"]) for image in coco.imgs.values()]
    assert [cv2.imread(name).shape for name in names] == sizes
    assert len(set(sizes)) >= 5
    assert (folder / "000001.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_outlines_boxes_and_areas_agree_for_pycocotools(coco: COCO) -> None:
    for annotation in coco.anns.values():
        outline = coco.annToRLE(annotation)
        if annotation["iscrowd"]:
            assert mask_area(outline) == annotation["area"]
            np.testing.assert_array_equal(toBbox(outline), annotation["bbox"])
        else:
            width, height = annotation["bbox"][2:]
            assert abs(int(mask_area(outline)) - annotation["area"]) <= width + height
            np.testing.assert_allclose(toBbox(outline), annotation["bbox"], atol=2)


def test_the_content_is_what_a_detector_can_learn_from(coco: COCO) -> None:
    annotations = list(coco.anns.values())
    objects = [a for a in annotations if not a["iscrowd"]]
    crowds = [a for a in annotations if a["iscrowd"]]
    long_sides = np.array([max(a["bbox"][2:]) for a in objects])
    assert long_sides.min() >= 16
    assert min((long_sides < 32).sum(), (long_sides > 96).sum()) > 0.15 * len(objects)
    images = [coco.imgs[a["image_id"]] for a in objects]
    short_sides = np.array([min(image["height"], image["width"]) for image in images])
    assert (long_sides > 0.8 * short_sides).any()
    assert {a["category_id"] for a in objects} == set(CATEGORY_IDS.values())
    assert 4 <= len(crowds) <= 30
    empty = set(coco.imgs) - {a["image_id"] for a in annotations}
    assert 1 <= len(empty) <= 15
    for a in annotations:
        x, y, width, height = a["bbox"]
        image = coco.imgs[a["image_id"]]
        assert min(x, y) >= 0
        assert x + width <= image["width"] and y + height <= image["height"]


def test_objects_overlap_but_are_not_hidden(coco: COCO) -> None:
    overlapping = 0
    for image in coco.imgs.values():
        boxes = [a for a in coco.imgToAnns[image["id"]] if not a["iscrowd"]]
        size = image["height"], image["width"]
        masks = [coco.annToMask(a).astype(bool) for a in boxes]
        for i, mask in enumerate(masks):
            assert mask.shape == size
            over = np.any([np.zeros(size, bool), *masks[i + 1 :]], axis=0)
            hidden = (mask & over).sum() / mask.sum()
            assert hidden < 0.6
            overlapping += hidden > 0
    assert overlapping > IMAGES / 20


@pytest.mark.parametrize(
    ("kind", "first", "needed"),
    [
        (SHAPES, "000001.jpg", ["instances.json", "000002.jpg"]),
        (CLASS_SHAPES, "circle/000001.jpg", ["star/000004.jpg"]),
    ],
)
def test_what_is_finished_is_kept_and_what_is_not_is_generated_anew(
    tmp_path: Path, kind: Kind, first: str, needed: list[str]
) -> None:
    folder = generate(kind, tmp_path, "val", 7, 3)
    whole = contents(folder)
    before = (folder / first).stat().st_mtime_ns
    assert generate(kind, tmp_path, "val", 7, 3) == folder
    assert (folder / first).stat().st_mtime_ns == before
    for damage in (
        *((folder / name).unlink for name in (*needed, "finished.json")),
        lambda: (folder / "finished.json").write_text(json.dumps({"version": 0})),
        lambda: shutil.rmtree(folder),
    ):
        damage()
        generate(kind, tmp_path, "val", 7, 3)
        assert contents(folder) == whole
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["val-7-3"]


def test_of_several_at_once_only_one_generates(tmp_path: Path, monkeypatch) -> None:
    calls = []
    draw = shapes.draw_scene
    monkeypatch.setattr(shapes, "draw_scene", lambda rng: (calls.append(rng), draw(rng))[1])
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: generate(SHAPES, tmp_path, "val", 20, 0), range(4)))
    assert len(set(folders)) == 1
    assert len(calls) == 20


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.* cannot be written .*choose another root"):
        generate(SHAPES, tmp_path / "file", "train", 1, 0)


def test_the_data_set_is_a_coco_data_set(root: Path, folder: Path, coco: COCO) -> None:
    dataset = open_shapes(SHAPES, root=root, split="train", images=IMAGES, seed=0)
    assert len(dataset) == IMAGES
    assert dataset.class_names == tuple(CATEGORY_IDS)
    assert dataset.category_ids == tuple(CATEGORY_IDS.values())
    for index in range(20):
        sample = dataset.load(index)
        truth = coco.imgToAnns[sample.image_id]
        assert len(sample.labels) == len(truth)
        expected = np.array([a["bbox"] for a in truth], np.float32).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        order, expected_order = np.lexsort(sample.boxes_xyxy_px.T), np.lexsort(expected.T)
        np.testing.assert_array_equal(sample.boxes_xyxy_px[order], expected[expected_order])
        assert sample.ignored.sum() == sum(a["iscrowd"] for a in truth)


def test_run_lengths_begin_with_zeros() -> None:
    for mask in ([[1, 0], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]):
        array = np.array(mask, dtype=bool)
        counts = _run_lengths(array)
        assert sum(counts) == 4
        assert mask_area(frPyObjects({"size": [2, 2], "counts": counts}, 2, 2)) == array.sum()


def test_the_classes_are_even_and_the_images_small(tmp_path: Path) -> None:
    dataset = open_shapes(CLASS_SHAPES, root=tmp_path, split="train", images=20)
    assert dataset.class_names == tuple(sorted(CATEGORY_IDS)) and dataset.findings.counts == {}
    counts = np.bincount(dataset.annotations.labels)
    assert sorted(counts) == [3, 3, 3, 3, 4, 4]
    for index in range(0, 20, 5):
        sample = dataset.load(index)
        assert 96 <= min(sample.original_size_hw) <= max(sample.original_size_hw) <= 160
        assert sample.image.std() > 5
