"""Data sets that come as archives: fetched, unpacked and marked as done, one after the other."""

from __future__ import annotations

import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from yolo.apps.download.downloads import download, readable_size, remote_size
from yolo.errors import UserError
from yolo.files import locked

MOST_GROWTH = 100
"""Times its own size may a zip's content be: images hardly grow, text tenfold."""

PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others can want any amount of memory."""

BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(EOFError, LookupError, OverflowError, RuntimeError, ValueError),
)
"""What Python's readers raise on damaged or encrypted archives."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A .zip or .tar on a server.

    Attributes:
        url_path: behind the server's base URL.
        growth: the size of its content over its own, about.
        size: in bytes, where it is known for certain; another one is refused.
    """

    url_path: str
    growth: float = 1.0
    size: int | None = None

    @property
    def name(self) -> str:
        return self.url_path.rpartition("/")[2]


def fetch_archives(
    archives: Sequence[Archive], root: Path, *, base_url: str, delete: bool, ways_out: str
) -> None:
    """Fetch and unpack what was not unpacked before; what has arrived is not fetched again.

    Args:
        archives: in this order.
        root: where they are put and unpacked.
        base_url: of the server or a mirror.
        delete: remove each archive once it is unpacked.
        ways_out: what else to do where the disk is too small.

    Raises:
        UserError: too little space, no connection, a broken archive.
    """
    base = base_url.rstrip("/")
    pending = [archive for archive in archives if not _marker(root, archive).exists()]
    sizes = {
        archive: archive.size or remote_size(f"{base}/{archive.url_path}") or 0
        for archive in pending
    }
    if pending:
        _check_space(root, sizes, delete, ways_out)
    for archive in pending:
        with _undisturbed(archive, root):
            if not _marker(root, archive).exists():
                url, size = f"{base}/{archive.url_path}", sizes[archive] or None
                _fetch(archive, root, url=url, size=size, delete=delete)


def _fetch(archive: Archive, root: Path, *, url: str, size: int | None, delete: bool) -> None:
    path = root / archive.name
    download(url, path, size=size)
    print(f"unpacking {path}", flush=True)
    print(f"{archive.name}: {unpack(path, root)} files")
    _marker(root, archive).touch()
    if delete:
        path.unlink()


@contextmanager
def _undisturbed(archive: Archive, root: Path) -> Iterator[None]:
    """Keep out another process that would unpack the same files, or remove the archive."""
    told = f"{root / archive.name}: another process is at it; waiting for its end"
    with ExitStack() as inside:
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = locked(
                root / f".{archive.name}.unpacking.lock",
                waiting=lambda: print(told, file=sys.stderr, flush=True),
            )
            inside.enter_context(lock)
        except OSError as problem:
            raise UserError(f"cannot write {root}: {problem.strerror or problem}") from problem
        yield


def _marker(root: Path, archive: Archive) -> Path:
    return root / f".{archive.name}.unpacked"


def _check_space(root: Path, sizes: dict[Archive, int], delete: bool, ways_out: str) -> None:
    """Refuse what the disk cannot hold: what is missing of the files, and their content."""
    missing = [max(0, size - _arrived(root / archive.name)) for archive, size in sizes.items()]
    files = max(missing) if delete else sum(missing)
    needed = files + sum(size * archive.growth for archive, size in sizes.items())
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    print(f"{readable_size(sum(missing))} to fetch, {readable_size(needed)} of disk needed")
    if needed > free:
        raise UserError(
            f"{root} has {readable_size(free)} free where {readable_size(needed)} are needed: "
            f"make room, choose another --root, {ways_out}"
        )


def _arrived(path: Path) -> int:
    """Bytes of an archive that are on the disk, whole or in part."""
    candidates = (path, path.with_name(f"{path.name}.part"))
    return next((each.stat().st_size for each in candidates if each.exists()), 0)


def unpack(path: Path, root: Path) -> int:
    """Unpack what is not there in its full size; returns the number of files in the archive.

    Raises:
        UserError: a broken archive, a member that leads out of the folder, far more content than
            the archive's size lets expect, a full disk.
    """
    try:
        return _UNPACKERS[path.suffix](path, root)
    except UserError:
        raise
    except BROKEN as problem:
        told = str(problem) or type(problem).__name__
        raise UserError(f"{path} is broken ({told}); remove it and start again") from problem
    except OSError as problem:
        raise UserError(f"cannot unpack {path}: {problem}") from problem


def _unpack_zip(path: Path, root: Path) -> int:
    with zipfile.ZipFile(path) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        _check_content(path, root, members)
        for member in members:
            if not _is_there(path, root, member.filename, member.file_size):
                _extract(opened, member, root)
    return len(members)


def _check_content(path: Path, root: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """No bomb: a few kilobytes can stand for terabytes, and for any memory."""
    packing = next((m for m in members if m.compress_type not in PACKINGS), None)
    if packing is not None:
        raise UserError(f"{path} holds {packing.filename!r} in an unusual packing; pack it anew")
    content, size = sum(member.file_size for member in members), path.stat().st_size
    if content > MOST_GROWTH * size:
        raise UserError(
            f"{path} has {readable_size(size)} and would become {readable_size(content)}, more "
            f"than {MOST_GROWTH} times as much, which looks like an attack; remove it"
        )
    free = shutil.disk_usage(root).free
    missing = sum(
        m.file_size for m in members if not _is_there(path, root, m.filename, m.file_size)
    )
    if missing > free:
        raise UserError(
            f"{root} has {readable_size(free)} free where {path} needs {readable_size(missing)}: "
            "make room"
        )


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path) -> None:
    """Write a file whole or not at all: at its full size it would be taken for a sound one."""
    try:
        opened.extract(member, root)
    except BaseException:
        (root / member.filename).unlink(missing_ok=True)
        raise


def _unpack_tar(path: Path, root: Path) -> int:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"this Python cannot unpack {path} safely; update to its newest patch")
    count, end = 0, path.stat().st_size
    with tarfile.open(path, "r:") as opened:
        for member in opened:
            if not 0 <= member.size <= end - member.offset_data:
                raise tarfile.ReadError("it is cut off")
            # A sparse file can say any size, and is made of holes.
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise UserError(f"{path} holds {member.name!r}, which is neither file nor folder")
            there = _is_there(path, root, member.name, member.size)
            count += member.isfile()
            if member.isdir() or not there:
                opened.extract(member, root, filter="data")
    return count


def _is_there(path: Path, root: Path, name: str, size: int) -> bool:
    """Whether a member was unpacked before.

    Raises:
        UserError: it leads out of the folder.
    """
    if "\0" in name:
        raise UserError(f"{path} holds {name!r}, which is no file name")
    target = (root / name).resolve()
    if not target.is_relative_to(root.resolve()):
        raise UserError(f"{path} holds {name!r}, which leads out of it")
    return target.is_file() and target.stat().st_size == size


_UNPACKERS: dict[str, Callable[[Path, Path], int]] = {".zip": _unpack_zip, ".tar": _unpack_tar}
