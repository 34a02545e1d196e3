"""One file of what was read of a data set, so that nothing is parsed or measured twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from yolo.data.annotations import Annotations, Contents, Findings
from yolo.files import atomic_path

VERSION = 2
"""Raised by whoever changes what is made of the same files; older entries are then void."""

_log = logging.getLogger(__name__)


def read_cached(
    folder: Path | None,
    *,
    source: Path,
    image_root: Path,
    part: tuple[object, ...],
    files: Sequence[bytes],
    parse: Callable[[], Contents],
) -> Contents:
    """What ``parse`` gives, or gave last time.

    An entry is valid as long as all ``files`` have the same content, whatever their times say, and
    the images the sizes and times that they had. It holds arrays and json, nothing that could run.
    Where it cannot be written or read, the files are parsed. Of several processes one parses and
    the others wait. Contents with bad images are not kept: they are tried, and reported, each time.

    Args:
        folder: of the entries; None parses always.
        source, image_root: the data set, and the folder that its file names are relative to.
        part: what tells the entry from others of the same data set.
        files: everything that ``parse`` reads, but for the images.
    """
    if folder is None:
        return parse()
    identity = (VERSION, source.resolve(), image_root.resolve(), *part)
    digest = hashlib.sha256(repr(identity).encode("utf-8", "surrogateescape"))
    path = folder / f"{source.stem}-{digest.hexdigest()[:16]}.npz"
    for content in files:
        digest.update(content)
    key = digest.hexdigest()
    if (known := _read_entry(path, key, image_root)) is not None:
        return known
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # else it goes on without a lock
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        if (known := _read_entry(path, key, image_root)) is not None:  # of another process
            return known
        contents = parse()
        if not contents.bad_images:
            _write_entry(path, key, image_root, contents)
    return contents


def _read_entry(path: Path, key: str, image_root: Path) -> Contents | None:
    """The entry, or None if there is none, or one of other files, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            meta, stamps = json.loads(entry["meta"].tobytes()), entry["image_stamps"]
            if meta["key"] != key:
                return None
            annotations = Annotations(**{name: entry[name] for name in Annotations.__slots__})
        if not np.array_equal(stamps, _stamps(image_root, annotations)):
            return None
        findings = Findings(meta["counts"], tuple(meta["texts"]), tuple(meta["notes"]))
        names = tuple(meta["class_names"])
        return Contents(names, annotations, findings, file_bytes=stamps[:, 0])
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
