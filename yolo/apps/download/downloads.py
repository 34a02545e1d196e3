"""Downloads a file: resumes, checks its size, shows progress, and renames at the end."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from yolo.errors import UserError
from yolo.files import atomic_write, locked, open_no_link

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # the longest silence of the server
LEAST_BYTES_PER_S = 1000  # on an average of
SLOW_S = 20.0  # which is also the longest wait for an answer to begin
TRIES = 5  # failures in a row, none of them bringing what a slow server could, before it gives up
PAUSE_S = 1.0  # before the second try, doubled before each further one
PLAIN_LINE_EVERY_S = 10.0
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Interrupted(Exception):
    """The connection failed in a way that may not repeat."""


def download(url: str, path: Path, *, size: int | None = None) -> Path:
    """Fetches a file once; `path` exists only when all of it has arrived, ``size`` bytes if given.

    What has arrived lies in `<path>.part` until then, and a later try or call continues it. Where
    another process is fetching the file, this one waits for it. A file that is there already is
    kept, and checked like a new one.
    """
    if not path.exists():
        with exclusive(path, "fetching"):
            if not path.exists():
                part = _Part(url, path.with_name(f"{path.name}.part"), size)
                part.fetch()
                part.keep(path)
                return path
    found = path.stat().st_size
    _check_size(f"{path} is there already, but", found, size, "; remove it to fetch it again")
    return path


def remote_size(url: str) -> int | None:
    """Length in bytes that the server gives for a file, None where it gives none."""
    try:
        with _request(url, {}, method="HEAD") as response:
            return _extent(response)[1]
    except _Interrupted as problem:
        raise UserError(f"cannot fetch {url}: {problem}; check the connection") from problem


def readable_size(size: float) -> str:
    """1234567 -> '1.2 MB' (decimal units, as disks and servers count)."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


@dataclass(frozen=True)
class _Part:
    """What has arrived of a file, beside a note of which version of it the server sent."""

    url: str
    path: Path
    expected_size: int | None

    @property
    def version_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}-version")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.version_path.unlink(missing_ok=True)

    def keep(self, path: Path) -> None:
        """Gives what has arrived its name if it is right; else nothing of it stays."""
        size = self.size()
        if self.expected_size in (None, size):
            self.path.replace(path)
        self.discard()
        _check_size(f"{self.url} gave a file that", size, self.expected_size)

    def fetch(self) -> None:
        if self.path.is_symlink() or self.version_path.is_symlink():
            self.discard()  # it is somebody else's, and may lead anywhere
        failures = 0
        while True:
            had = self.size()
            try:
                return self._fetch_rest()
            except _Interrupted as problem:
                enough = LEAST_BYTES_PER_S * SLOW_S
                failures = 1 if self.size() - had > enough else failures + 1
                if failures >= TRIES:
                    raise UserError(
                        f"cannot fetch {self.url}: {problem}; check the connection and start "
                        f"again, what has arrived ({readable_size(self.size())}) is kept"
                    ) from problem
                pause = PAUSE_S * 2 ** (failures - 1)
                notice = f"{self.url}: {problem}; trying again in {pause:g} s"
            print(notice, file=sys.stderr, flush=True)
            time.sleep(pause)

    def _fetch_rest(self) -> None:
        if self.expected_size is not None and self.size() > self.expected_size:
            self.discard()
        offset = self.size()
        if offset and offset == self.expected_size:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _request(self.url, headers) as response:
            start, total = _extent(response)
            if response.status == 416 and total == offset:
                return  # nothing behind the end: all of it had arrived
            named = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            version = named.encode("utf-8", "replace")
            known = self.version_path.read_bytes() if self.version_path.exists() else b""
            if start not in (0, offset) or (start and known != version):
                self.discard()
                raise _Interrupted("the file there has changed, beginning anew")
            if total is not None:  # what cannot end well is refused before the first byte
                _check_size(self.url, total, self.expected_size, "; nothing was fetched")
                free, needed = shutil.disk_usage(self.path.parent).free, total - start
                if needed > free:
                    raise UserError(
                        f"no space in {self.path.parent}: {self.url} needs "
                        f"{readable_size(needed)}, {readable_size(free)} are free; make room, or "
                        "choose another folder"
                    )
            atomic_write(self.version_path, version)
            self._receive(response, start, total)

    def _receive(self, response: http.client.HTTPResponse, offset: int, total: int | None) -> None:
        flags = os.O_WRONLY | (os.O_APPEND if offset else os.O_TRUNC)
        with (
            _progress(self.path.stem, total, offset) as advance,
            os.fdopen(open_no_link(self.path, flags), "wb") as sink,
        ):
            since, counted_from = time.monotonic(), offset
            while chunk := _read(response):
                offset += sink.write(chunk)
                advance(len(chunk))
                seconds = time.monotonic() - since
                if seconds >= SLOW_S:
                    if offset - counted_from < seconds * LEAST_BYTES_PER_S:
                        raise _too_slow(self.url)
                    since, counted_from = time.monotonic(), offset
            sink.flush()
            os.fsync(sink.fileno())
        if total is not None and offset != total:
            raise _Interrupted(f"the connection broke after {offset} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)  # what is there: `read` waits for all of it
    except (http.client.HTTPException, OSError) as problem:
        raise _Interrupted(f"the connection broke ({_reason(problem)})") from problem


def _too_slow(url: str) -> UserError:
    return UserError(
        f"cannot fetch {url}: for {SLOW_S:g} s the server has sent less than "
        f"{readable_size(LEAST_BYTES_PER_S)} a second; start again later, what has arrived is kept"
    )


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Ends a wait for the head of an answer that comes byte by byte: a timeout is of each byte."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        class Connection(http_class):
            def getresponse(self) -> http.client.HTTPResponse:
                timer = threading.Timer(SLOW_S, self.sock.shutdown, [socket.SHUT_RDWR])
                start = time.monotonic()
                timer.start()
                try:
                    return super().getresponse()
                finally:
                    timer.cancel()
                    if time.monotonic() - start >= SLOW_S:
                        raise _too_slow(req.full_url)

        return super().do_open(Connection, req, **options)


@contextmanager
def _request(
    url: str, headers: dict[str, str], method: str = "GET"
) -> Iterator[http.client.HTTPResponse]:
    """An answer with status 200, 206 or 416; any other becomes UserError or _Interrupted."""
    if not url.lower().startswith(("http://", "https://")):
        raise UserError(f"cannot fetch {url!r}: the address must begin with http:// or https://")
    fields = {"User-Agent": "yolo", "Accept-Encoding": "identity", **headers}
    try:
        request = urllib.request.Request(url, headers=fields, method=method)
        response = urllib.request.build_opener(_Handler).open(request, timeout=TIMEOUT_S)
    except UserError:
        raise
    except urllib.error.HTTPError as problem:
        answer = f"the server answers {problem.code} {problem.reason}"
        if problem.code in TEMPORARY_STATUSES:
            raise _Interrupted(answer) from problem
        if problem.code != 416:
            raise UserError(f"cannot fetch {url}: {answer}; check the address") from problem
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


def _extent(response: http.client.HTTPResponse) -> tuple[int | None, int | None]:
    """Where the body starts in the file (None: nowhere, status 416) and the whole file's bytes."""
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", content_range)
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total else None


def _check_size(what: str, found: int, expected: int | None, then: str = "") -> None:
    if expected not in (None, found):
        raise UserError(f"{what} has {found} bytes where {expected} were expected{then}")


@contextmanager
def exclusive(place: Path, work: str) -> Iterator[None]:
    """Makes a file's folder, and lets one process at a time do the work ("fetching") on the file.

    What the file system refuses becomes a ``UserError``.
    """
    notice = f"{place}: another process is {work} this file; waiting for its end"
    lock = place.with_name(f".{place.name}.{work}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, waiting=lambda: print(notice, file=sys.stderr, flush=True)):
            yield
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left for {place}; make room and start again") from problem
        raise UserError(f"cannot write {place}: {problem.strerror or problem}") from problem


@contextmanager
def _progress(name: str, total: int | None, done: int) -> Iterator[Callable[[int], object]]:
    """Yields what adds bytes to a bar in a terminal, to a plain line now and then elsewhere."""
    if sys.stderr.isatty():
        with tqdm(desc=name, total=total, initial=done, unit="B", unit_scale=True) as bar:
            yield bar.update
        return
    printed_at = time.monotonic()

    def advance(size: int, print_every_s: float = PLAIN_LINE_EVERY_S) -> None:
        nonlocal done, printed_at
        done += size
        if time.monotonic() - printed_at >= print_every_s:
            printed_at = time.monotonic()
            of = "" if total is None else f" of {readable_size(total)}"
            print(f"{name}: {readable_size(done)}{of}", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        advance(0, print_every_s=0)
