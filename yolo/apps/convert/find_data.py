"""The data sets that a folder holds, as a config names them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from yolo.config.read import read_yaml_file
from yolo.errors import UserError

Sections = dict[str, dict[str, Any]]
"""What data.train, data.val and data.test are to be, as far as they were found."""

SPLIT = re.compile("(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


def find_data(folder: Path) -> Sections:
    """The first of these forms that is found: a data.yaml, COCO's jsons, VOC's lists."""
    return _find_text_files(folder) or _find_jsons(folder) or _find_voc(folder)


def _find_text_files(folder: Path) -> Sections:
    """The folders of a data.yaml; text files are in "labels" where images are in "images"."""
    names = ("data.yaml", "data.yml", "dataset.yaml")
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    given = {} if file is None else read_yaml_file(file, str(file))
    sections: Sections = {}
    for key in ("train", "val", "valid", "test"):
        if not isinstance(given, dict) or not (entry := given.get(key)):
            continue
        if not isinstance(entry, str) or entry.endswith(".txt"):
            raise UserError(f"{file}: `{key}` must be one folder of images, not a list; join them")
        roots = [folder / str(given.get("path") or ""), folder]
        places = [root / entry for root in roots]
        places.append(folder / entry.removeprefix("../"))  # as Roboflow writes them
        images = next((place.resolve() for place in places if place.is_dir()), None)
        if images is None:
            raise UserError(f"{file}: `{key}` is {entry}, but there is no folder {places[-1]}")
        images = images / "images" if (images / "images").is_dir() else images
        above, _, below = str(images).rpartition("images")
        labels = Path(f"{above}labels{below}")
        labels = labels if above and labels.is_dir() else images
        fields = {"images": images, "labels": labels, "names": file}
        sections[key.removesuffix("id")] = {"type": "yolo_text", **fields}
    return sections


def _find_jsons(folder: Path) -> Sections:
    """COCO's jsons with train, val or test in their path, and the folders of their images."""
    sections: Sections = {}
    files = sorted(folder.rglob("*.json"))
    of_boxes = [file for file in files if file.name.startswith("instances")]
    for file in of_boxes or files:
        splits = SPLIT.findall(str(file.relative_to(folder)).lower())
        try:
            content = json.loads(file.read_bytes())
            name = content["images"][0]["file_name"]
            has_boxes = any("bbox" in annotation for annotation in content["annotations"])
        except (ValueError, LookupError, TypeError, OSError):
            continue
        if not splits or not has_boxes or not isinstance(name, str):
            continue
        near = [file.parent, folder / "images", folder, *sorted(folder.rglob("*/"))]
        images = next((place for place in near if (place / name).is_file()), None)
        if images is None:
            raise UserError(f"{file}: its first image, {name}, is in no folder of {folder}")
        if splits[-1] in sections:
            other = sections[splits[-1]]["annotations"]
            raise UserError(f"{file} and {other}: both are for {splits[-1]}; take one out")
        sections[splits[-1]] = {"type": "coco", "annotations": file, "images": images}
    return {split: sections[split] for split in ("train", "val", "test") if split in sections}


def _find_voc(folder: Path) -> Sections:
    """The lists train, val and test of the first folder that has Annotations and ImageSets/Main."""
    roots = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]
    for root in (root for root in roots if (root / "Annotations").is_dir()):
        lists = root / "ImageSets" / "Main"
        present = [name for name in ("train", "val", "test") if (lists / f"{name}.txt").is_file()]
        if present:
            return {s: {"type": "voc", "root": root, "image_sets": [s]} for s in present}
    return {}
