from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from yolo.data.images import decode, size_hw
from yolo.errors import UserError

ORIENTATION = 0x0112


def gradient() -> np.ndarray:
    """A 40 x 60 RGB image of which each channel and direction can be told apart."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, 60)
    image[..., 1] = np.linspace(0, 250, 40)[:, None]
    image[..., 2] = 90
    return image


def with_orientation(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(gradient()).save(path, quality=95, exif=exif)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 4


def test_every_depth_and_number_of_channels_becomes_rgb(tmp_path: Path) -> None:
    image = gradient()
    grey = image[..., 0]
    pictures = {
        "rgb.png": Image.fromarray(image),
        "rgb.jpg": Image.fromarray(image),
        "rgba.png": Image.fromarray(np.dstack([image, grey])),
        "cmyk.tif": Image.fromarray(image).convert("CMYK"),
        "palette.gif": Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        decoded = decode(tmp_path / name, expected_hw=(40, 60))
        assert decoded.dtype == np.uint8
        assert close(decoded, image), name
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert close(decode(tmp_path / "grey.png"), np.dstack([grey] * 3))
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., ::-1].astype(np.uint16) * 257)
    assert close(decode(tmp_path / "deep.png"), image)


@pytest.mark.parametrize(
    ("orientation", "rotated"),
    [(1, gradient()), (3, np.rot90(gradient(), 2)), (6, np.rot90(gradient(), -1))],
)
def test_exif_rotation_is_honoured_where_it_gives_the_expected_size(
    tmp_path: Path, orientation: int, rotated: np.ndarray
) -> None:
    with_orientation(tmp_path / "a.jpg", orientation)
    assert close(decode(tmp_path / "a.jpg", expected_hw=rotated.shape[:2]), rotated)
    assert close(decode(tmp_path / "a.jpg"), rotated)


def test_exif_rotation_is_left_out_where_the_stored_size_is_expected(tmp_path: Path) -> None:
    with_orientation(tmp_path / "a.jpg", 6)
    assert close(decode(tmp_path / "a.jpg", expected_hw=(40, 60)), gradient())
    assert size_hw(tmp_path / "a.jpg") == (40, 60)  # what the header gives


def test_a_header_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the size of the image .* cannot be read"):
        size_hw(Path(__file__))
    with pytest.raises(UserError, match="does not exist"):
        size_hw(tmp_path / "none.jpg")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gradient()).save(buffer, "JPEG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size without having the pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    crc = zlib.crc32(header).to_bytes(4, "big")
    return buffer.getvalue()[:12] + header + crc + buffer.getvalue()[33:]  # IHDR ends at 33


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "the image PATH does not exist."),
        (b"", "the image PATH is an empty file."),
        (b"GIF? no", "the image PATH cannot be decoded: it is damaged or of an unknown format."),
        (jpeg()[:600], "the image PATH is cut off: its JPEG data has no end; fetch it again."),
        (png_header(30_000, 30_000), "the image PATH has more than 178,956,970 pixels."),
        (png_header(61, 40)[:50], "the image PATH cannot be decoded: it is damaged or"),
        (
            jpeg(),
            "PATH is 60x40 px (width x height), but its annotations are for an image of 61x40 px",
        ),
    ],
    ids=["missing", "empty", "no image", "cut off", "bomb", "damaged", "other size"],
)
def test_each_fault_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence.replace("PATH", str(path)))):
        decode(path, expected_hw=(40, 61))


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        decode(tmp_path)
