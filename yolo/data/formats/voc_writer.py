"""Writes a folder of Pascal VOC's form; `yolo.data.formats.voc` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

from yolo.data.formats.voc_xml import CORNERS
from yolo.data.formats.written_content import Content, check_distinct, check_plain, decimal, stem

IMAGES = "JPEGImages"


def write_voc(folder: Path, content: Content) -> dict[str, Any]:
    """Write an XML for each image and the list of them; ignored regions are difficult.

    VOC counts pixels from 1 and includes the last ones, so xmin and ymin are larger by 1 than the
    edges; fractions of a pixel stay.

    Raises:
        UserError: a name that the format cannot hold, or two images that share an XML.
    """
    check_plain("the class", content.class_names, "voc")
    check_plain("the image", content.names, "voc")
    check_distinct("the class", content.class_names, "voc knows classes by their names")
    stems = [stem(name) for name in content.names]
    check_distinct("the image", stems, "voc has one XML for both: rename one")
    sizes = content.annotations.sizes_hw.tolist()
    for size_hw, (name, boxes_xyxy_px, labels, ignored) in zip(
        sizes, content.images(), strict=True
    ):
        objects = [
            _object(content.class_names[label], box, difficult)
            for box, label, difficult in zip(
                boxes_xyxy_px.tolist(), labels.tolist(), ignored.tolist(), strict=True
            )
        ]
        path = folder / "Annotations" / f"{stem(name)}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_annotation(name, size_hw, objects), "utf-8")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    text = "".join(f"{name}\n" for name in stems)
    (lists / f"{content.split}.txt").write_text(text, "utf-8")
    return {"type": "voc", "root": Path(), "image_sets": [content.split]}


def _annotation(name: str, size_hw: Sequence[int], objects: Sequence[str]) -> str:
    height, width = size_hw
    return (
        "<annotation>\n"
        f"  <folder>{IMAGES}</folder>\n"
        f"  <filename>{escape(PurePosixPath(name).name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{''.join(objects)}"
        "</annotation>\n"
    )


def _object(class_name: str, box_xyxy_px: Sequence[float], difficult: bool) -> str:
    left, top, right, bottom = box_xyxy_px
    corners = zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True)
    box = "".join(f"<{tag}>{decimal(value)}</{tag}>" for tag, value in corners)
    return (
        "  <object>\n"
        f"    <name>{escape(class_name)}</name>\n"
        "    <pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{int(difficult)}</difficult>\n"
        f"    <bndbox>{box}</bndbox>\n"
        "  </object>\n"
    )
