"""What was read of thousands of small files, kept in one: the second time nothing is parsed.

An entry is valid as long as the *content* of all files behind it is the same (the key is made from
it) and the images have the sizes and times that they had. It is written whole or not at all, and
holds arrays and json, nothing that could run. Nothing depends on it: where it cannot be written or
read, the files are parsed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from yolo.data.annotations import Annotations
from yolo.data.formats.contents import Contents, Findings
from yolo.files import atomic_path

_log = logging.getLogger(__name__)


def read_cached(
    folder: Path | None,
    *,
    name: str,
    identity: tuple[object, ...],
    files: Iterable[bytes],
    image_root: Path,
    parse: Callable[[], Contents],
) -> Contents:
    """The entry if it is valid, else what ``parse`` gives, which then becomes the entry.

    Of several processes one parses and the others wait. Contents with bad images are not kept:
    these are tried anew, and reported anew, whenever the data set opens.

    Args:
        folder: of the entries; None parses always.
        name: of the data set, starts the entry's file name.
        identity: what tells the entry from others of the same folder.
        files: everything that ``parse`` reads, but for the images.
        image_root: the folder that the annotations' file names are relative to.
        parse: reads the files.
    """
    if folder is None:
        return parse()
    digest = hashlib.sha256(to_bytes(identity))
    path = folder / f"{name}-{digest.hexdigest()[:16]}.npz"
    for content in files:
        digest.update(content)
    key = digest.hexdigest()
    contents = _read(path, key, image_root)
    if contents is not None:
        return contents
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # else it goes on without a lock
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        contents = _read(path, key, image_root)
        if contents is None:
            contents = parse()
            if not contents.bad_images:
                _write(path, key, image_root, contents)
    return contents


def to_bytes(values: tuple[object, ...]) -> bytes:
    """For a digest."""
    return repr(values).encode("utf-8", "surrogateescape")


def _read(path: Path, key: str, image_root: Path) -> Contents | None:
    """The entry, or None if there is none, or one of other files, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            arrays = {name: entry[name] for name in entry.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        stamps = arrays.pop("image_stamps")
        annotations = Annotations(**arrays)
        findings = Findings(counts=meta["counts"], texts=tuple(meta["texts"]))
        if meta["key"] != key or not np.array_equal(stamps, _stamps(image_root, annotations)):
            return None
    except Exception:  # whatever is wrong with an entry: the files themselves are there
        return None
    return Contents(tuple(meta["class_names"]), annotations, findings)


def _write(path: Path, key: str, image_root: Path, contents: Contents) -> None:
    annotations, findings = contents.annotations, contents.findings
    arrays: dict[str, Any] = {name: getattr(annotations, name) for name in annotations.__slots__}
    meta = {
        "key": key,
        "class_names": contents.class_names,
        "counts": findings.counts,
        "texts": findings.texts,
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    try:
        arrays["image_stamps"] = _stamps(image_root, annotations)
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
    except OSError as problem:
        _log.info("annotations are not cached in %s: %s", path.parent, problem.strerror or problem)


def _stamps(image_root: Path, annotations: Annotations) -> np.ndarray:
    """Bytes and time of change of each image, int64 (I, 2): their headers gave the sizes."""
    stamps = np.empty((len(annotations), 2), np.int64)
    for index in range(len(annotations)):
        status = (image_root / annotations.file_name(index)).stat()
        stamps[index] = status.st_size, status.st_mtime_ns
    return stamps
