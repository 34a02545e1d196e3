"""Small data sets of Pascal VOC's form, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def voc_object(name: str, box: tuple[object, ...], difficult: object = 0) -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def voc_xml(*objects: str, size_wh: tuple[int, int] | None = (60, 40), file_name: str = "") -> str:
    size = ""
    if size_wh is not None:
        size = f"<size><width>{size_wh[0]}</width><height>{size_wh[1]}</height></size>"
    return f"<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"


def write_image(path: Path, size_wh: tuple[int, int] = (60, 40)) -> Path:
    """A plain image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((size_wh[1], size_wh[0], 3), 127, np.uint8))
    return path


def write_voc(folder: Path, xmls: dict[str, str], image_set: str = "train") -> Path:
    """XML files by name, listed in this order, each with its image of 60x40 px."""
    for name, text in xmls.items():
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        xml = folder / "Annotations" / f"{name}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(text)
    image_sets = folder / "ImageSets/Main"
    image_sets.mkdir(parents=True, exist_ok=True)
    (image_sets / f"{image_set}.txt").write_text("".join(f"{name}\n" for name in xmls))
    return folder
