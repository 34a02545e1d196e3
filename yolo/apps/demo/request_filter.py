"""A filter before the page's server that refuses requests which the page itself never makes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from yolo.apps.demo.pictures import LARGEST_UPLOAD_MIB

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LARGEST_BODY_BYTES = LARGEST_UPLOAD_MIB * 2**20 + 2**16  # an upload in its multipart wrapping

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""The browser loads nothing from another address. Gradio's page needs inline scripts and styles."""


class RequestFilter:
    """An ASGI application around another one.

    It bounds what may be sent, fetches no other address on behalf of a visitor (Gradio's file route
    would), answers to no other host names than ``hosts`` (without port, none for any; so that no
    foreign page can reach it by a name that it points to 127.0.0.1), and forbids the browser to
    load anything from elsewhere.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] = ()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif refusal := self._refusal(scope):
            await _answer(send, *refusal)
        else:
            await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """HTTP status and sentence."""
        headers = {str(name, "latin-1"): str(text, "latin-1") for name, text in scope["headers"]}
        # localhost:7860 -> localhost, [::1]:7860 -> [::1]
        host = re.sub(r":\d*$", "", headers.get("host", "")).lower()
        if self.hosts and host not in self.hosts:
            return 421, "This page is not served under that name."
        if re.search(r"https?:", scope["path"], re.IGNORECASE):
            return 403, "Other addresses are not fetched."
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return 411, "The length of what is sent must be given."
        if int(length) > LARGEST_BODY_BYTES:
            return 413, f"At most {LARGEST_UPLOAD_MIB} MiB can be sent."
        return None


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what was sent is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
