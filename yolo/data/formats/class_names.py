"""Class names: read from files, told apart, and the label map of another data set taken over."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo.data.formats.detection import DetectionDataset, Key, first_names
from yolo.errors import UserError
from yolo.files import read_text

USUAL = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "_darknet.labels")
"""What labelling tools call such a file."""


class _NoAliases(yaml.SafeLoader):
    """Names need no aliases, of which a few lines can stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias (*name), which class names do not need")
        return super().compose_node(parent, index)


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a file, by class number."""
    names = _load(path)
    if isinstance(names, dict):
        names = names.get("names")
        if isinstance(names, dict):
            numbered = {str(number): name for number, name in names.items()}  # or in quotes
            numbers = [str(number) for number in range(len(names))]
            if set(numbered) != set(numbers):
                raise UserError(
                    f"{path}: the keys of `names` must be the class numbers 0, 1, 2, ...."
                )
            names = [numbered[number] for number in numbers]
    elif isinstance(names, str):
        names = [line.strip() for line in names.strip().splitlines()]
    if not isinstance(names, list) or not names:
        raise UserError(
            f"{path} must have `names`: a list of class names, or number: name; or a name a line."
        )
    for name in names:
        if not isinstance(name, str) or not name:
            problem = reprlib.repr(name)  # it may be nested without end
            raise UserError(f"{path}: the class name {problem} is no text; put it in quotes.")
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise UserError(f"{path}: `names` repeats {first_names(repeated)}; names must differ.")
    return tuple(names)


def _load(path: Path) -> Any:
    """What a YAML holds, or a text, which is YAML for a single name over several lines."""
    text = read_text("the file of class names", path, largest_bytes=1 << 20)
    if re.search(r"^\s*names\s*=", text, re.MULTILINE):
        raise UserError(f"{path} lists Darknet's files; name the one behind its `names =` instead.")
    if path.suffix.lower() in (".txt", ".names", ".labels"):  # a name a line
        return text
    try:
        content = yaml.load(text, _NoAliases)  # noqa: S506 - a SafeLoader
        return text if isinstance(content, str) else content
    except Exception as error:  # what PyYAML raises on 2026-13-01 or !!timestamp is anyone's guess
        problem = " ".join(str(error).split())
        raise UserError(f"the file of class names {path} cannot be read: {problem}.") from None


def names_files_near(*folders: Path) -> Iterator[Path]:
    """The usual files in the folders of a data set and the two above each, nearest first."""
    parents = [folder.parent for folder in folders]
    for place in dict.fromkeys((*folders, *parents, *(parent.parent for parent in parents))):
        yield from (file for name in USUAL if (file := place / name).is_file())


def describe_other_names(names: tuple[str, ...], files: Iterable[Path]) -> str | None:
    """The warning about the first file that gives the classes other names."""
    for file in files:
        with contextlib.suppress(UserError):  # no file of names, then
            other = read_names(file)
            if other != names:
                return (
                    f"{file} names the classes {first_names(other)}, but here they are "
                    f"{first_names(names)}: see which is right for these text files"
                )
    return None


def count_keypoint_values(files: Iterable[Path]) -> int:
    """How many numbers the key points behind each box are, by the first `kpt_shape`; else 0."""
    for file in files:
        with contextlib.suppress(UserError):
            content = _load(file)
            shape = content.get("kpt_shape") if isinstance(content, dict) else None
            if isinstance(shape, list) and {*map(type, shape)} == {int}:
                return math.prod(shape)
    return 0


def unique_names(names: Sequence[str], category_ids: Sequence[Key]) -> list[str]:
    """Class names; one that several classes share has their ids behind it: "cat (id 7)"."""
    counts = Counter(names)
    return [
        f"{name} (id {number})" if counts[name] > 1 else name
        for name, number in zip(names, category_ids, strict=True)
    ]


def with_label_map(
    dataset: DetectionDataset, class_names: Sequence[str], *, owner: str
) -> DetectionDataset:
    """A view with the labels of an owner, another data set or a checkpoint; names decide.

    Category ids stay; a class that only the owner has gets a new one. A box of a class that the
    owner lacks is a UserError.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    used = [dataset.class_names[label] for label in np.unique(dataset.annotations.labels).tolist()]
    foreign = [repr(name) for name in used if name not in label_of]
    if foreign:
        raise UserError(
            f"{dataset.source} has the classes {first_names(foreign)}, which {owner} lacks (its "
            f"classes are {first_names(class_names)}): what is never shown is never found; "
            "correct the names, or take what is of these classes out."
        )
    own = dict(zip(dataset.class_names, dataset.category_ids, strict=True))
    new_ids = count(1 + max((i for i in own.values() if isinstance(i, int)), default=0))
    ids = [own[name] if name in own else next(new_ids) for name in class_names]
    view, labels = copy.copy(dataset), [label_of.get(name, 0) for name in dataset.class_names]
    view.class_names, view.category_ids = tuple(class_names), tuple(ids)
    new = np.array(labels, np.int32)[dataset.annotations.labels]
    view.annotations = replace(dataset.annotations, labels=new)
    return view
