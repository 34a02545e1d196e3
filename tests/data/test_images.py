from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from yolo.data import images
from yolo.data.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    UNREADABLE,
    Header,
    decode,
    read_header,
)
from yolo.errors import UserError

ORIENTATION = 0x0112


def gradient() -> np.ndarray:
    """A 40 x 60 RGB image of which each channel and direction can be told apart."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, 60)
    image[..., 1] = np.linspace(0, 250, 40)[:, None]
    image[..., 2] = 90
    return image


UPRIGHT = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.rot90(np.fliplr(image)),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(np.fliplr(image), -1),
    8: np.rot90,
}
"""EXIF orientation -> the stored image as it is to be shown."""


def save_turned(path: Path, image: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(image).save(path, exif=exif, quality=95)


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


def pnm(kind: str, white: int, values: np.ndarray) -> bytes:
    """One that says which value is white; with a comment, as GIMP writes it."""
    height, width = values.shape[:2]
    head = f"{kind}\n# made by hand\n{width} {height}\n{white}\n".encode()
    return head + values.astype(">u2" if white > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("white", [15, 100, 255, 1023, 4095, 65535])
def test_a_pnm_is_scaled_by_its_own_white(tmp_path: Path, white: int) -> None:
    path, share = tmp_path / "a.pnm", gradient() / 255
    for kind, values in (("P6", share), ("P5", share[..., 0])):
        path.write_bytes(pnm(kind, white, (values * white).round()))
        expected = gradient() if kind == "P6" else np.dstack([gradient()[..., 0]] * 3)
        assert np.abs(decode(path).astype(int) - expected).max() <= 255 / white + 1, kind


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_of_16_bits_the_upper_8_are_taken_unless_they_would_be_black(tmp_path, suffix) -> None:
    path, deep = tmp_path / f"a{suffix}", gradient()[..., 0].astype(np.uint16) * 257
    for values in (deep, deep // 4, deep * 0):  # 16 bits, 14 bits, a covered lens
        cv2.imwrite(str(path), values)
        assert (decode(path) == (values >> 8)[..., None]).all()
    for values in (deep // 16, deep // 64):
        cv2.imwrite(str(path), values)
        with pytest.raises(UserError, match=rf"16 bits per channel, none above {values.max():,}, "):
            decode(path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".pfm", "float32"), *((".tif", kind) for kind in ("int16", "int32", "float32", "float64"))],
)
def test_pixels_without_a_known_white_are_refused(tmp_path, suffix, kind, channels) -> None:
    path, values = tmp_path / f"a{suffix}", gradient().astype(kind)
    cv2.imwrite(str(path), values[..., 0] if channels == 1 else values)
    with pytest.raises(UserError, match=f"pixels of type {kind}.* to 8 bits|without sign") as error:
        decode(path)
    assert "\n" not in str(error.value)
    if suffix == ".tif" and channels == 3:  # Pillow knows none of them
        with pytest.raises(
            UserError, match=f"the size of .*{suffix} cannot be read: .*without sign"
        ):
            read_header(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation_is_turned_upright_or_left(tmp_path, suffix, orientation) -> None:
    path, upright = tmp_path / f"a{suffix}", UPRIGHT[orientation](gradient())
    save_turned(path, gradient(), orientation)
    assert read_header(path) == Header((40, 60), orientation)
    size = upright.shape[:2]
    assert close(decode(path), upright)
    assert close(decode(path, size), upright)
    assert close(decode(path, upright=False), gradient())
    assert close(decode(path, (40, 60), upright=False), gradient())
    tells = orientation >= 5  # only where the sizes differ, the annotated one tells
    assert close(decode(path, (40, 60)), gradient() if tells else upright)


def test_an_exif_behind_the_pixels_counts_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_turned(path, gradient(), 6)
    content = path.read_bytes()
    place = content.index(b"eXIf") - 4
    end = place + 12 + int.from_bytes(content[place : place + 4], "big")
    late = content[:place] + content[end:-12] + content[place:end] + content[-12:]
    for written, orientation in ((late, 6), (late.replace(b"eXIfMM", b"eXIfXX"), 1)):
        path.write_bytes(written)
        assert read_header(path) == Header((40, 60), orientation)
        assert close(decode(path), UPRIGHT[orientation](gradient()))


def test_the_suffixes_are_those_that_can_be_decoded(tmp_path: Path) -> None:
    Image.init()
    formats = {"MPO", *FORMATS}  # MPO is JPEG
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    assert set(IMAGE_SUFFIXES) == known
    for suffix in known - {".pfm"}:
        Image.fromarray(gradient()[..., 0]).save(tmp_path / f"a{suffix}")
        assert decode(tmp_path / f"a{suffix}").shape == (40, 60, 3), suffix


def test_a_header_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the size of the image .* cannot be read"):
        read_header(Path(__file__))
    with pytest.raises(UserError, match="does not exist"):
        read_header(tmp_path / "none.jpg")


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
        (b"GIF? no", f"the image PATH cannot be decoded: {UNREADABLE}."),
        (jpeg()[:600], "the image PATH is cut off: its JPEG data has no end; fetch it again."),
        (png_header(30_000, 30_000), "the image PATH has more than 178,956,970 pixels."),
        (png_header(61, 40)[:50], "the image PATH cannot be decoded: it is damaged,"),
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


def test_too_little_memory_is_no_damaged_image(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    Image.fromarray(gradient()).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_decode_pixels", refuse)
    with pytest.raises(MemoryError):
        decode(tmp_path / "a.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        decode(tmp_path)
