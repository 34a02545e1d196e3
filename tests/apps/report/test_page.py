import numpy as np
import pytest

from tests.apps.report.pages import HOSTILE, Page
from yolo.apps.report import page
from yolo.apps.report.plots import Line
from yolo.errors import UserError


def test_data_stays_data_everywhere():
    grey = np.full((30, 40, 3), 128, np.uint8)
    steps = np.arange(3)
    for name in HOSTILE:
        rows = [[name, 1], [page.Filled(name, 0.5), page.Filled(name, 0.1)]]
        chart = page.line_chart(name, [Line(name=name, x=steps, y=steps)])
        sections = {
            name: page.table([name, "n"], rows, caption=name),
            "picture": page.grid([page.picture(grey, caption=name)], least_px=400),
            "folded": page.details(name, chart),
            "text": name,
        }
        seen = Page(page.render("page.html", title=name, subtitle=name, sections=sections))
        assert sum(name in data for data in seen.texts) == 15
        assert len(seen.pictures) == 1 and "svg" in seen.tags


def test_cells():
    nan = float("nan")
    cells = [1234, 0.12345, None, nan, "<b>", page.Filled(7, 2.0), page.Filled(nan, -1.0)]
    markup = page.table(["name"] * 7, [cells])
    assert Page(markup).texts == [*["name"] * 7, "1,234", "0.123", "–", "–", "<b>", "7", "–"]
    assert "--share:1.000" in markup and "--share:0.000" in markup
    assert page.table(["a"], []) == ""


def test_pictures_are_bounded():
    image = np.zeros((100, 3000, 3), np.uint8)
    image[:, :1500, 0] = 255
    (seen,) = Page(page.picture(image, longest_px=600)).pictures
    assert seen.shape == (20, 600, 3)
    assert seen[10, 100, 0] > 200 and seen[10, 100, 2] < 50 and seen[10, 500].max() < 50


def test_a_chart_keeps_its_figures_and_its_gaps():
    y = np.array([0.00025, np.nan, 0.0002, 0.0001])
    chart = page.line_chart("rate", [Line(name="rate", x=np.arange(4), y=y)], marks=[2])
    seen = Page(chart)
    assert "0.00010" in seen.texts and "http" not in chart and "#010203" not in chart
    assert "currentColor" in chart
    long = Line(name="long", x=np.arange(100_000), y=np.sin(np.arange(100_000)))
    assert len(page.line_chart("long", [long])) < 60 * page.MOST_POINTS
    nothing = Line(name="none", x=np.arange(2), y=np.full(2, np.nan))
    Page(page.line_chart("none", [nothing], may_be_log=True))
    Page(page.reliability_chart("r", np.array([0.1, 0.9]), np.array([0.0, 1.0])))
    gaps = Line(name="mean", x=np.arange(1000), y=np.where(np.arange(1000) % 2, np.nan, 3.0))
    chart = page.line_chart("mean of neighbours", [gaps])
    assert chart.count("<path") > 3


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    for name in ("file/page.html", "folder.html"):
        with pytest.raises(UserError, match=f"{name}: the page cannot be written"):
            page.write_page(tmp_path / name, "x")
    page.write_page(tmp_path / "new" / "page.html", "a \ud800 surrogate")
    assert (tmp_path / "new/page.html").read_text() == "a ? surrogate"
    there = {path.name for path in tmp_path.rglob("*")}
    assert there == {"file", "folder.html", "new", "page.html"}
