"""Archives that want to do harm: nothing outside their folder, no bomb, one sentence."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from tests.faults.fuzz_trials import error_of, snapshot, within_memory, within_seconds
from tests.faults.hostile import CANARY, harmless, refused, zip_of
from tests.faults.trial import Property
from yolo.apps.download.archives import unpack

PROPERTY = "12 Hostile files"
MANY = 1 << 40
"""Bytes that no machine of ours has."""


def hostile_archive(seed: int, folder: Path) -> None:
    """Members that lead out, links, pipes and devices are refused."""
    name = "a.zip" if seed % 2 else "a.tar"
    path, root = folder / name, folder / "root"
    root.mkdir()
    members = [f"../{CANARY}", str(folder / CANARY), f"x/../../{CANARY}", f"..\\{CANARY}"]
    member = members[seed // 2 % len(members)]
    if name == "a.zip":
        path.write_bytes(zip_of({member: b"x"}))
    else:
        _write_tar(path, member, kind=seed // 8 % 5)
    with harmless(folder):
        escaped = member.startswith("..\\") and (name == "a.zip" or seed // 8 % 5 == 0)
        if not escaped:  # which is a name like any other, where the separator is another one
            refused(partial(unpack, path, root), path)


def _write_tar(path: Path, member: str, *, kind: int) -> None:
    with tarfile.open(path, "w") as archive:
        content = tarfile.TarInfo(f"link/{CANARY}" if kind else member)
        if kind:
            link = tarfile.TarInfo("link")
            types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
            link.type, link.linkname = types[kind - 1], member
            archive.addfile(link)
        content.size = 1
        archive.addfile(content, io.BytesIO(b"x"))


def archive_bomb(seed: int, folder: Path) -> None:
    """Zips and tars whose content is far larger than they are, or than they say, are refused
    before anything of it is written.
    """
    write = BOMBS[seed % len(BOMBS)]
    path, root = folder / ("a.zip" if "zip" in write.__name__ else "a.tar"), folder / "root"
    root.mkdir()
    write(path)
    assert path.stat().st_size < 4 << 20
    with harmless(folder):
        refused(partial(unpack, path, root), path)


def _zip_of_zeros(path: Path) -> None:
    path.write_bytes(zip_of({"a.bin": bytes(1 << 26)}, zipfile.ZIP_DEFLATED))


def _zip_of_many(path: Path) -> None:
    """Each member is small."""
    members = dict.fromkeys((f"{number}.bin" for number in range(300)), bytes(1 << 20))
    path.write_bytes(zip_of(members, zipfile.ZIP_DEFLATED))


def _zip_that_overlaps(path: Path) -> None:
    """Entries that all lead to the same data."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.bin", bytes(1 << 20))
        first = archive.infolist()[0]
        for number in range(1, 500):
            again = zipfile.ZipInfo(f"{number}.bin")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(again, name, getattr(first, name))
            archive.filelist.append(again)


def _zip_that_lies(path: Path) -> None:
    """The directory says one byte, the data are many."""
    _zip_of_zeros(path)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<I", 1)
    path.write_bytes(content)


def _tar_with_a_hole(path: Path) -> None:
    """A sparse file: a few bytes, and a terabyte of nothing."""
    info = tarfile.TarInfo("a.bin")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"\x80" + MANY.to_bytes(11, "big")
    path.write_bytes(_with_checksum(header) + bytes(512) + bytes(1024))


def _tar_with_a_hole_in_words(path: Path) -> None:
    """The same in the form of POSIX."""
    info = tarfile.TarInfo("a.bin")
    info.size = 1024
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a.bin",
        "GNU.sparse.realsize": str(MANY),
    }
    data = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))


def _tar_that_lies(path: Path) -> None:
    """A member of more bytes than the archive has."""
    info = tarfile.TarInfo("a.bin")
    info.size = MANY
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def _with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


BOMBS = (
    *(_zip_of_zeros, _zip_of_many, _zip_that_overlaps, _zip_that_lies),
    *(_tar_with_a_hole, _tar_with_a_hole_in_words, _tar_that_lies),
)


def mutated_archive(seed: int, folder: Path) -> None:
    """A sound archive with some bytes changed is unpacked in its folder, or one sentence tells why
    not.
    """
    generator = random.Random(seed)
    path, root = folder / ("a.zip" if seed % 2 else "a.tar"), folder / "root"
    _write_sound(path, generator)
    content = bytearray(path.read_bytes())
    if generator.random() < 0.2:
        del content[generator.randrange(len(content)) :]
    for _ in range(generator.choice([1, 2, 5])):
        place = generator.randrange(max(1, len(content)))
        content[place : place + 1] = bytes([generator.choice([0, 1, 8, 127, 255])])
    path.write_bytes(content)
    root.mkdir()
    before = snapshot(folder)
    with within_seconds(20), within_memory():
        error_of(partial(unpack, path, root), path)
    after = {name: what for name, what in snapshot(folder).items() if not name.startswith("root/")}
    assert after == before, "something was written outside"
    assert sum(file.lstat().st_size for file in root.rglob("*") if file.is_file()) < 1 << 20


def _write_sound(path: Path, generator: random.Random) -> None:
    """Two small files, packed and not, with what both formats can say besides."""
    files = {"images/a.txt": b"abc" * 50, "images/b.txt": b""}
    if path.suffix == ".zip":
        kind = generator.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
        path.write_bytes(zip_of(files, kind))
        return
    form = generator.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = {"comment": "é", "mtime": "1.5"}
            archive.addfile(info, io.BytesIO(content))


TRIALS = [
    Property(hostile_archive, full=40, quick=5),
    Property(archive_bomb, full=len(BOMBS), quick=len(BOMBS)),
    Property(mutated_archive, full=400, quick=4),
]
