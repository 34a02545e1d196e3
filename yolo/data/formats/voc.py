"""Pascal VOC, and any data set of its form: Annotations/*.xml, JPEGImages, ImageSets/Main."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from yolo.data.formats.detection import DetectionDataset, first_names, is_inside
from yolo.data.formats.truth_files import Listed, Truth, read_truth_files
from yolo.data.formats.unread import OnUnread, nominal_hw, stop
from yolo.data.formats.voc_xml import parse_voc_xml
from yolo.data.images import size_hw
from yolo.data.reading import read_regular
from yolo.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
EVERY_XML = "*"


class VocDataset(DetectionDataset):
    """Image sets of a VOCdevkit, or of a folder of the same form.

    Boxes become (xmin - 1, ymin - 1, xmax, ymax), see `voc_xml`; they are clipped to their image,
    and those without an area are dropped. Difficult objects become ignored regions. Images without
    objects stay. The size of an image is that of its file: some data sets of this form give wrong
    ones in the XML; their boxes stay as they are and are told in the findings.

    Category ids are label + 1: the format has none.

    Args:
        root: a folder with VOC2007, VOC2012, ..., or one with Annotations, JPEGImages, ImageSets.
        image_sets: lists of ImageSets/Main: "2007/trainval" or "train"; the name "*" is every XML.
        class_names: the order of the labels, at least the classes of the files; None: by alphabet.
        cache: a folder to keep what was read in; None keeps nothing.
        on_unread: told of each image whose size cannot be read; returns to go on without.

    Raises:
        UserError: a list, XML or image is missing or broken, or a class is not in ``class_names``.
    """

    def __init__(
        self,
        *,
        root: Path,
        image_sets: Sequence[str],
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_unread: OnUnread = stop,
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise UserError(
                f"the folder {root} does not exist: name a VOCdevkit, or a folder with Annotations "
                "and JPEGImages (scripts/download_voc.py fetches Pascal VOC)."
            )
        listed = [image for image_set in image_sets for image in _listed(root, image_set)]
        _check_distinct(listed)
        contents = read_truth_files(
            listed,
            partial(_parse, root, on_unread),
            source=root,
            image_root=root,
            part=" ".join(image_sets),
            unit="object",
            class_names=class_names,
            cache=cache,
        )
        if not contents.class_names:
            raise UserError(
                f"{root}: the annotations of {', '.join(image_sets)} hold no object; choose other "
                "image sets, or name the classes in data.class_names."
            )
        super().__init__(
            source=root,
            image_root=root,
            class_names=contents.class_names,
            category_ids=range(1, len(contents.class_names) + 1),
            annotations=contents.annotations,
            findings=contents.findings,
        )


def _listed(root: Path, image_set: str) -> list[Listed]:
    """The images of "2007/trainval", "train" or "*"; named as in "VOC2007/JPEGImages/000005"."""
    year, _, list_name = image_set.rpartition("/")
    folder = f"VOC{year}" if year else ""
    annotations = root / folder / "Annotations"
    if not is_inside(image_set) or not annotations.is_dir():
        raise UserError(
            f"{root} has no image set {image_set!r}: there is no folder {annotations}; "
            f"{_offer(root)}."
        )
    if list_name == EVERY_XML:
        names = [(path.stem, "") for path in sorted(annotations.glob("*.xml"))]
    else:
        names = _names(root, root / folder / "ImageSets/Main" / f"{list_name}.txt")
    if not names:
        raise UserError(f"{root}: the image set {image_set!r} lists no image; {_offer(root)}.")
    images = PurePosixPath(folder, "JPEGImages")
    return [
        Listed(name=str(images / name), truth=annotations / f"{name}.xml", where=where)
        for name, where in names
    ]


def _names(root: Path, path: Path) -> list[tuple[str, str]]:
    """The names on a list, each with its place."""
    try:
        lines = read_regular(path).decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"the image set {path} does not exist; {_offer(root)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the image set {path} cannot be read: {error}.") from None
    names = [
        (line.strip(), f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    for name, where in names:
        if not is_inside(name):
            raise UserError(f"{where}: {name!r} leads out of the data set; name an image in it.")
    return names


def _offer(root: Path) -> str:
    """What may be chosen; lists of single classes ("dog_train") only where there are no others."""
    found = [
        "/".join([*path.parts[:-3], path.stem]).removeprefix("VOC")
        for path in sorted(
            list_path.relative_to(root)
            for pattern in ("ImageSets/Main/*.txt", "VOC*/ImageSets/Main/*.txt")
            for list_path in root.glob(pattern)
        )
    ]
    plain = [name for name in found if "_" not in name] or found
    every = f"{EVERY_XML!r} takes every XML of Annotations"
    return f"it has {first_names(plain, 8)}, and {every}" if plain else every


def _check_distinct(listed: Sequence[Listed]) -> None:
    first: dict[str, Listed] = {}
    for image in listed:
        other = first.setdefault(image.name, image)
        if other is not image:
            raise UserError(
                image.told(
                    f"{image.name} is listed twice, first in {other.where or 'Annotations'}; "
                    "remove one of the two."
                )
            )


def _parse(root: Path, on_unread: OnUnread, image: Listed, content: bytes) -> Truth:
    assert image.truth is not None
    said = parse_voc_xml(image.truth, content)
    candidates = _candidates(image, said.file_name)
    file_name = next((name for name in candidates if (root / name).is_file()), None)
    try:
        if file_name is None:
            raise _no_image(root, image, candidates)
        size = size_hw(root / file_name, said.size_hw)
    except UserError as error:
        on_unread(error)
        size = nominal_hw([found.box_xyxy_px for found in said.objects], said.size_hw)
        truth = Truth(file_name or candidates[0], size, unread=True)
    else:
        differs = said.size_hw is not None and said.size_hw != size
        truth = Truth(file_name, size, annotated_hw=said.size_hw if differs else None)
    for number, found in enumerate(said.objects, start=1):
        truth.add(number, found.name, found.box_xyxy_px, ignored=found.difficult)
    return truth


def _candidates(image: Listed, file_name: str | None) -> list[str]:
    """What the image's file may be called, relative to the root.

    The devkit goes by the name on the list. The <filename> decides between several suffixes, and
    finds the image where none has the listed name; files that were renamed often keep a wrong one.
    """
    candidates = [f"{image.name}{suffix}" for suffix in IMAGE_SUFFIXES]
    if file_name is not None:
        if not is_inside(file_name):
            raise UserError(
                f"{image.truth}: <filename> is {file_name!r}, but must stay inside JPEGImages."
            )
        named = PurePosixPath(image.name).parent / file_name
        if named.stem == PurePosixPath(image.name).name:
            candidates.insert(0, str(named))
        else:
            candidates.append(str(named))
    return candidates


def _no_image(root: Path, image: Listed, candidates: Sequence[str]) -> UserError:
    return UserError(
        f"{image.truth} has no image: there is no {first_names(candidates)} in {root}; restore it, "
        "or take it off the list."
    )
