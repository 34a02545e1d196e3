"""The demo in a real browser: ``make test-browser``.

``YOLO_DEMO_CHECKPOINT`` and ``YOLO_DEMO_PICTURE`` name a trained model and a picture to look at;
without them it is a random network, which finds something at a low confidence.
"""

import base64
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.apps.demo.stand_ins import started, write_trained
from yolo.apps.demo.pictures import read_picture, write_examples
from yolo.config import REPOSITORY_ROOT

pytestmark = pytest.mark.browser

WAIT_SECONDS = 60
REQUESTS, AT_A_TIME = 200, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The script as a user runs it: process and address."""
    named = os.environ.get("YOLO_DEMO_CHECKPOINT")
    path = Path(named) if named else tmp_path_factory.mktemp("model") / "best.pt"
    if not named:
        write_trained(path)
    command = ["scripts/demo.py", str(path), "--gpu", "cpu"]
    with started(command, cwd=REPOSITORY_ROOT) as (process, line):
        address = re.search(r"http://\S+", line)
        assert address, f"the demo did not start: {line!r}"
        yield process, address[0]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    named = os.environ.get("YOLO_DEMO_PICTURE")
    return Path(named) if named else write_examples(tmp_path_factory.mktemp("pictures"), 1)[0]


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, whose camera shows a moving pattern."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (on Debian: apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # in a container that runs as root
        "--disable-dev-shm-usage",
        "--window-size=1400,1400",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


class Page:
    """The demo as somebody in front of it sees it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.find("#picture input[type=file]"))

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait(self, condition):
        end = time.monotonic() + WAIT_SECONDS
        while not (found := condition()):
            assert time.monotonic() < end, f"not seen in {WAIT_SECONDS} s"
            time.sleep(0.1)
        return found

    def upload(self, path):
        self.wait(lambda: self.find("#picture input[type=file]"))[0].send_keys(str(path))

    def remove(self):
        self.find("#picture button[aria-label='Remove Image']")[0].click()
        self.wait(lambda: not self.find("#boxes img"))

    def ask(self, script):
        """Of the page as it is at one moment: it changes between two questions."""
        return self.browser.execute_script(f"return {script};")

    def boxes_address(self):
        """Of the picture with boxes; another picture has another address."""
        return self.ask("document.querySelector('#boxes img')?.src")

    def wait_for_other_boxes(self, address):
        return self.wait(lambda: (now := self.boxes_address()) != address and now)

    def shown_boxes(self):
        """The picture with boxes as the browser decoded it, RGB."""
        script = """
            const image = document.querySelector('#boxes img'), done = arguments[0];
            image.decode().then(() => {
                const canvas = document.createElement('canvas');
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                canvas.getContext('2d').drawImage(image, 0, 0);
                done(canvas.toDataURL('image/png'));
            });
        """
        content = base64.b64decode(self.browser.execute_async_script(script).partition(",")[2])
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def rows(self):
        """The texts of the table's rows that are in sight."""
        return self.ask(
            "[...document.querySelectorAll('#table .virtual-row')].map("
            "row => [...row.querySelectorAll('[role=gridcell]')].map("
            "cell => cell.innerText.trim()))"
        )

    def set_slider(self, name, value):
        number = self.find(f"#{name} input[type=number]")[0]
        number.send_keys("\ue009a\ue000" + value + "\ue007")  # Ctrl+A, the value, Enter

    def messages(self):
        toasts = "document.querySelectorAll('[data-testid=toast-text]')"
        return self.ask(f"[...{toasts}].map(toast => toast.innerText).filter(text => text)")


@pytest.fixture
def page(browser, server):
    return Page(browser, server[1])


def requested(browser):
    """Every address that the browser asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in asked]


def test_upload_sliders_boxes_and_maps(page, server, picture, tmp_path_factory):
    page.upload(picture)
    first = page.wait(page.boxes_address)
    page.set_slider("conf", "0.05")
    second = page.wait_for_other_boxes(first)
    rows = page.wait(page.rows)
    assert all(len(row) == 6 for row in rows)
    assert all(float(row[1]) >= 0.05 for row in rows)

    shown, uploaded = page.shown_boxes(), read_picture(picture)
    assert shown.shape == uploaded.shape
    different = np.abs(shown.astype(int) - uploaded).max(2) > 60
    assert different.sum() > 100, "no box is drawn"

    page.set_slider("iou", "0.9")  # less suppression, more boxes
    third = page.wait_for_other_boxes(second)
    page.set_slider("iou", "0.45")
    page.wait_for_other_boxes(third)
    page.find("#explain")[0].click()
    widths = "[...document.querySelectorAll('#maps img')].map(image => image.naturalWidth)"
    page.wait(lambda: (seen := page.ask(widths)) and all(seen))
    assert len(page.ask(widths)) == 3, "one map for each scale"
    screenshot = tmp_path_factory.getbasetemp() / "demo.png"
    page.browser.save_screenshot(str(screenshot))
    print(f"screenshot: {screenshot}")

    page.set_slider("conf", "1")
    page.wait(lambda: not page.rows())
    own = (server[1], "data:", "blob:")
    elsewhere = [url for url in requested(page.browser) if not url.startswith(own)]
    assert [url for url in elsewhere if url.startswith("http")] == []


def test_examples_and_webcam(page):
    page.wait(lambda: page.find(".gallery-item img, button.gallery-item"))[0].click()
    first = page.wait(page.boxes_address)
    page.remove()
    page.find("button[aria-label='Capture from camera']")[0].click()
    page.wait(lambda: page.find("#picture [title='grant webcam access']"))[0].click()
    page.wait(lambda: page.ask("document.querySelector('#picture video')?.videoWidth"))
    page.wait(lambda: page.find("#picture button[aria-label='capture photo']"))[0].click()
    page.wait(page.boxes_address)
    assert page.boxes_address() != first
    assert page.shown_boxes().std() > 10


def test_a_bad_file_gives_a_message_and_the_page_goes_on(page, picture, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("this is no picture")
    page.upload(bad)
    (message,) = page.wait(page.messages)
    assert "The file bad.jpg is no picture that can be read" in message
    assert "Traceback" not in page.browser.page_source
    page.remove()
    page.upload(picture)
    page.wait(page.boxes_address)


def test_200_requests_8_at_a_time(server, picture):
    """None fails and the memory stays flat: it may grow by 5% after the first quarter."""
    from gradio_client import Client, handle_file

    process, address = server
    clients = [Client(address, verbose=False, download_files=False) for _ in range(AT_A_TIME)]

    def ask(number):
        conf = 0.05 + 0.9 * number / REQUESTS  # no two requests are the same
        answer = clients[number % AT_A_TIME].predict(
            handle_file(picture), conf, 0.45, api_name="/detect"
        )
        return len(answer[1]["data"])

    memory = [resident_mib(process.pid)]
    start = time.monotonic()
    counts = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for begin in range(0, REQUESTS, REQUESTS // 4):
            counts += pool.map(ask, range(begin, begin + REQUESTS // 4))
            memory.append(resident_mib(process.pid))
    seconds = time.monotonic() - start
    print(f"{REQUESTS} requests in {seconds:.1f} s, memory in MiB after each quarter: {memory}")
    assert len(counts) == REQUESTS
    assert counts[0] >= counts[-1]
    assert memory[-1] < memory[1] * 1.05


def resident_mib(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) // 1024
