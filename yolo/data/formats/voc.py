"""Pascal VOC, and any data set of its form: Annotations/*.xml, JPEGImages, ImageSets/Main."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from yolo.data.bad_images import OnBadImage, stop
from yolo.data.formats.detection import (
    DetectionDataset,
    WrittenImage,
    check_distinct,
    check_plain,
    decimal,
)
from yolo.data.formats.folders import add_left_over
from yolo.data.formats.truth_files import ImageTruth, ListedImage, TruthFilesDataset, TruthObject
from yolo.data.formats.voc_files import IMAGES, VocFiles
from yolo.errors import UserError
from yolo.files import atomic_write

CORNERS = ("xmin", "ymin", "xmax", "ymax")
DIFFICULT = {
    **dict.fromkeys(("", "0", "false", "no", "none", "unspecified"), False),
    **dict.fromkeys(("1", "true", "yes"), True),
}
"""By the text in lower case."""


class VocDataset(TruthFilesDataset):
    """Image sets of a VOCdevkit, or of a folder of the same form.

    VOC counts pixels from 1 and includes the last ones, so boxes become (xmin - 1, ymin - 1, xmax,
    ymax). Difficult objects become ignored regions. The size of an image is that of its file: where
    the XML gives another, boxes stay as they are and are reported in the findings.

    Args:
        root: a folder with VOC2007, VOC2012, ..., or one with Annotations, JPEGImages, ImageSets.
        image_sets: lists of ImageSets/Main: "2007/trainval" or "train"; the name "*" is every XML.
        class_names: None: those of the files, by alphabet; there may be more than the files have.
        cache, on_bad_image, upright: see `DetectionDataset`.
    """

    def __init__(
        self,
        *,
        root: Path,
        image_sets: Sequence[str],
        class_names: Sequence[str] | None = None,
        cache: Path | None = None,
        on_bad_image: OnBadImage = stop,
        upright: bool = True,
    ) -> None:
        if not root.is_dir():
            raise UserError(
                f"the folder {root} does not exist: name a VOCdevkit, or a folder with Annotations "
                "and JPEGImages (scripts/download_voc.py fetches Pascal VOC)."
            )
        files = VocFiles(root)
        super().__init__(
            listed=[image for image_set in image_sets for image in files.listed(image_set)],
            parse=partial(_parse, files),
            source=root,
            image_root=root,
            part=" ".join(image_sets),
            class_names=class_names,
            cache=cache,
            on_bad_image=on_bad_image,
            upright=upright,
        )
        known = map(self.annotations.file_name, range(len(self)))
        lone = {"images without an XML, left out": files.without_xml(image_sets, known)}
        self.findings = add_left_over(self.findings, lone, len(self))
        if not self.class_names:
            raise UserError(
                f"{root}: the annotations of {', '.join(image_sets)} hold no object; choose other "
                "image sets, or name the classes in class_names."
            )


def _parse(files: VocFiles, image: ListedImage, content: bytes) -> ImageTruth:
    assert image.truth is not None
    xml = _read_xml(image.truth, content)
    objects = [
        _object(image.truth, f"object {number}", element)
        for number, element in enumerate(xml.iterfind("object"), start=1)
    ]
    named, missing = _text(xml, "filename"), ""
    file_name = files.find_image(image.name, named)
    if file_name is None:
        file_name, other = f"{image.name}.jpg", f" and no {named!r}" if named else ""
        missing = (
            f"{image.truth} has no image: {files.root} has no {file_name}, none with another "
            f"suffix of images{other}; restore it, or take it off the list."
        )
    return ImageTruth(file_name, objects, _size_hw(xml), missing)


def _read_xml(path: Path, content: bytes) -> Element:
    """An annotation; entities and external references are refused."""
    if not content.strip():
        raise UserError(f"the annotation file {path} is empty.")
    try:
        xml = fromstring(content)
    except ParseError as error:
        raise UserError(f"the annotation file {path} is broken XML: {error}.") from None
    except DefusedXmlException as error:
        raise UserError(
            f"the annotation file {path} is refused: it defines entities or refers to other files "
            f"({type(error).__name__}), which no annotation needs and attacks do; remove them."
        ) from None
    except (LookupError, ValueError) as error:  # an encoding that Python or expat does not know
        raise UserError(f"the annotation file {path} cannot be read: {error}.") from None
    if xml.tag != "annotation":
        raise UserError(f"{path} holds <{xml.tag}>, but a VOC annotation is an <annotation>.")
    return xml


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _size_hw(xml: Element) -> tuple[int, int] | None:
    """Of the image in pixels; None if it is missing or no size."""
    try:
        height, width = (int(float(_text(xml, f"size/{tag}"))) for tag in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < 2**31 and 0 < width < 2**31 else None


def _object(path: Path, place: str, element: Element) -> TruthObject:
    where, name = f"{path}, {place}", _text(element, "name")
    if not name:
        raise UserError(f"{where} has no <name>; name its class.")
    difficult = _text(element, "difficult")
    if difficult.lower() not in DIFFICULT:
        raise UserError(f"{where} ({name}): <difficult> is {difficult!r}, but must be 0 or 1.")
    corners = []
    for tag in CORNERS:
        text = _text(element, f"bndbox/{tag}")
        try:
            corners.append(float(text))
        except ValueError:
            problem = f"is {text!r}" if text else "is missing"
            raise UserError(
                f"{where} ({name}): <{tag}> in its <bndbox> {problem}, but must be a number."
            ) from None
    xmin, ymin, xmax, ymax = corners
    return TruthObject(place, name, (xmin - 1, ymin - 1, xmax, ymax), DIFFICULT[difficult.lower()])


def write_voc(
    folder: Path, dataset: DetectionDataset, images: Sequence[WrittenImage], split: str
) -> dict[str, Any]:
    """Write an XML for each image, fractions of a pixel too, and the list of them."""
    check_plain(dataset.class_names, images, "voc")
    stems = [image.stem for image in images]
    check_distinct("the image", stems, "voc has one XML for both: rename one")
    for image in images:
        objects = "".join(_object_xml(dataset.class_names, *found) for found in image.objects())
        xml = f"""<annotation>
  <folder>{IMAGES}</folder>
  <filename>{escape(PurePosixPath(image.name).name)}</filename>
  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>
  <segmented>0</segmented>
{objects}</annotation>
"""
        atomic_write(folder / "Annotations" / f"{image.stem}.xml", xml.encode())
    names = "".join(f"{name}\n" for name in stems)
    atomic_write(folder / "ImageSets/Main" / f"{split}.txt", names.encode())
    return {"type": "voc", "root": Path(), "image_sets": [split]}


def _object_xml(names: Sequence[str], box: Sequence[float], label: int, difficult: bool) -> str:
    left, top, right, bottom = box
    corners = zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True)
    edges = "".join(f"<{tag}>{decimal(value)}</{tag}>" for tag, value in corners)
    return f"""  <object>
    <name>{escape(names[label])}</name>
    <pose>Unspecified</pose><truncated>0</truncated><difficult>{int(difficult)}</difficult>
    <bndbox>{edges}</bndbox>
  </object>
"""
