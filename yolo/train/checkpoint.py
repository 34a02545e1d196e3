"""Checkpoints: tensors and plain data in one file that is whole or refused.

A checkpoint is what ``torch.save`` writes, a zip file, with the SHA-256 of all bytes before it as
the zip's comment: one file, still readable by ``torch.load``, in which every flipped bit shows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from yolo.errors import UserError
from yolo.models.weights import load_plain

VERSION = 1
_MARK = b"sha256:"
_COMMENT_BYTES = len(_MARK) + 64
_CHUNK_BYTES = 1 << 22


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that ``path`` is always either the old or the new one, whole.

    Temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:  # Python's own: torch's hides why it could not write
            torch.save({"version": VERSION, **content}, file)
        _seal(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        _discard(temporary)
        cause = _cause(error)
        if not isinstance(cause, OSError):  # such as a lost worker's, which comes up anywhere
            raise cause from None
        raise UserError(
            f"{path}: the checkpoint cannot be written ({cause}); one from before is whole; make "
            "room or permit writing, then go on with --resume"
        ) from error


def link_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` the same checkpoint as ``source``: a second name, or a copy, atomically.

    ``save_checkpoint`` never writes into an existing file, so the second name keeps its content.
    """
    temporary = target.with_name(target.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
            _sync(temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # between two names of one file, rename does nothing
        _sync(target.parent)
    except OSError as error:
        _discard(temporary)
        raise UserError(f"{target}: the checkpoint cannot be written ({error})") from error


OUTLINE: dict[str, type] = {
    "model": dict,
    "config": dict,
    "class_names": list,
    "category_ids": list,
    "precision": dict,
    "preprocessing": dict,
    "progress": dict,
}
"""What some of a checkpoint's parts are, where it has them."""


class _Content(dict[str, Any]):
    """Of a checkpoint; what it lacks is the file's fault, not the reader's."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self._path}: not a whole checkpoint of this project: it has no {key!r}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, after checking it.

    Raises:
        UserError: no such file, not a checkpoint of this project, unreadable, damaged, or of a
            version that this code does not know.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint file")
    try:
        _check(path)
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read ({error})") from error
    try:
        content = load_plain(path)
    except Exception as error:
        raise UserError(
            f"{path}: not a checkpoint of this project ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict) or "version" not in content:
        raise UserError(f"{path}: not a checkpoint of this project: it has no version")
    if content["version"] != VERSION:
        raise UserError(
            f"{path}: checkpoint version {content['version']}; this code reads version {VERSION}"
        )
    wrong = next(
        (k for k, kind in OUTLINE.items() if not isinstance(content.get(k, kind()), kind)), ""
    )
    if wrong:
        raise UserError(
            f"{path}: not a checkpoint of this project: its {wrong!r} is of a wrong kind"
        )
    return _Content(path, content)


def _seal(path: Path) -> None:
    """Write the checksum into the zip's comment; its length is the last field of the zip."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        assert file.read(2) == b"\0\0", "torch.save wrote a zip with a comment"
        file.seek(-2, os.SEEK_END)
        file.write(_COMMENT_BYTES.to_bytes(2, "little"))
        file.seek(0)
        digest = _digest(file, path.stat().st_size)
        file.seek(0, os.SEEK_END)
        file.write(_MARK + digest)
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path) -> None:
    size = path.stat().st_size - _COMMENT_BYTES
    with path.open("rb") as file:
        if size > 0:
            file.seek(size)
        stored = file.read()
        if size <= 0 or not stored.startswith(_MARK):
            raise UserError(f"{path}: not a checkpoint of this project, or its end is missing")
        file.seek(0)
        if _digest(file, size) != stored[len(_MARK) :]:
            raise UserError(f"{path}: the checkpoint is damaged: its checksum does not match")


def _digest(file: Any, size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()


def _discard(temporary: Path) -> None:
    """Remove an unfinished file if possible: the error that left it is the one to tell."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: BaseException) -> BaseException:
    """The error behind the one that the writer of zip files raises on top of any other."""
    while not isinstance(error, OSError) and error.__context__ is not None:
        error = error.__context__
    return error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
