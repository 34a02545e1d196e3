"""Data sets that come as archives: fetched, unpacked and marked as done, one after the other."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo.downloads import download, readable_size, remote_size
from yolo.errors import UserError


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
        path = root / archive.name
        download(f"{base}/{archive.url_path}", path, size=sizes[archive] or None)
        print(f"unpacking {path}", flush=True)
        print(f"{archive.name}: {unpack(path, root)} files")
        _marker(root, archive).touch()
        if delete:
            path.unlink()


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
        UserError: a broken archive, a member that leads out of the folder, a full disk.
    """
    try:
        return _UNPACKERS[path.suffix](path, root)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as problem:
        raise UserError(f"{path} is broken ({problem}); remove it and start again") from problem
    except OSError as problem:
        raise UserError(f"cannot unpack {path}: {problem}") from problem


def _unpack_zip(path: Path, root: Path) -> int:
    with zipfile.ZipFile(path) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        for member in members:
            if not _is_there(path, root, member.filename, member.file_size):
                opened.extract(member, root)
    return len(members)


def _unpack_tar(path: Path, root: Path) -> int:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"this Python cannot unpack {path} safely; update to its newest patch")
    count = 0
    with tarfile.open(path, "r:") as opened:
        for member in opened:
            if not (member.isfile() or member.isdir()):
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
    target = (root / name).resolve()
    if not target.is_relative_to(root.resolve()):
        raise UserError(f"{path} holds {name!r}, which leads out of it")
    return target.is_file() and target.stat().st_size == size


_UNPACKERS: dict[str, Callable[[Path, Path], int]] = {".zip": _unpack_zip, ".tar": _unpack_tar}
