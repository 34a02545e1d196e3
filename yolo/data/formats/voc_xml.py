"""One annotation of Pascal VOC: an XML file with the objects of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from yolo.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
DIFFICULT = {"": False, "0": False, "1": True, "Unspecified": False}

TOO_LARGE = 2**31
"""Pixels."""


@dataclass(frozen=True, slots=True)
class VocObject:
    """An object.

    Attributes:
        name: of its class.
        box_xyxy_px: edges in pixels. The file counts pixels from 1 and includes the last ones: the
            edges of its pixels xmin..xmax are xmin - 1 and xmax.
        difficult: neither an object to find nor a mistake to find it.
    """

    name: str
    box_xyxy_px: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """What an XML file says.

    Attributes:
        file_name: of the image; None if it is not told.
        size_hw: of the image in pixels; None if it is missing or no size.
        objects: in the file's order.
    """

    file_name: str | None
    size_hw: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def parse_voc_xml(path: Path, content: bytes) -> VocAnnotation:
    """Read an annotation; entities and external references are refused.

    Args:
        path: for messages.
        content: of the file.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    root = _root(path, content)
    if root.tag != "annotation":
        raise UserError(f"{path} holds <{root.tag}>, but a VOC annotation is an <annotation>.")
    return VocAnnotation(
        file_name=_text(root, "filename") or None,
        size_hw=_size_hw(root),
        objects=tuple(
            _object(path, number, element)
            for number, element in enumerate(root.iterfind("object"), start=1)
        ),
    )


def _root(path: Path, content: bytes) -> Element:
    if not content.strip():
        raise UserError(f"the annotation file {path} is empty.")
    try:
        return fromstring(content)
    except ParseError as error:
        raise UserError(f"the annotation file {path} is broken XML: {error}.") from None
    except DefusedXmlException as error:
        raise UserError(
            f"the annotation file {path} is refused: it defines entities or refers to other files "
            f"({type(error).__name__}), which no annotation needs and attacks do; remove them."
        ) from None
    except (LookupError, ValueError) as error:  # an encoding that Python or expat does not know
        raise UserError(f"the annotation file {path} cannot be read: {error}.") from None


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _size_hw(root: Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(_text(root, f"size/{tag}"))) for tag in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < TOO_LARGE and 0 < width < TOO_LARGE else None


def _object(path: Path, number: int, element: Element) -> VocObject:
    name = _text(element, "name")
    if not name:
        raise UserError(f"{path}, object {number} has no <name>; name its class.")
    difficult = _text(element, "difficult")
    if difficult not in DIFFICULT:
        raise UserError(
            f"{path}, object {number} ({name}): <difficult> is {difficult!r}, but must be 0 or 1."
        )
    xmin, ymin, xmax, ymax = (_corner(path, f"{number} ({name})", element, tag) for tag in CORNERS)
    return VocObject(name, (xmin - 1, ymin - 1, xmax, ymax), DIFFICULT[difficult])


def _corner(path: Path, called: str, element: Element, tag: str) -> float:
    text = _text(element, f"bndbox/{tag}")
    try:
        return float(text)
    except ValueError:
        told = f"is {text!r}" if text else "is missing"
        raise UserError(
            f"{path}, object {called}: <{tag}> in its <bndbox> {told}, but must be a number."
        ) from None
