"""Images that are damaged or strange: a sample, or one sentence about the file; nothing else."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.detectors import ONE_RANK
from tests.faults.fuzz_trials import (
    blank,
    bounded,
    captured,
    config_of,
    error_of,
    flip_bits,
    is_bad,
    named_once,
    write_coco_of,
)
from tests.faults.trial import Property
from yolo.config import Config
from yolo.data.formats.coco import CocoDataset
from yolo.factory.data import build_dataset, build_evaluation_batches, build_training_batches
from yolo.records import Sample

PROPERTY = "11 Image and label fuzz"
WIDTH, HEIGHT = 96, 64
BOX_XYWH = [10, 20, 30, 25]

Mutate = Callable[[random.Random, Path], None]
"""Writes a file at the path, or whatever else can be found where an image should be."""


def picture(seed: int = 0) -> Image.Image:
    """Smooth colours, which JPEG keeps."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def encoded(form: str, image: Image.Image | None = None, **settings: object) -> bytes:
    """The bytes of a file of Pillow's format ``form``."""
    buffer = io.BytesIO()
    (image or picture()).save(buffer, form, **settings)
    return buffer.getvalue()


def _any_form(generator: random.Random) -> bytes:
    form, settings = generator.choice(
        [
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("JPEG", {"exif": _exif(generator.randint(1, 8))}),
            ("PNG", {}),
            ("WEBP", {}),
            ("GIF", {}),
            ("BMP", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
        ]
    )
    return encoded(form, **settings)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def truncated(generator: random.Random, path: Path) -> None:
    content = _any_form(generator)
    path.write_bytes(content[: generator.randrange(1, len(content))])


def truncated_jpeg_with_its_end(generator: random.Random, path: Path) -> None:
    content = encoded("JPEG", progressive=generator.random() < 0.5)
    path.write_bytes(content[: generator.randrange(20, len(content))] + b"\xff\xd9")


def flipped_bits(generator: random.Random, path: Path) -> None:
    path.write_bytes(flip_bits(generator, _any_form(generator), (1, 1, 3, 10, 100)))


def zero_bytes(generator: random.Random, path: Path) -> None:
    path.write_bytes(blank(generator, _any_form(generator), (1, 16, 512, 4096)))


def swapped_halves(generator: random.Random, path: Path) -> None:
    content = _any_form(generator)
    cut = generator.randrange(1, len(content))
    path.write_bytes(content[:32] + content[cut:] + content[32:cut])


def broken_exif(generator: random.Random, path: Path) -> None:
    exif = bytearray(_exif(6))
    for _ in range(generator.randint(1, 8)):
        exif[generator.randrange(6, len(exif))] = generator.randrange(256)
    path.write_bytes(encoded("JPEG", exif=bytes(exif)))


def other_mode(generator: random.Random, path: Path) -> None:
    """CMYK, grey, grey with alpha, palette, one bit, transparency."""
    mode, form = generator.choice(
        [
            *(("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("L", "PNG"), ("LA", "PNG")),
            *(("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("1", "TIFF"), ("RGBA", "PNG")),
            *(("RGBA", "WEBP"), ("YCbCr", "JPEG"), ("LAB", "TIFF"), ("L", "BMP"), ("I;16", "PNG")),
        ]
    )
    if mode == "I;16":
        deep = np.asarray(picture().convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(deep)
    else:
        image = picture().convert(mode)
    path.write_bytes(encoded(form, image))


def any_orientation(generator: random.Random, path: Path) -> None:
    path.write_bytes(encoded("JPEG", exif=_exif(generator.randint(0, 9))))


def wrong_extension(generator: random.Random, path: Path) -> None:
    path.write_bytes(encoded(generator.choice(["PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])))


def other_size(generator: random.Random, path: Path) -> None:
    sizes = [(1, 1), (1, HEIGHT), (WIDTH, 1), (WIDTH, HEIGHT - 1), (HEIGHT, WIDTH)]
    form = generator.choice(["JPEG", "PNG", "WEBP", "BMP"])
    path.write_bytes(encoded(form, picture().resize(generator.choice(sizes))))


def lying_header(
    generator: random.Random, path: Path, sides: tuple[int, ...] = (13_000, 50_000, 65_500)
) -> None:
    """A decompression bomb by its header, or one that only annotations of its own size would let
    through."""
    side = generator.choice(sides)
    form = generator.choice(["PNG", "JPEG", "BMP", "GIF"])
    path.write_bytes(_png_bomb(side) if form == "PNG" else _enlarged(form, side))


def _png_bomb(side: int) -> bytes:
    """One bit per pixel, and as many rows of it as fit into some kilobytes."""
    row = bytes(1 + -(-side // 8))
    data = zlib.compress(row * min(side, 4_000_000 // len(row)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    )


def _enlarged(form: str, side: int) -> bytes:
    """A small image whose header says that it is large."""
    content = bytearray(encoded(form))
    of_jpeg = content.find(b"\xff\xc0") + 5
    place, layout = {"JPEG": (of_jpeg, ">HH"), "BMP": (18, "<ii"), "GIF": (6, "<HH")}[form]
    struct.pack_into(layout, content, place, side, side)
    return bytes(content)


def no_image(generator: random.Random, path: Path) -> None:
    contents = [
        b"",
        b"\0" * 5000,
        b"<!DOCTYPE html><html>404 Not Found</html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 64\n(x) print\nshowpage\n",
        b"\xff\xd8\xff\xd9",
        b"GIF89a",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n" + bytes(1000),
        b"P6 96 64 255\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n",
        generator.randbytes(3000),
    ]
    path.write_bytes(generator.choice(contents))


def no_file(generator: random.Random, path: Path) -> None:
    make: Callable[[Path], object] = generator.choice(
        [
            Path.mkdir,
            os.mkfifo,
            lambda at: at.symlink_to("nowhere.jpg"),
            lambda at: at.symlink_to(at.name),  # a circle
            lambda at: at.symlink_to("/dev/zero"),
            lambda at: None,
        ]
    )
    make(path)


EITHER, SAMPLE, ERROR = "sample or error", "sample", "error"

MUTATIONS: dict[Mutate, str] = {
    truncated: EITHER,
    truncated_jpeg_with_its_end: EITHER,
    flipped_bits: EITHER,
    zero_bytes: EITHER,
    swapped_halves: EITHER,
    broken_exif: SAMPLE,
    other_mode: SAMPLE,
    any_orientation: SAMPLE,
    wrong_extension: SAMPLE,
    other_size: ERROR,
    lying_header: ERROR,
    no_image: ERROR,
    no_file: ERROR,
}
"""What writes the file, and what must become of it."""


def mutated_image(seed: int, folder: Path) -> None:
    """A sample or one sentence that names the file, nothing on the terminal, memory within 1.5
    times, no byte of the data changed.

    One image, loaded as training does.
    """
    generator = random.Random(seed)
    mutate = [*MUTATIONS][seed % len(MUTATIONS)]
    outcome = MUTATIONS[mutate]
    image = folder / "images" / "a.jpg"
    image.parent.mkdir(parents=True)
    mutate(generator, image)
    dataset = _dataset(folder, ["a.jpg"])
    loaded: list[Sample] = []
    with bounded(folder, 20):
        error = error_of(lambda: loaded.append(dataset.load(0)), image)
    if error:
        assert outcome != SAMPLE, f"{mutate.__name__}: {error}"
        return
    assert outcome != ERROR, f"{mutate.__name__} became a sample"
    (sample,) = loaded
    assert sample.image.dtype == np.uint8 and sample.image.shape == (HEIGHT, WIDTH, 3)
    assert sample.original_size_hw == (HEIGHT, WIDTH)
    assert sample.boxes_xyxy_px.tolist() == [[10, 20, 40, 45]]
    if outcome == SAMPLE and mutate is not other_mode:  # LAB and one bit look otherwise
        assert np.abs(sample.image.astype(int) - np.asarray(picture())).mean() < 20 or (
            mutate in (any_orientation, broken_exif)
        ), f"{mutate.__name__} looks otherwise"


IMAGES, MUTATED, BATCH = 40, 20, 8


def mutated_images_in_training(seed: int, folder: Path) -> None:
    """20 of 40 images mutated: with on_error 'skip' each bad one is named once and stood in for,
    the same with 0 and 2 workers; evaluation counts all objects; 'stop' ends with one sentence.
    """
    generator = random.Random(seed)
    names = [f"{number}.jpg" for number in range(IMAGES)]
    (folder / "images").mkdir(parents=True)
    mutated = set(generator.sample(range(IMAGES), MUTATED))
    for number, name in enumerate(names):
        path = folder / "images" / name
        if number in mutated:
            generator.choice([*MUTATIONS])(generator, path)
        else:
            path.write_bytes(encoded("JPEG", picture(number)))
    dataset = _dataset(folder, names)
    bad = [name for index, name in enumerate(names) if is_bad(dataset, index)]
    with bounded(folder):
        streams = [_train(folder, workers, bad) for workers in (0, 2)]
        assert streams[0] == streams[1], "the stream depends on the workers"
        _evaluate(folder, bad)
        _stop(folder, dataset, bad)


def _train(folder: Path, workers: int, bad: list[str]) -> list[tuple[int, bytes]]:
    config = _config(folder, f"data.workers={workers}", "data.on_error=skip")
    batches = build_training_batches(config, build_dataset(config, "train"), ONE_RANK)
    found = []
    with captured() as written:
        for batch in islice(batches.from_step(0), 2 * IMAGES // BATCH):  # two epochs
            assert len(batch) == BATCH and batch.images.dtype == torch.uint8
            found += [
                (number, image.contiguous().numpy().tobytes())
                for number, image in zip(batch.image_ids.tolist(), batch.images, strict=True)
            ]
        batches.close()
    named_once(written(), [folder / "images" / name for name in bad])
    assert not {number for number, _ in found} & {int(name.split(".")[0]) for name in bad}
    return found


def _evaluate(folder: Path, bad: list[str]) -> None:
    config = _config(folder, "data.workers=1", "data.on_error=skip")
    batches = build_evaluation_batches(config, build_dataset(config, "train"), ONE_RANK)
    with captured() as written:
        passes = [list(batches) for _ in range(2)]
    for batches_of_pass in passes:
        assert sum(len(batch) for batch in batches_of_pass) == IMAGES
        assert sum(len(batch.targets) for batch in batches_of_pass) == IMAGES
    named_once(written(), [folder / "images" / name for name in bad])


def _stop(folder: Path, dataset: CocoDataset, bad: list[str]) -> None:
    """Without tolerance the first bad image that is met ends the training."""
    config = _config(folder, "data.workers=1")
    batches = build_training_batches(config, dataset, ONE_RANK)

    def train() -> None:
        with closing(batches):
            list(islice(batches.from_step(0), IMAGES // BATCH))

    error = error_of(train, folder / "images")
    assert not error or any(str(folder / "images" / name) in error for name in bad)
    assert bool(error) == bool(bad), f"{bad} were loaded"


def _dataset(folder: Path, names: list[str]) -> CocoDataset:
    path = write_coco_of(folder, names, size_wh=(WIDTH, HEIGHT), box_xywh=BOX_XYWH)
    return CocoDataset(annotations=path, images=folder / "images")


def _config(folder: Path, *more: str) -> Config:
    annotations, images = str(folder / "coco.json"), str(folder / "images")
    section = {"type": "coco", "annotations": annotations, "images": images}
    return config_of(section, BATCH, *more)


TRIALS = [
    Property(mutated_image, full=2000, quick=len(MUTATIONS)),
    Property(mutated_images_in_training, full=20, quick=1),
]
