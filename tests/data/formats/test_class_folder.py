import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolo.data.formats.class_folder import ClassFolderDataset
from yolo.data.sampling import repeat_factors
from yolo.data.transforms.augment import letterbox_sample
from yolo.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two dogs, four cats and no tree; a note, a hidden file and a folder among them."""
    for name in ("dog/b.jpg", "dog/a.PNG", "cat/3.jpeg", "cat/1.jpg", "cat/2.bmp", "cat/4.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image = np.full((10 + len(name), 20, 3), (0, 0, 200), np.uint8)
        path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    (tmp_path / "tree").mkdir()
    (tmp_path / "dog" / "sub.jpg").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / ".hidden.jpg").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "cat/round.jpg").symlink_to(tmp_path / "cat/round.jpg")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "list.txt").touch()
    return tmp_path


def names(dataset) -> list[str]:
    return [str(dataset.image_path(i).relative_to(dataset.source)) for i in range(len(dataset))]


def test_labels_are_the_folders_by_alphabet_and_images_too(root: Path) -> None:
    dataset = ClassFolderDataset(root=root)
    assert dataset.class_names == ("cat", "dog", "tree")
    assert dataset.category_ids == (0, 1, 2)
    expected = ["cat/1.jpg", "cat/2.bmp", "cat/3.jpeg", "cat/4.jpg", "dog/a.PNG", "dog/b.jpg"]
    assert names(dataset) == expected
    assert [dataset.load(i).labels.tolist() for i in range(6)] == [[0]] * 4 + [[1]] * 2
    assert dataset.findings.counts == {"classes without images": 1, "files that are no images": 3}
    assert dataset.findings.texts == (
        "classes without images: tree",
        "files that are no images: cat/notes.txt, cat/round.jpg, dog/sub.jpg",
    )


def test_the_order_of_the_classes_can_be_given(root: Path) -> None:
    dataset = ClassFolderDataset(root=root, class_names=["tree", "dog", "cat"])
    assert names(dataset)[0] == "dog/a.PNG"
    assert dataset.load(0).labels.tolist() == [1] and dataset.load(5).labels.tolist() == [2]


def test_a_sample_is_a_box_over_the_whole_image(root: Path) -> None:
    sample = ClassFolderDataset(root=root).load(5)
    assert sample.image.shape == (19, 20, 3) and sample.image[0, 0, 0] > 190  # RGB
    assert sample.boxes_xyxy_px.tolist() == [[0, 0, 20, 19]]
    assert (sample.original_size_hw, sample.image_id) == ((19, 20), 6)
    square = letterbox_sample(sample, 40)
    assert square.boxes_xyxy_px.tolist() == [[0, 1, 40, 39]] and not square.ignored.any()


def test_selections(root: Path) -> None:
    dataset = ClassFolderDataset(root=root)
    assert names(dataset.limit(3)) == ["cat/1.jpg", "cat/2.bmp", "dog/a.PNG"]  # in turn
    assert names(dataset.limit(5)) == [*names(dataset)[:3], "dog/a.PNG", "dog/b.jpg"]
    assert len(dataset.limit(99)) == 6
    assert names(dataset.limit([6, 2, 77])) == ["cat/2.bmp", "dog/b.jpg"]
    half = dataset.share(0.5, seed=0)
    assert len(half) == 3 and set(names(half)) < set(names(dataset))
    assert half.load(0).labels.tolist() == [int("dog" in names(half)[0])]


def test_rare_classes_can_be_repeated(root: Path) -> None:
    factors = repeat_factors(ClassFolderDataset(root=root).annotations, threshold=0.5)
    np.testing.assert_allclose(factors, [1] * 4 + [np.sqrt(0.5 / (2 / 6))] * 2)


def assert_refused(text: str, **arguments) -> None:
    with pytest.raises(UserError, match=text):
        ClassFolderDataset(**arguments)


def test_user_errors(root: Path) -> None:
    nowhere, empty, bare = root / "nowhere", root / ".cache", root / "bare"
    wanted = "must name each class folder of .* once.*no such folder: cow; not named: cat, tree"
    assert_refused(wanted, root=root, class_names=["dog", "cow"])
    (bare / "a").mkdir(parents=True)
    assert_refused(r"the folder of classes .*nowhere cannot be read \(No such file", root=nowhere)
    assert_refused(r"\.cache holds no folders; it must hold one folder of images", root=empty)
    assert_refused("its folders hold no images", root=bare)


@pytest.mark.parametrize("name", ["cat/\udcff.jpg", "cat/\udcff.txt", "\udcff/1.jpg"])
def test_names_that_are_no_utf_8(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()
    assert_refused(r"'.*\\udcff.*' is not UTF-8; rename the file", root=root)


def test_a_damaged_image_is_named(root: Path) -> None:
    (root / "cat" / "1.jpg").write_bytes(b"\xff\xd8 no jpeg \xff\xd9")
    dataset = ClassFolderDataset(root=root)
    with pytest.raises(UserError, match=re.escape(f"{root}/cat/1.jpg cannot be decoded")):
        dataset.load(0)
