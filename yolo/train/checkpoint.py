"""Checkpoints: tensors and plain data in one file that is whole or refused.

A checkpoint is what ``torch.save`` writes, a zip file, with the SHA-256 of all bytes before it as
the zip's comment: one file, still readable by ``torch.load``, in which every flipped bit shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from yolo.errors import UserError
from yolo.files import atomic_path
from yolo.models.torch_weights import load_plain
from yolo.train.precision import Precision
from yolo.train.progress import Progress

VERSION = 1
_MARK = b"sha256:"
_COMMENT_BYTES = len(_MARK) + 64
_CHUNK_BYTES = 1 << 22

_PLAIN = ("config", "precision", "preprocessing", "progress", "data")
_LISTS: dict[str, set[type]] = {
    "class_names": {str},
    "category_ids": {int, str},
    "class_conf": {float},  # of validation.py: by label, the lowest score that counts
}

Kind = TypeVar("Kind")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint so that ``path`` is always either the old or the new one, whole."""
    try:
        with _replacing(path) as temporary:
            with temporary.open("wb") as file:  # Python's own: torch's hides why it cannot write
                torch.save({"version": VERSION, **content}, file)
            _seal(temporary)
    except (OSError, RuntimeError) as error:
        cause: BaseException = error  # behind the writer of zip files, which raises on top of any
        while not isinstance(cause, OSError) and cause.__context__ is not None:
            cause = cause.__context__
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
    try:
        with _replacing(target) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(source, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, temporary)
    except OSError as error:
        raise UserError(f"{target}: the checkpoint cannot be written ({error})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, after checking it; a part that it lacks is a ``UserError``."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint file")
    try:
        _check(path)
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read ({error})") from error
    foreign = f"{path}: not a checkpoint of this project"
    try:
        content = load_plain(path)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{foreign} ({reason})") from error
    if not isinstance(content, dict) or "version" not in content:
        raise UserError(f"{foreign}: it has no version")
    version = content["version"]
    if type(version) is not int or version != VERSION:
        raise UserError(f"{path}: checkpoint version {version}; this code reads version {VERSION}")
    _check_kinds(content, foreign)
    return _Content(path, content)


def _check_kinds(content: dict[str, Any], foreign: str) -> None:
    """Whoever can write a file can seal it: each entry has to be of its kind and range too."""
    wrong = [key for key in _PLAIN if not _is_plain_dict(content.get(key, {}))]
    for key, kinds in _LISTS.items():
        items = content.get(key, [])
        is_list = isinstance(items, list) and {*map(type, items)} <= kinds
        repeats = key == "category_ids" and is_list and len(set(items)) < len(items)
        beyond = key == "class_conf" and is_list and not all(0 <= conf <= 1 for conf in items)
        if not is_list or repeats or beyond:
            wrong.append(key)
    model, averaged = content.get("model", {}), content.get("ema")
    for key, tensors in (("model", model), ("ema", {} if averaged is None else averaged)):
        is_dict = isinstance(tensors, dict)
        if not is_dict or not all(isinstance(each, Tensor) for each in tensors.values()):
            wrong.append(key)
    if wrong:
        raise UserError(f"{foreign}: its {wrong[0]!r} is of a wrong kind")
    lengths = {key: len(content[key]) for key in _LISTS if key in content}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{foreign}: it has not as many {' as '.join(lengths)}")
    for key, record in (("precision", Precision), ("progress", Progress)):
        if key in content:
            read_record(record, content[key], f"{foreign}: its {key}")
    if "step" not in content.get("progress", ["step"]):
        raise UserError(f"{foreign}: its progress has no step")


def _is_plain_dict(value: object) -> bool:
    most = 10**6  # pieces of json: references to one list can stand for billions of values
    try:
        count = sum(1 for _ in islice(json.JSONEncoder().iterencode(value), most))
    except (TypeError, ValueError, RecursionError):  # tensors, circles, depth without end
        return False
    return isinstance(value, dict) and count < most


def read_record(kind: type[Kind], content: dict[str, Any], owner: str) -> Kind:
    """A dataclass out of a file's plain data, each field of its type and range.

    What is not, or is no field, is a ``UserError`` that begins with ``owner``.
    """
    if unknown := sorted(map(str, content.keys() - {each.name for each in fields(kind)})):  # type: ignore[arg-type]
        raise UserError(f"{owner} has an entry that is not known: {unknown[0][:100]!r}")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise UserError(f"{owner} is damaged ({place}: {first['msg']})") from error


class _Content(dict[str, Any]):
    """Of a checkpoint; what it lacks is the file's fault, not the reader's."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self._path}: not a whole checkpoint of this project: it has no {key!r}")


def _replacing(path: Path) -> AbstractContextManager[Path]:
    # one name for all: a killed run leaves gigabytes, which the next checkpoint removes
    return atomic_path(path, sync=True, temporary_name=f"{path.name}.tmp")


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


def _check(path: Path) -> None:
    size = path.stat().st_size - _COMMENT_BYTES
    with path.open("rb") as file:
        file.seek(max(size, 0))
        stored = file.read()
        if size <= 0 or not stored.startswith(_MARK):
            raise UserError(f"{path}: not a checkpoint of this project, or its end is missing")
        file.seek(0)
        if _digest(file, size) != stored[len(_MARK) :]:
            raise UserError(f"{path}: the checkpoint is damaged: its checksum does not match")


def _digest(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()
