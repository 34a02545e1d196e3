"""What was read of thousands of small files, kept in one: the second time nothing is parsed.

An entry is good as long as the *content* of all files behind it is the same (the key is made from
it) and the images have the sizes and times that they had. It is written whole or not at all, and
holds arrays and json, nothing that could run. Nothing depends on it: where it cannot be written or
read, the files are parsed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from yolo.data.annotations import Annotations
from yolo.data.formats.detection import Findings

_META = "meta"
_STAMPS = "image_stamps"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a data set's files say: the arguments of a `DetectionDataset`, but for its folders."""

    class_names: tuple[str, ...]
    annotations: Annotations
    findings: Findings
    unread: int = 0
    """Images that could not be read; their sizes are nominal."""


def cached(
    path: Path | None, *, key: str, image_root: Path, parse: Callable[[], Contents]
) -> Contents:
    """The entry at ``path`` if it is good, else what ``parse`` gives, which then becomes the entry.

    Of several processes one parses and the others wait. Contents with unread images are not kept:
    these are tried anew, and told anew, whenever the data set opens.

    Args:
        path: the entry, ``*.npz``; None parses always.
        key: a digest of everything that ``parse`` reads, but for the images.
        image_root: the folder that the annotations' file names are relative to.
        parse: reads the files.
    """
    if path is None:
        return parse()
    contents = _read(path, key, image_root)
    if contents is not None:
        return contents
    with _one_at_a_time(path):
        contents = _read(path, key, image_root)
        if contents is None:
            contents = parse()
            if not contents.unread:
                _write(path, key, image_root, contents)
    return contents


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the entry's lock; where none can be had, go on without."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as problem:
        _log.debug("%s is not locked: %s", path, problem)
    try:
        yield
    finally:
        lock.release()


def _read(path: Path, key: str, image_root: Path) -> Contents | None:
    """The entry, or None if there is none, or one of other files, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            arrays = {name: entry[name] for name in entry.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        stamps = arrays.pop(_STAMPS)
        if meta["key"] != key:
            return None
        annotations = Annotations(**arrays)
        findings = Findings(counts=meta["counts"], texts=tuple(meta["texts"]))
        if not np.array_equal(stamps, _image_stamps(image_root, annotations)):
            return None
    except Exception:  # whatever is wrong with an entry: the files themselves are there
        return None
    return Contents(tuple(meta["class_names"]), annotations, findings)


def _write(path: Path, key: str, image_root: Path, contents: Contents) -> None:
    meta = {
        "key": key,
        "class_names": contents.class_names,
        "counts": contents.findings.counts,
        "texts": contents.findings.texts,
    }
    annotations = contents.annotations
    arrays: dict[str, Any] = {
        field.name: getattr(annotations, field.name) for field in dataclasses.fields(annotations)
    }
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        arrays[_STAMPS] = _image_stamps(image_root, annotations)
        arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with temporary.open("wb") as sink:
            np.savez(sink, **arrays)
        os.replace(temporary, path)
    except OSError as problem:
        _log.info("annotations are not cached in %s: %s", path.parent, problem.strerror or problem)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _image_stamps(image_root: Path, annotations: Annotations) -> np.ndarray:
    """Bytes and time of change of each image, int64 (I, 2): their headers gave the sizes."""
    stamps = np.empty((len(annotations), 2), np.int64)
    for index in range(len(annotations)):
        status = (image_root / annotations.file_name(index)).stat()
        stamps[index] = status.st_size, status.st_mtime_ns
    return stamps
