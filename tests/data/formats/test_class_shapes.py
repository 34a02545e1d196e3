from pathlib import Path

import numpy as np
import pytest

from yolo.data.formats import class_shapes
from yolo.data.formats.class_shapes import ClassShapesDataset, generate_class_shapes
from yolo.errors import UserError

NAMES = ("circle", "cross", "ring", "square", "star", "triangle")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_classes_are_even_and_the_images_small(tmp_path: Path) -> None:
    dataset = ClassShapesDataset(root=tmp_path, split="train", images=20)
    assert dataset.class_names == NAMES and dataset.findings.counts == {}
    counts = np.bincount(dataset.annotations.labels)
    assert sorted(counts) == [3, 3, 3, 3, 4, 4]
    for index in range(0, 20, 5):
        sample = dataset.load(index)
        assert 96 <= min(sample.original_size_hw) <= max(sample.original_size_hw) <= 160
        assert sample.image.std() > 5


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = contents(generate_class_shapes(tmp_path / "a", "train", 12, 0))
    assert contents(generate_class_shapes(tmp_path / "b", "train", 12, 0)) == first
    shorter = contents(generate_class_shapes(tmp_path / "a", "train", 6, 0))
    assert shorter.items() <= first.items()
    for split, seed in (("val", 0), ("test", 0), ("train", 1)):
        other = contents(generate_class_shapes(tmp_path / "a", split, 6, seed))
        assert other.keys() == shorter.keys()
        assert not {v for k, v in other.items() if k.endswith("jpg")} & set(first.values())


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = generate_class_shapes(tmp_path, "val", 7, 3)
    (folder / "star" / "000004.jpg").unlink()
    generate_class_shapes(tmp_path, "val", 7, 3)
    assert (folder / "star" / "000004.jpg").exists()
    monkeypatch.delattr(class_shapes, "_draw_all")  # finished: it is not asked again
    assert generate_class_shapes(tmp_path, "val", 7, 3) == folder


def test_user_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.* cannot be written .*choose another root"):
        generate_class_shapes(tmp_path / "file", "train", 1, 0)
    with pytest.raises(UserError, match=r"class_shapes: there is no split 'valid'"):
        generate_class_shapes(tmp_path, "valid", 1, 0)
