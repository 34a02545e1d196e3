"""Data sets that keep a small file of truth for each image, and one file of what was read of them.

All files are read whole first. Their content is the key of the cache; only what the cache does not
know is parsed. So a changed file is never missed, whatever its time of change says, and what is
parsed is what the key was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from yolo.data.annotations import Annotations, Contents, Findings, sanitize
from yolo.data.formats.detection import DetectionDataset, first_names
from yolo.data.images import read_header
from yolo.errors import UserError
from yolo.files import atomic_path, read_or_refuse

VERSION = 2
"""Raised by whoever changes what is made of the same files; older cache entries are then void."""

LARGEST_FILE_BYTES = 64 << 20
"""Larger annotations of one image are refused: a wrong file, or an attack."""

MOST_DIGITS = 15
"""Ids stay below 2^53: the COCO tools keep numbers as doubles."""

_log = logging.getLogger(__name__)


class ListedImage(NamedTuple):
    """An image as its data set lists it."""

    name: str  # relative to the image root, as far as the list gives it
    truth: Path | None  # its annotation file; None if it has none, and so no boxes
    where: str = ""  # file and line of the list for messages; "" where a folder is the list

    def message(self, text: object) -> str:
        """A message about this image, with the place in the list before it."""
        return f"{self.where}: {text}" if self.where else str(text)

    def read(self) -> bytes:
        """The content of the annotation file."""
        if self.truth is None:
            return b""
        called = self.message("the annotation file")
        remedy = "; restore it, or take its image off the list"
        return read_or_refuse(called, self.truth, LARGEST_FILE_BYTES, remedy=remedy)


class TruthObject(NamedTuple):
    """An object of an annotation file."""

    place: str  # in the file: "object 3", "line 3"
    class_name: str
    box_xyxy_px: tuple[float, ...]
    ignored: bool = False
    note: str = ""  # what to count of it in the data set's notes: "boxes around outlines"


class ImageTruth(NamedTuple):
    """What an annotation file holds."""

    file_name: str  # of the image, relative to the data set's image root
    size_hw: tuple[int, int]  # of the image; where it is bad, the annotated or a nominal one
    objects: list[TruthObject]  # in the file's order
    is_bad: bool = False  # the image cannot be read
    annotated_hw: tuple[int, int] | None = None  # in the annotation file where it may differ
    note: str = ""  # as that of an object: "images turned upright by EXIF"


class TruthFilesDataset(DetectionDataset):
    """Images whose annotation files are read, or what the cache holds of them.

    Args:
        listed: the images, at least one.
        parse: what an annotation file with this content (b"" where there is none) holds; raises
            UserError without the place in the list.
        source: the data set, for messages.
        image_root: the folder that the file names of `ImageTruth` are relative to.
        part: which images of it are listed; with the other arguments it names the cache entry.
        class_names, cache: see `DetectionDataset`; None takes the names found, by alphabet.
        upright: see `DetectionDataset`; heeded by ``parse``.
    """

    def __init__(
        self,
        *,
        listed: Sequence[ListedImage],
        parse: Callable[[ListedImage, bytes], ImageTruth],
        source: Path,
        image_root: Path,
        part: str,
        class_names: Sequence[str] | None,
        cache: Path | None,
        upright: bool = True,
    ) -> None:
        first: dict[str, ListedImage] = {}
        for image in listed:
            other = first.setdefault(image.name, image)
            if other is not image:
                text = f"{image.name} is listed twice, first in {other.where or source}"
                raise UserError(image.message(f"{text}; remove one of the two."))
        files = [image.read() for image in listed]

        def parse_all() -> Contents:
            _log.info("Reading %s annotation files of %s", f"{len(listed):,}", source)
            truths = []
            for image, content in zip(listed, files, strict=True):
                try:
                    truths.append(parse(image, content))
                except UserError as error:
                    raise UserError(image.message(error)) from None
            return pack_truths(listed, truths, class_names)

        heads = [(*map(str, image), len(file)) for image, file in zip(listed, files, strict=True)]
        contents = read_cached(
            cache,
            source=source,
            image_root=image_root,
            part=(part, class_names, upright),
            files=[_to_bytes(heads), *files],
            parse=parse_all,
        )
        super().__init__(source, image_root, contents, upright=upright)


def measure(
    path: Path, annotated_hw: tuple[int, int] | None = None, *, upright: bool = True
) -> tuple[tuple[int, int], str]:
    """Size in pixels of what `decode` gives, asked for the same, and the note on its EXIF if any.

    A UserError if the image's header cannot be read.
    """
    header = read_header(path)
    turns = header.turns(annotated_hw, upright=upright)
    note = "turned upright by EXIF" if turns else "left as stored, though EXIF turns them"
    size_hw = header.size_hw(annotated_hw, upright=upright)
    return size_hw, f"images {note}" if header.orientation != 1 else ""


def pack_truths(
    listed: Sequence[ListedImage],
    truths: Sequence[ImageTruth],
    class_names: Sequence[str] | None,
) -> Contents:
    """Sanitize and pack what all images hold; the arguments are those of `TruthFilesDataset`."""
    objects = [found for truth in truths for found in truth.objects]
    image_index = np.repeat(np.arange(len(truths)), [len(truth.objects) for truth in truths])
    if class_names is None:
        class_names = sorted({found.class_name for found in objects})
    label_of = {name: label for label, name in enumerate(class_names)}

    def place(number: int) -> str:
        image = listed[image_index[number]]
        return image.message(f"{image.truth}, {objects[number].place}")

    def describe(number: int) -> str:
        box = ", ".join(f"{value:g}" for value in objects[number].box_xyxy_px)
        return f"{place(number)} ({objects[number].class_name}), box [{box}]"

    for number, found in enumerate(objects):
        if found.class_name not in label_of:
            raise UserError(
                f"{place(number)} is of the class {found.class_name!r}, which class_names lacks "
                f"({first_names(class_names)}); add it there or correct the file."
            )
    file_names = [truth.file_name for truth in truths]
    annotated_hw = [truth.annotated_hw or truth.size_hw for truth in truths]
    contents = sanitize(
        class_names,
        image_ids=_image_ids(file_names),
        file_names=file_names,
        sizes_hw=np.array([truth.size_hw for truth in truths], np.int64).reshape(-1, 2),
        image_index=image_index,
        boxes_xyxy_px=np.array([o.box_xyxy_px for o in objects], np.float64).reshape(-1, 4),
        labels=np.array([label_of[found.class_name] for found in objects], np.int64),
        ignored=np.array([found.ignored for found in objects], bool),
        describe=describe,
        annotated_hw=np.array(annotated_hw, np.int64).reshape(-1, 2),
        bad_images=sum(truth.is_bad for truth in truths),
    )
    counts = Counter(one.note for group in (truths, objects) for one in group if one.note)
    notes = tuple(f"{count:,} {note}" for note, count in counts.items())
    return replace(contents, findings=replace(contents.findings, notes=notes))


def _image_ids(file_names: Sequence[str]) -> np.ndarray:
    """An id for each image, int64 (I,).

    The digits of the names where they tell all images apart, so that an image keeps its id in
    every list ("2008_000002.jpg" -> 2008000002); else the place in the list, from 1.
    """
    digits = [re.sub("[^0-9]", "", PurePosixPath(name).stem) for name in file_names]
    if all(0 < len(number) <= MOST_DIGITS for number in digits):
        ids = np.array([int(number) for number in digits], np.int64)
        if len(np.unique(ids)) == len(ids):
            return ids
    return np.arange(1, len(file_names) + 1, dtype=np.int64)


def read_cached(
    folder: Path | None,
    *,
    source: Path,
    image_root: Path,
    part: tuple[object, ...],
    files: Sequence[bytes],
    parse: Callable[[], Contents],
) -> Contents:
    """What ``parse`` gives, or gave last time: kept in one file, so that nothing is parsed twice.

    An entry is valid as long as all files behind it have the same content and the images the sizes
    and times that they had. It holds arrays and json, nothing that could run. Where it cannot be
    written or read, the files are parsed. Of several processes one parses and the others wait.
    Contents with bad images are not kept: these are tried, and reported, whenever the set opens.

    Args:
        folder: of the entries; None parses always.
        source, image_root: the data set, and the folder that its file names are relative to.
        part: what tells the entry from others of the same data set.
        files: everything that ``parse`` reads, but for the images.
    """
    if folder is None:
        return parse()
    identity = (VERSION, source.resolve(), image_root.resolve(), *part)
    digest = hashlib.sha256(_to_bytes(identity))
    path = folder / f"{source.stem}-{digest.hexdigest()[:16]}.npz"
    for content in files:
        digest.update(content)
    key = digest.hexdigest()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # else it goes on without a lock
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        contents = _read_entry(path, key, image_root)
        if contents is None:
            contents = parse()
            if not contents.bad_images:
                _write_entry(path, key, image_root, contents)
    return contents


def _to_bytes(values: Sequence[object]) -> bytes:
    return repr(values).encode("utf-8", "surrogateescape")


def _read_entry(path: Path, key: str, image_root: Path) -> Contents | None:
    """The entry, or None if there is none, or one of other files, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            arrays = {name: entry[name] for name in entry.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        stamps = arrays.pop("image_stamps")
        annotations = Annotations(**arrays)
        if meta["key"] != key or not np.array_equal(stamps, _stamps(image_root, annotations)):
            return None
        findings = Findings(meta["counts"], tuple(meta["texts"]), tuple(meta["notes"]))
        return Contents(tuple(meta["class_names"]), annotations, findings)
    except Exception:  # whatever is wrong with an entry: the files themselves are there
        return None


def _write_entry(path: Path, key: str, image_root: Path, contents: Contents) -> None:
    annotations, findings = contents.annotations, contents.findings
    arrays: dict[str, Any] = {name: getattr(annotations, name) for name in annotations.__slots__}
    meta = {"key": key, "class_names": contents.class_names, **asdict(findings)}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    try:
        arrays["image_stamps"] = _stamps(image_root, annotations)
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as problem:
        _log.info("annotations are not cached in %s: %s", path.parent, problem.strerror or problem)


def _stamps(image_root: Path, annotations: Annotations) -> np.ndarray:
    """Bytes and time of change of each image, int64 (I, 2): their headers gave the sizes."""
    images = (image_root / annotations.file_name(i) for i in range(len(annotations)))
    stamps = [(status.st_size, status.st_mtime_ns) for status in map(Path.stat, images)]
    return np.array(stamps, np.int64).reshape(-1, 2)
