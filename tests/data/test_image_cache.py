"""The cache of decoded images: the same pixels whatever it holds, and never more than its limit."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.coco_files import Box, write_coco
from tests.data.batches import digest, take, training
from yolo.data.disk_cache import _HEADER, DiskCache
from yolo.data.formats.class_folder import ClassFolderDataset
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.detection import DetectionDataset
from yolo.data.image_cache import ImageCache, MemoryCache, shrink
from yolo.data.images import decode
from yolo.data.loader import ImageData
from yolo.errors import UserError
from yolo.records import Sample

SIDE_PX = 40
PLENTY = 10**9
TWO_FILES = 3600 + 3240 + 3 * _HEADER.size
"""Bytes for the first two images and no third."""
ORIENTATION = 0x0112
SIZES_HW = ((60, 80), (90, 60), (30, 20), (7, 101), (64, 64))


def open_coco(
    folder: Path, pictures: dict[int, np.ndarray], boxes: list[Box], file_name: str
) -> CocoDataset:
    written = write_coco(folder, pictures, boxes, file_name=file_name)
    return CocoDataset(annotations=Path(written["annotations"]), images=folder)


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    """Images of noise, each with two boxes, one of them the whole image."""
    noise = np.random.default_rng(0)
    pictures, boxes = {}, []
    for image_id, (height, width) in enumerate(SIZES_HW, start=10):
        pictures[image_id] = noise.integers(0, 256, (height, width, 3), np.uint8)
        whole = [0, 0, width, height]
        boxes += [(image_id, 0, box, False) for box in (whole, [2, 1, 10, 4])]
    return open_coco(tmp_path, pictures, boxes, "{}.bmp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=["ram", "disk"])
def place(request: pytest.FixtureRequest, folder: Path) -> Path | None:
    """Where a cache of each kind keeps its images: in the folder, or in memory."""
    return folder if request.param == "disk" else None


@pytest.fixture
def disk_cache(dataset: CocoDataset, folder: Path) -> ImageCache:
    return open_cache(dataset, folder)


def open_cache(
    dataset: DetectionDataset, folder: Path | None, limit_bytes: int = PLENTY
) -> ImageCache:
    settings: dict[str, Any] = {"side_px": SIDE_PX, "limit_bytes": limit_bytes}
    if folder is None:
        return MemoryCache(dataset, **settings)
    return DiskCache(dataset, folder=folder, **settings)


class NotDecoded(Exception):
    """An image was read though it should have been kept."""


def forbid_decoding(dataset: DetectionDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> Sample:
        raise NotDecoded(index)

    monkeypatch.setattr(dataset, "load", refuse)


def shrunk(dataset: DetectionDataset) -> list[Sample]:
    return [shrink(sample, SIDE_PX) for sample in load_all(dataset)]


def kept_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def kept_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in kept_files(folder))


def assert_same(one: Sample, other: Sample) -> None:
    for name in ("image", "boxes_xyxy_px", "labels", "ignored"):
        mine, its = getattr(one, name), getattr(other, name)
        assert mine.dtype == its.dtype and np.array_equal(mine, its), name
    assert (one.image_id, one.original_size_hw) == (other.image_id, other.original_size_hw)


def load_all(images: ImageData) -> list[Sample]:
    return [images.load(index) for index in range(len(images))]


def assert_all_same(found: list[Sample], wanted: list[Sample]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def test_an_image_of_twice_the_size_by_hand(dataset: CocoDataset, disk_cache: ImageCache) -> None:
    sample = disk_cache.load(0)
    pixels = decode(dataset.image_path(0)).astype(float)
    means = pixels.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))  # each pixel is the mean of four
    assert np.abs(sample.image - means).max() <= 0.5
    assert sample.boxes_xyxy_px.tolist() == [[0, 0, 40, 30], [1, 0.5, 6, 2.5]]
    assert (sample.original_size_hw, sample.image_id) == ((60, 80), 10)


def test_shape_scales_and_small_images(dataset: CocoDataset, disk_cache: ImageCache) -> None:
    samples = load_all(disk_cache)
    shapes = [sample.image.shape for sample in samples]
    assert shapes == [(30, 40, 3), (40, 27, 3), (30, 20, 3), (3, 40, 3), (40, 40, 3)]
    assert_same(samples[2], dataset.load(2))  # is never enlarged
    boxes = [[0, 0, 40, 3], [2 * 40 / 101, 3 / 7, 12 * 40 / 101, 15 / 7]]
    np.testing.assert_allclose(samples[3].boxes_xyxy_px, boxes, rtol=1e-6)
    for sample in samples:
        height, width = sample.image.shape[:2]
        assert (sample.boxes_xyxy_px <= [width, height, width, height]).all()


def test_cold_and_warm_are_the_same(place: Path | None, dataset: CocoDataset, monkeypatch) -> None:
    wanted, cache = shrunk(dataset), open_cache(dataset, place)
    assert_all_same(load_all(cache), wanted)
    forbid_decoding(dataset, monkeypatch)
    assert_all_same(load_all(cache), wanted)
    cache.load(0).image[:] = 0  # it is the caller's own
    assert_same(cache.load(0), wanted[0])


def test_a_later_run_finds_the_files(dataset, folder: Path, disk_cache, monkeypatch) -> None:
    first = load_all(disk_cache)
    later = dataset.select([3, 0, 1])
    forbid_decoding(later, monkeypatch)
    assert_same(open_cache(later, folder).load(0), first[3])
    with pytest.raises(NotDecoded):  # at another size all is different
        DiskCache(later, side_px=39, limit_bytes=PLENTY, folder=folder).load(0)


@pytest.mark.parametrize("annotated_hw", [(60, 40), (40, 60)])
def test_the_rotation_is_the_one_that_the_annotations_need(annotated_hw, tmp_path, place) -> None:
    """Two data sets of one file, whose EXIF data turn it: one counts with that, one does not."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for size_hw in (annotated_hw[::-1], annotated_hw):
        dataset = open_coco(tmp_path, {1: np.zeros((*size_hw, 3))}, [], "turned.jpg")
        Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=exif)
        cache = open_cache(dataset, place)
        cold, warm = cache.load(0), cache.load(0)
    image = decode(tmp_path / "turned.jpg", expected_hw=annotated_hw)
    height, width = image.shape[:2]
    small_wh = (round(width * 2 / 3), round(height * 2 / 3))
    pixels = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    for sample in (cold, warm):
        assert np.array_equal(sample.image, pixels)
        assert sample.original_size_hw == annotated_hw


def test_images_of_unknown_size(tmp_path: Path, place: Path | None, monkeypatch) -> None:
    """A folder of classes does not say how large its images are."""
    for number, size in enumerate([(60, 80), (200, 10)]):
        path = tmp_path / "classes" / f"class{number}" / "image.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((*size, 3), 50 * number, np.uint8))
    dataset = ClassFolderDataset(root=tmp_path / "classes")
    cache = open_cache(dataset, place)
    cold = load_all(cache)
    forbid_decoding(dataset, monkeypatch)
    assert_all_same(load_all(cache), cold)
    assert cold[1].boxes_xyxy_px.tolist() == [[0, 0, 2, 40]]
    assert cold[1].original_size_hw == (200, 10)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "half a header": lambda good: good[: _HEADER.size // 2],
    "no pixels": lambda good: good[: _HEADER.size],
    "cut off": lambda good: good[:-1],
    "too long": lambda good: good + b"\0",
    "another bit": lambda good: good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
    "another key": lambda good: good[:10] + bytes([good[10] ^ 1]) + good[11:],
    "another format": lambda good: b"YOLOpix0" + good[8:],
    "sides swapped": lambda good: (
        good[:28] + good[32:36] + good[28:32] + good[40:44] + good[36:40] + good[44:]
    ),
    "huge sides": lambda good: good[:28] + b"\xff" * 16 + good[44:],
    "zeros": lambda good: bytes(len(good)),
    "text": lambda good: b"not ours\n" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(damage: str, dataset, folder: Path, disk_cache) -> None:
    wanted = disk_cache.load(0)
    (path,) = kept_files(folder)
    good = path.read_bytes()
    path.write_bytes(DAMAGES[damage](good))
    assert_same(open_cache(dataset, folder).load(0), wanted)
    assert path.read_bytes() == good


def test_the_file_of_another_image_is_not_taken(folder: Path, disk_cache: ImageCache) -> None:
    first = disk_cache.load(0)
    (path,) = kept_files(folder)
    fourth = disk_cache.load(4)
    (other,) = set(kept_files(folder)) - {path}
    shutil.copy(path, other)
    assert_same(disk_cache.load(4), fourth)
    assert_same(disk_cache.load(0), first)


def test_a_changed_image_gives_its_new_pixels(dataset, folder: Path, disk_cache) -> None:
    old = disk_cache.load(0)
    path = dataset.image_path(0)
    status = path.stat()
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    for fresh in (disk_cache, disk_cache, open_cache(dataset, folder)):
        sample = fresh.load(0)
        assert (sample.image != old.image).any()
        assert_same(sample, shrink(dataset.load(0), SIDE_PX))


def test_an_image_that_changes_while_it_is_read_is_not_kept(
    dataset: CocoDataset, disk_cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its new pixels would stand under the name of the old content."""
    path, real, old = dataset.image_path(0), dataset.load, shrunk(dataset)[0]
    old_content = path.read_bytes()

    def load(index: int) -> Sample:
        cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8))
        return real(index)

    monkeypatch.setattr(dataset, "load", load)
    assert (disk_cache.load(0).image == 0).all()
    monkeypatch.setattr(dataset, "load", real)
    path.write_bytes(old_content)
    assert_same(disk_cache.load(0), old)


def test_a_missing_image_is_an_error_though_it_is_kept(dataset: CocoDataset, disk_cache) -> None:
    disk_cache.load(0)
    dataset.image_path(0).unlink()
    with pytest.raises(UserError, match=r"10\.bmp does not exist"):
        disk_cache.load(0)


def test_memory_is_bounded(dataset: CocoDataset, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """30 x 40 and 40 x 27 pixels fit, of three bytes each and in steps of 16; the next do not."""
    cache = open_cache(dataset, None, limit_bytes=3600 + 3248 + 1799)
    assert "2 of 5 images fit" in caplog.text
    assert_all_same(load_all(cache), shrunk(dataset))
    forbid_decoding(dataset, monkeypatch)
    assert [cache.load(index).image_id for index in (0, 1)] == [10, 11]
    for other, index in ((cache, 2), (open_cache(dataset, None, limit_bytes=1), 0)):
        with pytest.raises(NotDecoded):
            other.load(index)


def test_memory_is_not_copied_to_processes_that_are_started_afresh(dataset: CocoDataset) -> None:
    with pytest.raises(UserError, match=r"'ram' is for systems whose loader processes are forked"):
        copy.deepcopy(open_cache(dataset, None))


def test_the_folder_is_bounded(dataset: CocoDataset, folder: Path, caplog) -> None:
    """What lies there of other settings counts too."""
    foreign = folder / "other" / "x.pixels"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(bytes(2000))
    for _ in range(3):
        cache = open_cache(dataset, folder, limit_bytes=2000 + TWO_FILES)
        caplog.clear()
        assert_all_same(load_all(cache), shrunk(dataset))
        assert caplog.text.count("it has reached cache_limit_gb (") == 1
    assert len(kept_files(folder)) == 3
    assert kept_bytes(folder) <= 2000 + TWO_FILES


def test_what_another_process_adds_counts_towards_the_limit(dataset, folder: Path) -> None:
    caches = [open_cache(dataset, folder, limit_bytes=TWO_FILES) for _ in range(2)]
    for index in range(5):
        caches[index % 2].load(index)
    assert kept_bytes(folder) <= TWO_FILES


def test_abandoned_files_are_removed(dataset: CocoDataset, folder: Path, disk_cache) -> None:
    disk_cache.load(0)
    (path,) = kept_files(folder)
    old, fresh = path.with_name(".old"), path.with_name(".fresh")
    for file in (old, fresh):
        file.write_bytes(bytes(100))
    os.utime(old, (1e9, 1e9))
    open_cache(dataset, folder)
    assert sorted(kept_files(folder)) == sorted([path, fresh])


@contextmanager
def small_files_only() -> Iterator[None]:
    """The system refuses to let a file grow beyond 2,000 bytes, as a full disk would.

    No fixture: it would still hold where pytest writes its dot, into a log file perhaps.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_writing_and_not_the_training(dataset, folder: Path, caplog) -> None:
    cache = open_cache(dataset, folder)
    with small_files_only():
        found = load_all(cache)
    assert_all_same(found, shrunk(dataset))
    assert caplog.text.count("writing failed") == 1
    assert kept_files(folder) == []


def test_a_folder_that_cannot_be_had(dataset: CocoDataset, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    cache = open_cache(dataset, tmp_path / "file" / "cache")
    assert_all_same(load_all(cache), shrunk(dataset))
    assert caplog.text.count("no more images are kept") == 1


def test_a_folder_deleted_while_it_is_in_use(dataset: CocoDataset, folder: Path) -> None:
    wanted, cache = shrunk(dataset), open_cache(dataset, folder)
    cache.load(0)
    shutil.rmtree(folder)
    for index in (0, 1, 0):
        assert_same(cache.load(index), wanted[index])


ROUNDS = 10


def run_four(work: Callable[[], object]) -> list[int | None]:
    """Exit codes of four forked processes that do the same."""
    workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_processes_at_the_same_time(dataset: CocoDataset, place: Path | None, monkeypatch) -> None:
    """Four fill one cache at once, over and over; every sample that any of them sees is right."""
    wanted = shrunk(dataset)
    start = multiprocessing.get_context("fork").Barrier(4)

    def work(cache: ImageCache) -> None:
        start.wait()
        assert_all_same(load_all(cache) + load_all(cache), wanted * 2)

    for _ in range(ROUNDS):
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        cache = open_cache(dataset, place)
        assert run_four(lambda cache=cache: work(cache)) == [0] * 4
    forbid_decoding(dataset, monkeypatch)
    assert_all_same(load_all(cache), wanted)  # what the children kept is there for the parent
    if place is not None:
        assert len(kept_files(place)) == 5  # and nothing temporary


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_limit_holds_for_all_processes_and_is_logged_once(dataset, folder, tmp_path) -> None:
    cache = open_cache(dataset, folder, limit_bytes=TWO_FILES)
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    logging.getLogger("yolo.data.disk_cache").addHandler(handler)
    run_four(lambda: load_all(cache))
    logging.getLogger("yolo.data.disk_cache").removeHandler(handler)
    handler.close()
    assert kept_bytes(folder) <= TWO_FILES
    assert log.read_text().count("no more images are kept") == 1


def test_a_stream_is_the_same_from_a_cold_and_a_warm_cache(dataset, place: Path | None) -> None:
    def stream(images: ImageCache, *, workers: int = 0, start: int = 0) -> list[str]:
        batches = training(images, workers=workers, batch_size=3, size_px=lambda step: 32)
        return digest(take(batches, steps=6 - start, start=start))

    plain = stream(open_cache(dataset, None, limit_bytes=1))
    cache = open_cache(dataset, place)
    assert stream(cache, workers=2) == plain  # cold
    assert stream(cache) == plain
    assert stream(cache, start=3) == plain[9:]  # resumed
    assert stream(open_cache(dataset, None), workers=2, start=3) == plain[9:]
