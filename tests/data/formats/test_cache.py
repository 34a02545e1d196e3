"""The cache of annotations, through VOC data sets."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import numpy as np
import pytest
from filelock import FileLock

from tests.data.voc_files import voc_object, voc_xml, write_image, write_voc
from yolo.data.annotations import Annotations
from yolo.data.formats import detection, voc
from yolo.data.formats.voc import VocDataset
from yolo.errors import UserError


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many files were parsed since the last call."""
    reader = Mock(wraps=voc._read_xml)
    monkeypatch.setattr(voc, "_read_xml", reader)

    def count() -> int:
        calls = reader.call_count
        reader.reset_mock()
        return calls

    return count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images; the first one has a box that must be clipped."""
    dog, cat = voc_object("dog", (0, 1, 20, 30)), voc_object("cat", (5, 6, 20, 30), 1)
    return write_voc(tmp_path / "set", {"1": voc_xml(dog), "2": voc_xml(cat), "3": voc_xml()})


def read(folder: Path, **settings: object) -> VocDataset:
    return VocDataset(root=folder, image_sets=["train"], cache=folder.parent / "cache", **settings)


def entries(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache").glob("*.npz"))


def assert_same(one: VocDataset, other: VocDataset) -> None:
    assert (one.class_names, one.findings) == (other.class_names, other.findings)
    for name in Annotations.__dataclass_fields__:
        mine, its = getattr(one.annotations, name), getattr(other.annotations, name)
        assert mine.dtype == its.dtype and np.array_equal(mine, its), name


def test_hundreds_of_files_are_parsed_once(tmp_path: Path, parsed) -> None:
    objects = [
        [voc_object(f"c{i % 7}", (1 + k, 1, 9 + k, 9)) for k in range(i % 4)] for i in range(300)
    ]
    folder = write_voc(tmp_path / "set", {f"{i:06d}": voc_xml(*o) for i, o in enumerate(objects)})
    first, second = read(folder), read(folder)
    assert parsed() == 300
    assert_same(first, second)
    assert second.load(3).boxes_xyxy_px.shape == (3, 4)


def test_findings_are_kept_too(folder: Path, parsed) -> None:
    first, second = read(folder), read(folder)
    assert parsed() == 3 and second.findings.counts == {"clipped": 1}
    assert_same(first, second)


def test_a_change_of_content_is_seen_though_size_and_time_stay(folder: Path, parsed) -> None:
    read(folder)
    assert parsed() == 3
    xml = folder / "Annotations/2.xml"
    status, text = xml.stat(), xml.read_text()
    xml.write_text(text.replace("<xmin>5<", "<xmin>8<"))
    os.utime(xml, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read(folder).annotations.truth(1)[0].tolist() == [[7, 5, 20, 30]]
    assert parsed() == 3
    assert len(entries(folder)) == 1  # the entry was replaced


def test_a_change_of_the_list_or_of_an_image_is_seen(folder: Path, parsed) -> None:
    read(folder)
    (folder / "ImageSets/Main/train.txt").write_text("1\n2\n")
    assert len(read(folder)) == 2
    assert parsed() == 3 + 2
    write_image(folder / "JPEGImages/2.jpg", (80, 70))
    assert read(folder).annotations.size_hw(1) == (70, 80)
    assert parsed() == 2


def test_what_was_read_past_a_broken_image_is_not_kept(folder: Path, parsed) -> None:
    broken = folder / "JPEGImages/2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    errors: list[UserError] = []
    for times in (1, 2):
        assert len(read(folder, on_bad_image=errors.append)) == 3
        assert parsed() == 3 and len(errors) == times
    with pytest.raises(UserError, match=r"2\.jpg"):
        read(folder)
    broken.write_bytes(whole)
    parsed()
    for times in (3, 0):
        assert len(read(folder, on_bad_image=errors.append)) == 3
        assert parsed() == times and len(errors) == 2


def test_the_sizes_of_the_files_are_looked_at_once(folder: Path, monkeypatch) -> None:
    plain = read(folder).fingerprint()
    monkeypatch.setattr(detection, "_file_size", None)
    dataset = read(folder)
    assert dataset.fingerprint() == dataset.select([0, 1, 2]).fingerprint() == plain
    assert dataset.select([2, 0]).fingerprint()["files"] != plain["files"]


def test_other_class_names_have_an_entry_of_their_own(folder: Path, parsed) -> None:
    assert read(folder).class_names == ("cat", "dog")
    assert read(folder, class_names=["dog", "cat"]).annotations.labels.tolist() == [0, 1]
    assert parsed() == 6
    assert read(folder).annotations.labels.tolist() == [1, 0]
    assert parsed() == 0
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("damage", ["cut off", "no zip", "objects"])
def test_a_damaged_entry_is_made_anew(folder: Path, parsed, damage: str) -> None:
    first = read(folder)
    (entry,) = entries(folder)
    if damage == "objects":  # arrays of objects are pickles, which could run anything
        with np.load(entry) as arrays:
            np.savez(entry, **{**arrays, "labels": np.array([0, 1], object)})
    else:
        entry.write_bytes(entry.read_bytes()[:500] if damage == "cut off" else b"no zip")
    parsed()
    assert_same(read(folder), first)
    assert parsed() == 3
    read(folder)
    assert parsed() == 0


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, parsed) -> None:
    (folder.parent / "cache").write_text("a file where the folder should be")
    assert_same(read(folder), VocDataset(root=folder, image_sets=["train"]))
    assert parsed() == 6


def test_a_moved_data_set_is_read_anew(folder: Path, parsed) -> None:
    read(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert str(moved) in read(moved).findings.texts[0]
    assert parsed() == 6


def test_processes_that_find_an_entry_do_not_wait_for_each_other(folder: Path) -> None:
    read(folder)
    (entry,) = entries(folder)
    thread = Thread(target=read, args=(folder,), daemon=True)
    with FileLock(entry.with_suffix(".lock")):
        thread.start()
        thread.join(30)
        assert not thread.is_alive()


def test_of_several_processes_one_parses(folder: Path, tmp_path: Path, monkeypatch) -> None:
    real, calls = voc._read_xml, tmp_path / "calls"

    def slow(path: Path, content: bytes) -> object:
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return real(path, content)

    monkeypatch.setattr(voc, "_read_xml", slow)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read, args=(folder,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert calls.read_text() == "xxx"  # three files, once each
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".npz"]
