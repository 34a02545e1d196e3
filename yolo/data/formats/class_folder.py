"""Images in one folder for each class, as ImageNet's and torchvision's ``ImageFolder``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolo.data.annotations import Annotations, encode_name
from yolo.data.formats.detection import DetectionDataset, Findings, first_names
from yolo.data.images import decode
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Other files, and whatever begins with a dot, are passed over; the former are counted."""


@dataclass(frozen=True, slots=True)
class _ClassFiles:
    """The files of one class: packed at once, for a million names as objects are 100 MB.

    Attributes:
        name_bytes: the images' names from the root on, UTF-8, by alphabet, one after the other.
        name_lengths: int64 (I,), bytes of each.
        others: names of what is no image.
    """

    name_bytes: bytes
    name_lengths: np.ndarray
    others: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.name_lengths)


class ClassFolderDataset(DetectionDataset):
    """``root/<class>/<image>``: the label of an image is the folder that it lies in.

    To everything that handles data sets an image has one box, over all of it. Its size is known
    only when it is decoded: listing a folder opens no file, so that ImageNet's 1.3 million take
    seconds, and ``annotations`` holds neither sizes nor boxes but zeros.

    Args:
        root: the folder of the class folders.
        class_names: the order of the labels; the very names of the folders. None: by alphabet.

    Attributes:
        category_ids: the labels themselves.
        findings: files that are no images by their suffix, and classes without images.

    Raises:
        UserError: the folder is missing, holds no images or other classes than ``class_names``.
    """

    def __init__(self, *, root: Path, class_names: Sequence[str] | None = None) -> None:
        root = Path(root)
        names = _ordered(root, _list_folders(root), class_names)
        classes = [_list_images(root, name) for name in names]
        if not any(len(images) for images in classes):
            raise UserError(
                f"{root}: its folders hold no images ({', '.join(SUFFIXES)}); the images of each "
                "class must lie in a folder of their own directly below it."
            )
        super().__init__(
            source=root,
            image_root=root,
            class_names=names,
            category_ids=range(len(names)),
            annotations=_pack(classes),
            findings=_findings(names, classes),
        )

    def load(self, index: int) -> Sample:
        """Decode an image at its full size, with one box over all of it.

        Raises:
            UserError: the image is missing or damaged.
        """
        return self.sample(index, decode(self.image_path(index)))

    def empty(self, index: int) -> Sample:
        """What stands for an image that cannot be read: nothing to see, with its label.

        How large the image was is not known; scaled to the network's input it is all the same.
        """
        return self.sample(index, np.full((1, 1, 3), FILL_COLOUR_RGB, np.uint8))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """The image, with one box over all of it."""
        height, width = image.shape[:2]
        return Sample(
            image=image,
            boxes_xyxy_px=np.array([[0, 0, width, height]], np.float32),
            labels=self.annotations.labels[index : index + 1].astype(np.int64),
            ignored=np.zeros(1, bool),
            image_id=int(self.annotations.image_ids[index]),
            original_size_hw=(height, width),
        )

    def limit(self, limit: int | Sequence[int]) -> DetectionDataset:
        """``limit`` images, the first ones of every class in turn, or those of the listed ids."""
        if not isinstance(limit, int):
            return super().limit(limit)
        labels = self.annotations.labels
        first_of_class = np.searchsorted(labels, labels)  # (I,), labels ascend
        place = np.arange(len(labels)) - first_of_class  # (I,), 0 .. images of the class - 1
        return self.select(np.sort(np.argsort(place, kind="stable")[:limit]))


def _list_folders(root: Path) -> list[str]:
    """Names of the class folders by alphabet."""
    try:
        with os.scandir(root) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"the folder of classes {root} cannot be read ({error.strerror}); check data.train, "
            "data.val or data.test of the config."
        ) from error
    if not names:
        raise UserError(f"{root} holds no folders; it must hold one folder of images per class.")
    return sorted(names)


def _list_images(root: Path, name: str) -> _ClassFiles:
    """What lies in a class folder."""
    images: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(root / name) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_image = entry.name.lower().endswith(SUFFIXES) and entry.is_file()
                (images if is_image else others).append(f"{name}/{entry.name}")
    except OSError as error:
        raise UserError(f"the folder {root / name} cannot be read ({error.strerror}).") from error
    for told in (name, *others):
        encode_name(told)
    encoded = [encode_name(image) for image in sorted(images)]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return _ClassFiles(b"".join(encoded), lengths, tuple(sorted(others)))


def _ordered(root: Path, folders: list[str], class_names: Sequence[str] | None) -> list[str]:
    """The class folders in the order of ``class_names``."""
    if class_names is None:
        return folders
    problems = {
        "no such folder": sorted(set(class_names) - set(folders)),
        "not named": sorted(set(folders) - set(class_names)),
    }
    if any(problems.values()):
        told = "; ".join(f"{kind}: {first_names(v)}" for kind, v in problems.items() if v)
        raise UserError(
            f"data.class_names must name each class folder of {root} once, in any order ({told})."
        )
    return list(class_names)


def _pack(classes: Sequence[_ClassFiles]) -> Annotations:
    """One box per image, its corners and the image's size left at 0; class by class."""
    counts = [len(images) for images in classes]
    total = sum(counts)
    lengths = np.concatenate([images.name_lengths for images in classes])
    return Annotations(
        image_ids=np.arange(1, total + 1),
        name_bytes=np.frombuffer(b"".join(images.name_bytes for images in classes), np.uint8),
        name_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        sizes_hw=np.zeros((total, 2), np.int32),
        offsets=np.arange(total + 1),
        boxes_xyxy_px=np.zeros((total, 4), np.float32),
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        ignored=np.zeros(total, bool),
    )


def _findings(names: Sequence[str], classes: Sequence[_ClassFiles]) -> Findings:
    found = {
        "classes without images": [
            name for name, images in zip(names, classes, strict=True) if not len(images)
        ],
        "files that are no images": [other for images in classes for other in images.others],
    }
    return Findings(
        counts={kind: len(what) for kind, what in found.items() if what},
        texts=tuple(f"{kind}: {first_names(what)}" for kind, what in found.items() if what),
    )
