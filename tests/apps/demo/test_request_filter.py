"""The filter before the page's server, without the server."""

import asyncio
import os
import time

import pytest

from yolo.apps.demo import request_filter
from yolo.apps.demo.request_filter import KEEP_SECONDS, RequestFilter

HOST = "127.0.0.1:7860"


def ask(page, method="POST", length=10, **headers):
    """The status of the answer."""
    named = {"host": HOST, "content-length": str(length)} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    pairs = [(name.encode(), text.encode()) for name, text in named.items()]
    scope = {"type": "http", "method": method, "path": "/gradio_api/upload", "headers": pairs}
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(page(scope, None, send))
    return sent[0]["status"]


async def take(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.fixture
def page(tmp_path):
    write(tmp_path / "example" / "kept.png", 100, age_s=10 * KEEP_SECONDS)
    return RequestFilter(take, tmp_path, ("127.0.0.1", "localhost"))


def write(path, size, age_s):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, 2 * (time.time() - age_s,))


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),  # a program
        ("POST", {"origin": f"http://{HOST}"}, 200),
        ("POST", {"sec_fetch_site": "same-origin", "origin": "https://proxied.example"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": f"http://{HOST}.evil.example"}, 403),
        ("POST", {"origin": f"http://{HOST}@evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:8000"}, 403),  # another port is another origin
        ("POST", {"origin": "http://localhost:7860"}, 403),
        ("POST", {"origin": "null"}, 403),  # a file, or a frame in a sandbox
        ("POST", {"origin": "http://["}, 403),
        ("POST", {"sec_fetch_site": "cross-site"}, 403),
        ("POST", {"sec_fetch_site": "same-site", "origin": f"http://{HOST}"}, 403),
        ("OPTIONS", {"origin": "http://evil.example"}, 403),
        ("PUT", {"origin": "http://evil.example"}, 403),
        ("GET", {"sec_fetch_site": "cross-site", "length": 0}, 200),  # a link to the page
        ("POST", {"host": "evil.example"}, 421),
    ],
)
def test_only_the_page_itself_and_programs_may_send(page, method, headers, status):
    assert ask(page, method, **headers) == status


def test_old_uploads_and_too_many_make_room(page, tmp_path, monkeypatch):
    monkeypatch.setattr(request_filter, "LARGEST_UPLOADS_BYTES", 1000)
    monkeypatch.setattr(request_filter, "MOST_UPLOADS", 3)

    def left(coming, **files):
        for name, (size, age_s) in files.items():
            write(tmp_path / name / "a.png", size, age_s)
        assert ask(page, length=coming) == 200
        return {path.parent.name for path in tmp_path.rglob("*.png")} - {"example"}

    assert left(10, old=(1, KEEP_SECONDS + 9), new=(1, 5)) == {"new"}
    assert not (tmp_path / "old").exists()
    assert left(300, large=(500, 3), larger=(400, 2)) == {"larger"}  # the oldest go first
    assert left(10, a=(1, 1.5), b=(1, 1), c=(1, 0.5)) == {"a", "b", "c"}
    assert (tmp_path / "example" / "kept.png").is_file()


def test_what_is_on_its_way_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(request_filter, "LARGEST_UPLOADS_BYTES", 1000)
    during = []

    async def slow(scope, receive, send):
        if not during:
            during.append(None)
            during.append(page._refusal(scope, {"host": HOST, "content-length": "600"}))
        await take(scope, receive, send)

    page = RequestFilter(slow, tmp_path)
    assert ask(page, length=600) == 200
    assert during[1][0] == 503
    assert ask(page, length=600) == 200
