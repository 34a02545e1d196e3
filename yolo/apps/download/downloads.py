"""One downloader for every script: it resumes, checks, shows progress and renames at the end."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tqdm import tqdm

from yolo.errors import UserError
from yolo.files import locked

CHUNK_BYTES = 1 << 20
PLAIN_LINE_EVERY_S = 10.0
STATUS_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Interrupted(Exception):
    """The connection failed in a way that another try may mend."""


@dataclass(frozen=True)
class _Partial:
    """What has arrived of a file, beside a note of which version of it the server sent."""

    path: Path
    version_path: Path

    @classmethod
    def of(cls, path: Path) -> _Partial:
        return cls(path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part-version"))

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str:
        return self.version_path.read_text() if self.version_path.exists() else ""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.version_path.unlink(missing_ok=True)


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    timeout_s: float = 30.0,
    tries: int = 5,
    pause_s: float = 1.0,
) -> Path:
    """Fetches a file once; `path` exists only when all of it has arrived and was checked.

    What has arrived lies in `<path>.part` until then, and a later try or call continues it. Where
    another process is fetching the file, this one waits for it. A file that is there already is
    kept, and checked like a new one.

    Args:
        url: http or https.
        path: where the file is to lie; its folders are made.
        size: expected length in bytes.
        sha256: expected checksum, hexadecimal.
        timeout_s: the longest silence of the server.
        tries: failures in a row, none of them bringing a byte, after which it gives up.
        pause_s: pause before the second try, doubled before each further one.

    Raises:
        UserError: no such file, no connection, another size or checksum, no space, no permission.
    """
    if not path.exists():
        partial = _Partial.of(path)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _undisturbed(partial):
                if not path.exists():
                    _fetch_patiently(url, partial, size, timeout_s, tries, pause_s)
                    return _keep(partial, path, url, size, sha256)
    _check(path, size, sha256, f"{path} is there already, but", "; remove it to fetch it again")
    return path


def _undisturbed(partial: _Partial) -> AbstractContextManager[None]:
    """Two processes that write to the same partial file would spoil it for each other."""
    lock = partial.path.with_name(f".{partial.path.stem}.lock")
    told = f"{partial.path}: another process is fetching this file; waiting for its end"
    return locked(lock, waiting=lambda: print(told, file=sys.stderr, flush=True))


def _keep(partial: _Partial, path: Path, url: str, size: int | None, sha256: str | None) -> Path:
    """Give what has arrived its name if it is right; else nothing of it stays."""
    try:
        _check(partial.path, size, sha256, f"{url} gave a file that")
    except UserError:
        partial.discard()
        raise
    partial.path.replace(path)
    partial.discard()
    return path


def remote_size(url: str, *, timeout_s: float = 30.0) -> int | None:
    """Length in bytes that the server tells for a file, None where it tells none.

    Raises:
        UserError: no such file, or no connection.
    """
    try:
        with _answer(url, {}, timeout_s, method="HEAD") as response:
            return _promise(response)[1]
    except _Interrupted as problem:
        raise UserError(f"cannot fetch {url}: {problem}; check the connection") from problem


def readable_size(size: float) -> str:
    """1234567 -> '1.2 MB' (decimal units, as disks and servers count)."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _fetch_patiently(
    url: str, partial: _Partial, size: int | None, timeout_s: float, tries: int, pause_s: float
) -> None:
    failures = 0
    while True:
        had = partial.size()
        try:
            return _fetch(url, partial, size, timeout_s)
        except _Interrupted as problem:
            failures = 1 if partial.size() > had else failures + 1
            if failures >= tries:
                raise UserError(
                    f"cannot fetch {url}: {problem}; check the connection and start again, "
                    f"what has arrived ({readable_size(partial.size())}) is kept"
                ) from problem
            pause = pause_s * 2 ** (failures - 1)
            print(f"{url}: {problem}; trying again in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def _fetch(url: str, partial: _Partial, size: int | None, timeout_s: float) -> None:
    """Continues the partial file to its end, or raises _Interrupted."""
    if size is not None and partial.size() > size:
        partial.discard()
    offset = partial.size()
    if offset and offset == size:
        return
    with _answer(url, {"Range": f"bytes={offset}-"} if offset else {}, timeout_s) as response:
        start, total = _promise(response)
        if response.status == 416 and total == offset:
            return  # nothing behind the end: all of it had arrived
        if start not in (0, offset) or (start and partial.version() != _version(response)):
            partial.discard()
            raise _Interrupted("the file there has changed, beginning anew")
        _check_promise(url, partial, start, total, size)
        partial.version_path.write_text(_version(response))
        _receive(response, partial, start, total)


def _receive(
    response: http.client.HTTPResponse, partial: _Partial, offset: int, total: int | None
) -> None:
    progress = _Progress(partial.path.stem, total, offset)
    try:
        with partial.path.open("ab" if offset else "wb") as sink:
            while chunk := _read(response):
                sink.write(chunk)
                offset += len(chunk)
                progress.advance(len(chunk))
            sink.flush()
            os.fsync(sink.fileno())
    finally:
        progress.close()
    if total is not None and offset != total:
        raise _Interrupted(f"the connection broke after {offset} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as problem:
        raise _Interrupted(f"the connection broke ({_reason(problem)})") from problem


@contextmanager
def _answer(
    url: str, headers: dict[str, str], timeout_s: float, method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    """An answer with status 200, 206 or 416; any other becomes UserError or _Interrupted."""
    if not url.lower().startswith(("http://", "https://")):
        raise UserError(f"cannot fetch {url!r}: the address must begin with http:// or https://")
    fields = {"User-Agent": "yolo", "Accept-Encoding": "identity", **headers}
    try:
        request = urllib.request.Request(url, headers=fields, method=method)
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as problem:
        if problem.code in STATUS_WORTH_ANOTHER_TRY:
            raise _Interrupted(f"the server answers {problem.code} {problem.reason}") from problem
        if problem.code != 416:
            raise UserError(
                f"cannot fetch {url}: the server answers {problem.code} {problem.reason}; "
                "check the address"
            ) from problem
        response = cast(http.client.HTTPResponse, problem)  # it answers to the same names
    except (http.client.InvalidURL, ValueError) as problem:
        raise UserError(f"cannot fetch {url!r}: not a valid address ({problem})") from problem
    except (http.client.HTTPException, OSError) as problem:
        raise _Interrupted(f"no connection ({_reason(problem)})") from problem
    with response:
        yield response


def _reason(problem: BaseException) -> str:
    reason = getattr(problem, "reason", None) or problem
    return str(reason) or type(reason).__name__


def _promise(response: http.client.HTTPResponse) -> tuple[int | None, int | None]:
    """Where the body starts in the file (None: nowhere, status 416) and the whole file's bytes."""
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", response.headers.get("Content-Range", "")
    )
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total else None


def _version(response: http.client.HTTPResponse) -> str:
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _check_promise(
    url: str, partial: _Partial, start: int, total: int | None, size: int | None
) -> None:
    """Refuses before the first byte what cannot end well: another size, too little space."""
    if total is None:
        return
    if size is not None and total != size:
        raise UserError(f"{url} has {total} bytes where {size} were expected; nothing was fetched")
    free = shutil.disk_usage(partial.path.parent).free
    if total - start > free:
        raise UserError(
            f"no space in {partial.path.parent}: {url} needs {readable_size(total - start)}, "
            f"{readable_size(free)} are free; make room, or choose another folder"
        )


def _check(path: Path, size: int | None, sha256: str | None, what: str, then: str = "") -> None:
    found = path.stat().st_size
    if size is not None and found != size:
        raise UserError(f"{what} has {found} bytes where {size} were expected{then}")
    if sha256 is not None:
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            raise UserError(
                f"{what} has the SHA-256 sum {digest.hexdigest()} where {sha256} was expected{then}"
            )


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """What the file system refuses becomes one sentence."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left for {place}; make room and start again") from problem
        raise UserError(f"cannot write {place}: {problem.strerror or problem}") from problem


class _Progress:
    """A bar in a terminal, a plain line now and then elsewhere."""

    def __init__(self, name: str, total: int | None, done: int) -> None:
        self._name, self._total, self._done = name, total, done
        self._told_at = time.monotonic()
        self._bar = (
            tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, size: int) -> None:
        self._done += size
        if self._bar is not None:
            self._bar.update(size)
        elif time.monotonic() - self._told_at >= PLAIN_LINE_EVERY_S:
            self._tell()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        of = "" if self._total is None else f" of {readable_size(self._total)}"
        print(f"{self._name}: {readable_size(self._done)}{of}", file=sys.stderr, flush=True)
