"""Copies of coco-mini, each with one thing wrong: linked images and changed json files."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.apps.preflight.made_data import change

HUGE_PX = 30_000

Json = dict[str, Any]


def copy_coco_mini(coco_mini: Path, root: Path) -> list[str]:
    """A copy that may be changed at will, as overrides; a link to an image may be replaced."""
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for image in (coco_mini / f"{split}2017").iterdir():
            (root / split / image.name).symlink_to(image)
        annotations = coco_mini / f"annotations/instances_{split}2017.json"
        (root / split / "annotations.json").write_bytes(annotations.read_bytes())
    return [
        f"data.{split}.{key}={root / split / name}"
        for split in ("train", "val")
        for key, name in (("annotations", "annotations.json"), ("images", ""))
    ]


def read(root: Path, split: str) -> Json:
    return json.loads((root / split / "annotations.json").read_text())


def replace_image(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def changes_train(edit: Callable[[Json], None]) -> Callable[[Path], None]:
    """What an edit of the training set's json makes of a copy."""
    return functools.wraps(edit)(lambda root: change(root, "train", edit))


@changes_train
def ids_off_by_one(data: Json) -> None:
    for entry in data["annotations"]:
        entry["category_id"] += 1


@changes_train
def class_missing_from_train(data: Json) -> None:
    (person,) = [c["id"] for c in data["categories"] if c["name"] == "person"]
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != person]


@changes_train
def wrong_unit(data: Json) -> None:
    sizes = {i["id"]: (i["width"], i["height"]) for i in data["images"]}
    for entry in data["annotations"]:
        width, height = sizes[entry["image_id"]]
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x / width, y / height, w / width, h / height]


@changes_train
def swapped(data: Json) -> None:
    for entry in data["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [y, x, h, w]


@changes_train
def duplicate_image_ids(data: Json) -> None:
    data["images"][1]["id"] = data["images"][0]["id"]


@changes_train
def all_crowd(data: Json) -> None:
    for entry in data["annotations"]:
        entry["iscrowd"] = 1


def truncated_jpeg(root: Path) -> None:
    path = root / "val" / read(root, "val")["images"][0]["file_name"]
    content = path.read_bytes()
    replace_image(path, content[: len(content) // 2])


def leaked_image(root: Path) -> None:
    """The file, under another name and id, with the boxes that it has in val."""
    val = read(root, "val")
    leaked = val["images"][0]
    replace_image(root / "train/leaked.jpg", (root / "val" / leaked["file_name"]).read_bytes())

    def add(data):
        data["images"].append({**leaked, "id": 7, "file_name": "leaked.jpg"})
        data["annotations"] += [
            {**a, "id": 10**12 + a["id"], "image_id": 7}
            for a in val["annotations"]
            if a["image_id"] == leaked["id"]
        ]

    change(root, "train", add)


def empty_json(root: Path) -> None:
    (root / "train/annotations.json").write_text("")


def huge_image(root: Path) -> None:
    """A whole PNG of 30,000 x 30,000 black pixels, in one bit each: 112 kB of zeros, packed."""
    name = read(root, "train")["images"][0]["file_name"]
    replace_image(root / "train" / name, black_png(HUGE_PX))
    change(root, "train", lambda data: data["images"][0].update(width=HUGE_PX, height=HUGE_PX))


def black_png(side_px: int) -> bytes:
    """A square PNG of one bit per pixel (https://www.w3.org/TR/png/)."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side_px // 8 + (side_px % 8 > 0))  # the filter's number, then the pixels
    pixels = b"".join(packer.compress(row) for _ in range(side_px)) + packer.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def anchors_too_big(root: Path) -> list[str]:
    """Ten times the usual ones."""
    tenfold = (100, 130), (160, 300), (330, 230), (300, 610), (620, 450), (590, 1190), (1160, 900)
    return [f"model.head.anchors={[*map(list, tenfold), [1560, 1980], [3730, 3260]]}"]


def wrong_root(root: Path) -> list[str]:
    return ["data.val.images=/nowhere/val2017"]
