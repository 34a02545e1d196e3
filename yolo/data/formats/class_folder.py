"""Images in one folder for each class, as ImageNet's and torchvision's ``ImageFolder``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from yolo.data.annotations import Annotations, Contents, Findings, encode_name
from yolo.data.formats.detection import DetectionDataset, check_named_once, first_names
from yolo.data.formats.folders import leads_to, list_entries
from yolo.data.images import IMAGE_SUFFIXES, decode, is_image
from yolo.errors import UserError
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.records import Sample


class ClassFolderDataset(DetectionDataset):
    """``root/<class>/<image>``: the label of an image is the folder that it lies in.

    An image has one box, over all of it. Its size is known only when it is decoded: no file is
    opened, so that ImageNet's 1.3 million take seconds, and ``annotations`` holds zeros for sizes
    and boxes. Hidden files are passed over, and so are those that are no images by their suffix,
    which the findings count as they do classes without images. ``category_ids`` are the labels.

    Args:
        root: the folder of the class folders.
        class_names: the very names of the folders; None: by alphabet.
    """

    def __init__(self, *, root: Path, class_names: Sequence[str] | None = None) -> None:
        entries = list_entries("folder of classes", root)
        names = sorted(e.name for e in entries if leads_to(e.is_dir) and not e.name.startswith("."))
        if not names:
            raise UserError(
                f"{root} holds no folders; it must hold one folder of images per class."
            )
        if class_names is not None:
            what = f"class folder of {root}"
            unknown, missing = "no such folder", "not named"
            check_named_once(what, names, class_names, unknown=unknown, missing=missing)
            names = list(class_names)
        files = [_list_files(root, name) for name in names]
        images = [image for found, _ in files for image in found]
        counts = [len(found) for found, _ in files]
        if not images:
            raise UserError(
                f"{root}: its folders hold no images ({', '.join(IMAGE_SUFFIXES)}); the images of "
                "each class must lie in a folder of their own directly below it."
            )
        found = {
            "classes without images": [n for n, i in zip(names, counts, strict=True) if i == 0],
            "files that are no images": [other for _, others in files for other in others],
        }
        findings = Findings(
            counts={kind: len(what) for kind, what in found.items() if what},
            texts=tuple(f"{kind}: {first_names(what)}" for kind, what in found.items() if what),
        )
        total = len(images)
        annotations = Annotations.pack(
            image_ids=np.arange(1, total + 1),
            file_names=images,
            sizes_hw=np.zeros((total, 2)),
            image_index=np.arange(total),
            boxes_xyxy_px=np.zeros((total, 4)),
            labels=np.repeat(np.arange(len(names)), counts),
            ignored=np.zeros(total, bool),
        )
        contents = Contents(tuple(names), annotations, findings)
        super().__init__(root, root, contents, range(len(names)))

    def load(self, index: int) -> Sample:
        """Decode an image at its full size, with one box over all of it."""
        return self.sample(index, decode(self.image_path(index)))

    def empty(self, index: int) -> Sample:
        """What replaces an image that cannot be read: one pixel, with its label.

        How large the image was is not known; scaled to the network's input it is all the same.
        """
        return self.sample(index, np.full((1, 1, 3), FILL_COLOUR_RGB, np.uint8))

    def sample(self, index: int, image: np.ndarray) -> Sample:
        """The image, with one box over all of it."""
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        return replace(super().sample(index, image), boxes_xyxy_px=whole)

    def limit(self, limit: int | Sequence[int]) -> DetectionDataset:
        """``limit`` images, the first ones of every class in turn, or those of the listed ids."""
        if not isinstance(limit, int):
            return super().limit(limit)
        labels = self.annotations.labels
        first_of_class = np.searchsorted(labels, labels)  # (I,), labels ascend
        place = np.arange(len(labels)) - first_of_class  # (I,), 0 .. images of the class - 1
        return self.select(np.sort(np.argsort(place, kind="stable")[:limit]))


def _list_files(root: Path, name: str) -> tuple[list[str], list[str]]:
    """The images of a class and what is no image, from the root on and by alphabet."""
    images: list[str] = []
    others: list[str] = []
    for entry in list_entries("folder of images", root / name):
        if not entry.name.startswith("."):
            kind = images if is_image(entry.name) and leads_to(entry.is_file) else others
            kind.append(f"{name}/{entry.name}")
    for shown in (name, *others):
        encode_name(shown)
    return sorted(images), sorted(others)
