"""What every page has to be: parsed as a browser parses it."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import cv2
import numpy as np

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=https://example.com/x.png onerror=alert(1)>',
    "</td></table></style><iframe src='//example.com'>",
    "$x^{ & \u202e狗",
]


class Page(HTMLParser):
    """Tags, texts and pictures of a page; complains of what is no part of one."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.pictures: list[np.ndarray] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == [], "tags left open"

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "link", "object", "base"), tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self._check_address(name, value)
            assert "url(" not in (value or "") or "url(#" in value
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "style":
            assert "http" not in data and "@import" not in data and "url(" not in data
        elif data.strip():
            self.texts.append(data.strip())

    def _check_address(self, name, value):
        start = "data:image/jpeg;base64,"
        if value.startswith(start):
            content = np.frombuffer(base64.b64decode(value.removeprefix(start)), np.uint8)
            self.pictures.append(cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1])
        else:
            assert name != "src" and ":" not in value and "//" not in value, value

    @property
    def text(self) -> str:
        return "\n".join(self.texts)
