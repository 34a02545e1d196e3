"""Damaged images in the formats that read every header when they open."""

from __future__ import annotations

import json
import random
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.voc_files import voc_object, voc_xml
from tests.detectors import ONE_RANK
from tests.faults.fuzz_annotations import check_valid
from tests.faults.fuzz_images import (
    HEIGHT,
    MUTATIONS,
    WIDTH,
    Mutate,
    encoded,
    lying_header,
    picture,
)
from tests.faults.fuzz_trials import bounded, captured, config_of, error_of, is_bad, named_once
from tests.faults.trial import Property
from yolo.config import Config
from yolo.data.formats.detection import DetectionDataset
from yolo.factory import data
from yolo.factory.data import (
    SIZED_BY_HEADERS,
    build_dataset,
    build_evaluation_batches,
    build_training_batches,
)

PROPERTY = "11 Image and label fuzz"
IMAGES, MUTATED, BATCH = 12, 6, 4


def mutated_headers(seed: int, folder: Path, *, kind: str) -> None:
    """Half of the images are mutated; the data set opens and is gone through all the same."""
    generator = random.Random(f"{kind} {seed}")
    section = _write(folder)[kind]
    mutated = set(generator.sample(range(IMAGES), MUTATED))
    for number in range(IMAGES):
        path = folder / "JPEGImages" / f"{number}.jpg"
        if number in mutated:
            generator.choice(DAMAGES)(generator, path)
        else:
            path.write_bytes(encoded("JPEG", picture(number)))
    cache = folder.parent / f"cache_{kind}_{seed}"
    data.CACHE = cache  # in this process
    config = _config(section, "data.on_error=skip", f"data.cache={generator.choice(KEPT)}")
    with bounded(folder):
        with captured() as written:
            dataset, again = (build_dataset(config, "train") for _ in range(2))
        listed = IMAGES
        if kind == "yolo_text":  # goes by the folder, where one may be missing, or be a folder
            listed = sum(not entry.is_dir() for entry in (folder / "JPEGImages").iterdir())
        assert len(dataset) == listed
        bad = [index for index in range(listed) if is_bad(dataset, index)]
        assert written() == "" or (bad and len(written().splitlines()) == 2), written()
        _check_whole(dataset, again, bad)
        _go_through(config, dataset, bad)
        # what was read with tolerance changes nothing for who has none
        error = error_of(lambda: build_dataset(_config(section), "train"), folder)
        assert bad or not error, f"all images load, but: {error}"


KEPT = ("none", "ram")
DAMAGES: list[Mutate] = [
    *(mutate for mutate in MUTATIONS if mutate is not lying_header),
    partial(lying_header, sides=(50_000, 65_500)),  # nothing contradicts a header of 13,000 px
]


def _write(folder: Path) -> dict[str, dict[str, Any]]:
    """Annotations of one box an image in all formats; format -> section of a config."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "labels"):
        (folder / name).mkdir(parents=True)
    images = [f"{number}.jpg" for number in range(IMAGES)]
    for number, name in enumerate(images):
        xml = voc_xml(voc_object("cat", (11, 21, 40, 45)), size_wh=(WIDTH, HEIGHT), file_name=name)
        (folder / "Annotations" / f"{number}.xml").write_text(xml)
        (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    listed = "".join(f"{number}\n" for number in range(IMAGES))
    (folder / "ImageSets/Main/train.txt").write_text(listed)
    pairs = "".join(f"{number}.jpg,{number}.txt\n" for number in range(IMAGES))
    (folder / "list.csv").write_text(pairs)
    (folder / "boxes.csv").write_text("".join(f"{name},10,20,40,45,cat\n" for name in images))
    entries = [{"id": number, "file_name": name} for number, name in enumerate(images)]
    box = {"category_id": 1, "bbox": [10, 20, 30, 25]}
    content = {
        "images": entries,
        "annotations": [{"image_id": number, **box} for number in range(IMAGES)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    texts = {"images": str(folder / "JPEGImages"), "labels": str(folder / "labels")}
    return {
        "coco": {
            "type": "coco",
            "annotations": str(folder / "boxes.json"),
            "images": str(folder / "JPEGImages"),
        },
        "voc": {"type": "voc", "root": str(folder), "image_sets": ["train"]},
        "yolo_text": {"type": "yolo_text", **texts},
        "csv_list": {"type": "csv_list", "list": str(folder / "list.csv"), **texts},
        "csv_boxes": {
            "type": "csv_boxes",
            "boxes": str(folder / "boxes.csv"),
            "images": str(folder / "JPEGImages"),
        },
    }


def _check_whole(dataset: DetectionDataset, again: DetectionDataset, bad: list[int]) -> None:
    """Every image is there, the bad ones with their box, and so it is the second time."""
    check_valid(dataset)
    packed = dataset.annotations
    assert all(packed.box_counts()[index] == 1 for index in bad)
    for name in ("image_ids", "name_bytes", "sizes_hw", "offsets", "boxes_xyxy_px"):
        assert np.array_equal(getattr(packed, name), getattr(again.annotations, name)), name


def _go_through(config: Config, dataset: DetectionDataset, bad: list[int]) -> None:
    """An epoch of training and one evaluation; each names every bad image once."""
    paths = [dataset.image_path(index) for index in bad]
    bad_ids = set(dataset.annotations.image_ids[bad].tolist())
    training = build_training_batches(config, dataset, ONE_RANK)
    evaluation = build_evaluation_batches(config, dataset, ONE_RANK)
    with captured() as written:
        batches = [*islice(training.from_step(0), IMAGES // BATCH)]
        training.close()
    named_once(written(), paths)
    assert all(len(batch) == BATCH for batch in batches)
    assert not bad_ids & {number for batch in batches for number in batch.image_ids.tolist()}
    with captured() as written:
        found = [number for batch in evaluation for number in batch.image_ids.tolist()]
    named_once(written(), paths)
    assert sorted(found) == sorted(dataset.annotations.image_ids.tolist())


def _config(section: dict[str, Any], *more: str) -> Config:
    return config_of(section, BATCH, "data.class_names=[cat]", "data.workers=0", *more)


TRIALS = [
    Property(
        partial(mutated_headers, kind=kind),
        name=f"mutated_headers_{kind}",
        checked=f"{MUTATED} of {IMAGES} images mutated: with on_error 'skip' the data set opens, "
        "no image is lost, training and evaluation name each bad one once; 'stop' opens or ends "
        "with one sentence",
        full=100,
        quick=1,
    )
    for kind in sorted(SIZED_BY_HEADERS)
]
