"""A filter before the page's server that refuses requests which the page itself never makes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yolo.apps.demo.pictures import LARGEST_UPLOAD_MIB

LARGEST_BODY_BYTES = LARGEST_UPLOAD_MIB * 2**20 + 2**16  # an upload in its multipart wrapping

KEEP_SECONDS = 900
"""So long a file of a visitor stays, and shorter where those of all pass one of the next two."""

LARGEST_UPLOADS_BYTES = 2**28
MOST_UPLOADS = 1000

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""The browser loads nothing from another address. Gradio's page needs inline scripts and styles."""


class RequestFilter:
    """An ASGI application around another one.

    It bounds what may be sent, fetches no other address on behalf of a visitor (Gradio's file route
    would), answers to no other host names than ``hosts`` (without port, none for any; so that no
    foreign page can reach it by a name that it points to 127.0.0.1), takes nothing that a page of
    another origin sends through a visitor's browser, and forbids the browser to load anything from
    elsewhere. Old files in the folder ``uploads`` make room for new ones; those that are there at
    the beginning stay.
    """

    def __init__(self, app: ASGIApp, uploads: Path, hosts: tuple[str, ...] = ()) -> None:
        self.app = app
        self.hosts = hosts
        self._uploads, self._kept = uploads, set(uploads.rglob("*"))
        self._incoming_bytes = 0  # of requests that have not been answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            close = {"connection": "close"}  # what was sent is not read
            status, sentence = refusal
            await PlainTextResponse(sentence, status, close)(scope, receive, send)
            return
        length = int(headers.get("content-length", "0"))
        self._incoming_bytes += length
        try:
            if length:
                self._make_room()
            await self.app(scope, receive, send_with_policy)
        finally:
            self._incoming_bytes -= length

    def _make_room(self) -> None:
        """Remove the oldest uploads while they are too old, too large or too many."""
        files = []
        for path in set(self._uploads.rglob("*")) - self._kept:
            with suppress(OSError):  # it is gone
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
        total, left = self._incoming_bytes + sum(size for _, size, _ in files), len(files)
        for modified, size, path in sorted(files):
            is_old = modified < time.time() - KEEP_SECONDS
            if not is_old and total <= LARGEST_UPLOADS_BYTES and left <= MOST_UPLOADS:
                return
            with suppress(OSError):
                path.unlink()
                total, left = total - size, left - 1
                if path.parent != self._uploads:
                    path.parent.rmdir()  # unless it has others

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """HTTP status and sentence."""
        # localhost:7860 -> localhost, [::1]:7860 -> [::1]
        host = re.sub(r":\d*$", "", headers.get("host", "")).lower()
        if self.hosts and host not in self.hosts:
            return 421, "This page is not served under that name."
        if re.search(r"https?:", scope["path"], re.IGNORECASE):
            return 403, "Other addresses are not fetched."
        if scope["method"] not in ("GET", "HEAD") and _is_of_another_page(headers):
            return 403, "Nothing is taken from other pages: open this one and upload there."
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return 411, "The length of what is sent must be given."
        if int(length) > LARGEST_BODY_BYTES:
            return 413, f"At most {LARGEST_UPLOAD_MIB} MiB can be sent."
        if self._incoming_bytes + int(length) > LARGEST_UPLOADS_BYTES:
            return 503, "Too much is being sent by others at the moment: try again."
        return None


def _is_of_another_page(headers: Mapping[str, str]) -> bool:
    """A browser names the page that sends, and no page can change it; programs name none.

    Where the browser itself compares (over https and to localhost) its word holds, for a proxy may
    have changed Host.
    """
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    own, origin = headers.get("host", "").lower(), headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != own
