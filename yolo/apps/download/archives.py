"""Data sets that come as archives: fetched, unpacked and marked as done, one after the other."""

from __future__ import annotations

import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo.apps.download.downloads import download, exclusive, readable_size, remote_size
from yolo.errors import UserError
from yolo.files import atomic_write

MOST_GROWTH = 100  # times its own size may a zip's content be: images hardly grow, text tenfold
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can want any amount of memory
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error),
    *(EOFError, LookupError, OverflowError, RuntimeError, ValueError),
)
"""What Python's readers raise on damaged or encrypted archives."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A .zip or .tar on a server."""

    url_path: str  # behind the server's base URL
    growth: float = 1.0  # the size of its content over its own, about
    size: int | None = None  # in bytes, where it is known for certain; another one is refused

    @property
    def name(self) -> str:
        return self.url_path.rpartition("/")[2]


def fetch_archives(
    archives: Sequence[Archive], root: Path, *, base_url: str, delete: bool, advice: str
) -> None:
    """Fetch and unpack what was not unpacked before; what has arrived is not fetched again.

    ``base_url`` is the server's or a mirror's; ``delete`` removes each archive once it is unpacked;
    ``advice`` is what else to do where the disk is too small.
    """
    markers = {archive: root / f".{archive.name}.unpacked" for archive in archives}
    pending = [archive for archive, marker in markers.items() if not marker.exists()]
    urls = {archive: f"{base_url.rstrip('/')}/{archive.url_path}" for archive in pending}
    sizes = {archive: archive.size or remote_size(urls[archive]) or 0 for archive in pending}
    if pending:
        _check_space(root, sizes, delete, advice)
    for archive in pending:
        path, marker = root / archive.name, markers[archive]
        with exclusive(path, "unpacking"):
            if marker.exists():
                continue
            download(urls[archive], path, size=sizes[archive] or None)
            print(f"unpacking {path}", flush=True)
            print(f"{archive.name}: {unpack(path, root)} files")
            atomic_write(marker, b"")
            if delete:
                path.unlink()


def _check_space(root: Path, sizes: dict[Archive, int], delete: bool, advice: str) -> None:
    """Refuse what the disk cannot hold: what is missing of the files, and their content."""
    missing = []
    for archive, size in sizes.items():
        places = (root / archive.name, root / f"{archive.name}.part")
        arrived = next((place.stat().st_size for place in places if place.exists()), 0)
        missing.append(max(0, size - arrived))
    files = max(missing) if delete else sum(missing)
    needed = files + sum(size * archive.growth for archive, size in sizes.items())
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    print(f"{readable_size(sum(missing))} to fetch, {readable_size(needed)} of disk needed")
    if needed > free:
        raise UserError(
            f"{root} has {readable_size(free)} free where {readable_size(needed)} are needed: "
            f"make room, choose another --root, {advice}"
        )


def unpack(path: Path, root: Path) -> int:
    """Unpack what is not there in its full size; returns the number of files in the archive.

    A broken archive is refused, and so is a member that leads out of the folder, and far more
    content than the archive's size lets expect.
    """
    try:
        return {".zip": _unpack_zip, ".tar": _unpack_tar}[path.suffix](path, root)
    except UserError:
        raise
    except BROKEN as problem:
        reason = str(problem) or type(problem).__name__
        raise UserError(f"{path} is broken ({reason}); remove it and start again") from problem
    except OSError as problem:
        raise UserError(f"cannot unpack {path}: {problem}") from problem


def _unpack_zip(path: Path, root: Path) -> int:
    with zipfile.ZipFile(path) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        missing = [m for m in members if not _is_there(path, root, m.filename, m.file_size)]
        _check_content(path, root, members, missing)
        for member in missing:
            try:
                opened.extract(member, root)
            except BaseException:  # at its full size it would be taken for a sound one
                (root / member.filename).unlink(missing_ok=True)
                raise
    return len(members)


def _check_content(
    path: Path, root: Path, members: Sequence[zipfile.ZipInfo], missing: Sequence[zipfile.ZipInfo]
) -> None:
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
    needed, free = sum(m.file_size for m in missing), shutil.disk_usage(root).free
    if needed > free:
        has, needs = readable_size(free), readable_size(needed)
        raise UserError(f"{root} has {has} free where {path} needs {needs}: make room")


def _unpack_tar(path: Path, root: Path) -> int:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"this Python cannot unpack {path} safely; update to its newest patch")
    count, end = 0, path.stat().st_size
    with tarfile.open(path, "r:") as opened:
        for member in opened:
            if not 0 <= member.size <= end - member.offset_data:
                raise tarfile.ReadError("it is cut off")
            # A sparse file can claim any size, and is made of holes.
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise UserError(f"{path} holds {member.name!r}, which is neither file nor folder")
            there = _is_there(path, root, member.name, member.size)
            count += member.isfile()
            if member.isdir() or not there:
                opened.extract(member, root, filter="data")
    return count


def _is_there(path: Path, root: Path, name: str, size: int) -> bool:
    """Whether a member was unpacked before; refused where it leads out of the folder."""
    if "\0" in name:
        raise UserError(f"{path} holds {name!r}, which is no file name")
    target = (root / name).resolve()
    if not target.is_relative_to(root.resolve()):
        raise UserError(f"{path} holds {name!r}, which leads out of it")
    return target.is_file() and target.stat().st_size == size
