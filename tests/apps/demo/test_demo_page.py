"""The page's server, asked as a browser, a program and an attacker would ask it."""

import http.client
import importlib
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.apps.demo.stand_ins import QuarterFinder, explain
from yolo.apps.demo.page import build_page, serving
from yolo.apps.demo.pictures import Views, write_examples
from yolo.apps.demo.request_filter import LARGEST_BODY_BYTES
from yolo.apps.demo.show import own_folder
from yolo.errors import UserError


@pytest.fixture(scope="module")
def served():
    """The page's address, and the folder of its files."""
    with own_folder() as folder:
        views = Views(QuarterFinder(), explain)
        page = build_page(views, write_examples(folder / "examples", 2), conf=0.25, iou=0.45)
        with serving(page) as address:
            yield address, folder


@pytest.fixture(scope="module")
def address(served):
    return served[0]


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=tmp_path_factory.mktemp("answers"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((200, 100, 3), 128, np.uint8))
    return path


def test_a_picture_gives_boxes_and_a_table(client, picture):
    drawn, table = client.predict(handle_file(picture), 0.3, 0.5, api_name="/detect")
    assert cv2.imread(drawn).shape == (200, 100, 3)
    assert table["headers"] == ["class", "score", "left", "top", "width", "height"]
    assert table["data"] == [["cat", 0.9, 0, 0, 50, 100], ["<b>dog</b>", 0.4, 0, 0, 100, 200]]
    _, table = client.predict(handle_file(picture), 0.5, 0.5, api_name="/detect")
    assert [row[0] for row in table["data"]] == ["cat"]


def test_maps_with_their_captions(client, picture):
    maps = client.predict(handle_file(picture), api_name="/explain")
    assert [one["caption"] for one in maps] == ["stride8", "stride16"]


def test_no_picture(client):
    drawn, table = client.predict(None, 0.3, 0.5, api_name="/detect")
    assert drawn is None
    assert table["data"] == []
    with pytest.raises(AppError, match="Choose a picture first"):
        client.predict(None, api_name="/explain")


def test_a_bad_upload_gives_a_sentence(client, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("no picture")
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(path), 0.3, 0.5, api_name="/detect")
    sentence = str(caught.value)
    assert "The file text.jpg is no picture that can be read: choose a JPEG" in sentence
    assert "Traceback" not in sentence
    assert "/" not in sentence


SECRETS = ["/etc/passwd", str(Path(__file__).resolve()), "../../../../../../../../etc/passwd"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("route", ["gradio_api/file=", "gradio_api/file/", "file=", "static/"])
def test_no_file_is_served_but_the_pages_own(address, route, secret):
    for path in (secret, secret.replace("/", "%2f")):
        status, body = get(address, f"/{route}{path}")
        assert status in (403, 404), path
        assert b"root:" not in body
        assert b"def test_" not in body


def get(address, path):
    """As it stands: other clients tidy the path up."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


META = {"_type": "gradio.FileData"}
NAMED = [
    {"path": "/etc/passwd", "meta": META},
    {"path": "/etc/passwd"},
    {"path": __file__, "orig_name": "a.svg", "meta": META},
    {"path": "http://127.0.0.1/a.png", "meta": META},
    {"path": "https://example.com/a.png", "meta": META},
    {"url": "data:image/png;base64,AAAA", "meta": META},
    "/etc/passwd",
]


@pytest.mark.parametrize("named", NAMED)
def test_a_request_cannot_name_a_file_or_address(address, named):
    answer = call(address, "detect", [named, 0.3, 0.5])
    assert "event: error" in answer, answer
    in_a_slider = call(address, "detect", [None, named, 0.5])
    assert "event: error" in in_a_slider or "://" not in str(named)
    assert "root:" not in answer + in_a_slider
    assert "Traceback" not in answer + in_a_slider


def call(address, name, data):
    started = httpx.post(f"{address}gradio_api/call/{name}", json={"data": data})
    if started.status_code != 200:
        return f"event: error {started.text}"
    return httpx.get(f"{address}gradio_api/call/{name}/{started.json()['event_id']}").text


def test_addresses_are_not_fetched_for_a_visitor(address):
    for path in ("http://example.com/", "HTTPS://example.com", "%68ttp://127.0.0.1:22/"):
        assert get(address, f"/gradio_api/file={path}")[0] == 403
        assert get(address, f"/gradio_api/proxy={path}")[0] == 403


def test_too_much_is_not_taken(address):
    url = f"{address}gradio_api/upload"
    large = {"files": ("a.png", bytes(LARGEST_BODY_BYTES), "image/png")}
    assert httpx.post(url, files=large).status_code == 413
    assert httpx.post(url, content=iter([b"x"])).status_code == 411  # without its length
    inside = {"files": ("a.png", bytes(LARGEST_BODY_BYTES - 2**15), "image/png")}
    assert httpx.post(url, files=inside).status_code == 413  # Gradio's own limit


def test_a_foreign_name_for_this_machine_is_refused(address):
    assert httpx.get(address, headers={"host": "attacker.example:7860"}).status_code == 421
    assert httpx.get(address, headers={"host": f"localhost:{urlsplit(address).port}"}).is_success


def test_the_page_sends_nothing_elsewhere(address):
    response = httpx.get(address)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    config = httpx.get(f"{address}config").json()
    assert config["analytics_enabled"] is False
    loaded = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"(https?:[^\"]+)", response.text)
    assert [url for url in loaded if not url.startswith(address)] == []
    css = httpx.get(f"{address}theme.css").text
    assert set(re.findall(r"https?://[^'\")]+", css)) <= {"http://www.w3.org/2000/svg"}  # a name
    assert "googleapis" not in json.dumps(config.get("stylesheets", []))


def test_files_lie_in_the_pages_own_folder(served, client, picture):
    client.predict(handle_file(picture), 0.3, 0.5, api_name="/detect")
    folder = served[1]
    assert list((folder / "uploads").rglob("grey.png"))
    assert not Path(".gradio").exists()


def test_a_taken_port_is_one_sentence(address):
    page = build_page(Views(QuarterFinder(), explain), [], conf=0.25, iou=0.45)
    taken = serving(page, port=urlsplit(address).port)
    with pytest.raises(UserError, match="choose another with --port"), taken:
        pass


def test_a_missing_gradio_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "yolo.apps.demo.page")
    with pytest.raises(UserError, match=r"needs Gradio: pip install -e '\.\[demo,explain\]'"):
        importlib.import_module("yolo.apps.demo.page")
