"""Makes the README's picture: ``python docs/make_picture.py RUN PREFLIGHT ANALYSIS IMAGE...``.

RUN is a run's folder; PREFLIGHT and ANALYSIS are the pages that ``scripts/preflight.py --html`` and
``validation.py --analyse`` wrote; the IMAGEs are shown with what the run's ``best.pt`` finds in
them. A Chromium with its driver takes the pages' pictures.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from yolo import Predictor  # noqa: E402

HEIGHT_PX, PAGE_WIDTH_PX, GAP_PX = 720, 820, 12
QUALITY = 85


def main() -> None:
    """Write docs/overview.jpg: the images below each other, then the beginnings of both pages."""
    run, preflight, analysis, *images = sys.argv[1:]
    predictor = Predictor.from_checkpoint(run, conf=0.5)
    drawn = [
        Image.fromarray(prediction.draw(image))
        for image, prediction in zip(images, predictor(images), strict=True)
    ]
    share = (HEIGHT_PX - GAP_PX * (len(drawn) - 1)) // len(drawn)
    column = stack([one.resize((one.width * share // one.height, share)) for one in drawn], axis=0)
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(option)
    driver = Service(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=driver) as browser:
        pages = [picture_of(browser, Path(page)) for page in (preflight, analysis)]
    whole = stack([column, *pages], axis=1)
    whole.save(ROOT / "docs/overview.jpg", quality=QUALITY, optimize=True)


def picture_of(browser: webdriver.Chrome, page: Path) -> Image.Image:
    """The beginning of a page."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PAGE_WIDTH_PX, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(page.resolve().as_uri())
    shown = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return shown.resize((shown.width * HEIGHT_PX // shown.height, HEIGHT_PX))


def stack(pictures: list[Image.Image], *, axis: int) -> Image.Image:
    """Pictures of one width (axis 0) or one height (axis 1), with white between them."""
    parts = [np.asarray(picture) for picture in pictures]
    shape = list(parts[0].shape)
    shape[axis] = GAP_PX
    between = np.full(shape, 255, np.uint8)
    parts = [part for one in parts for part in (one, between)][:-1]
    return Image.fromarray(np.concatenate(parts, axis=axis))


if __name__ == "__main__":
    main()
