"""What labels mean: class names told apart, and the label map of another data set taken over."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from yolo.data.formats.detection import DetectionDataset, Key, first_names
from yolo.errors import UserError


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
