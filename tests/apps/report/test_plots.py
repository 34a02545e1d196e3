import numpy as np
import pytest

from tests.evaluate.metrics.test_metric import curve
from yolo.apps.report.plots import (
    RECALL_LEVELS,
    Line,
    Panel,
    draw_classes,
    draw_curves,
    draw_models,
    mean_precision,
    pooled,
)
from yolo.evaluate.metrics.metric import PrecisionRecall


def line(name: str, figure: float = 0.5) -> Line:
    levels = np.linspace(0, 1, 11)
    return Line.steps(name, levels, 1 - levels / 2, figure)


def test_the_area_below_the_steps_is_the_average_precision_and_nothing_is_no_line() -> None:
    """Right, wrong, right of four truths: precision 1 up to a recall of 1/4, 2/3 up to 2/4."""
    steps = Line.steps("cat", np.array([0.25, 0.25, 0.5]), np.array([1.0, 2 / 3, 2 / 3]), 5 / 12)
    assert steps.x.tolist() == [0, 0.25, 0.25, 0.5, 0.5]
    assert steps.y.tolist() == [1, 1, 2 / 3, 2 / 3, 0]
    assert np.trapezoid(steps.y, steps.x) == pytest.approx(steps.figure)
    nothing = Line.steps("cat", np.array([0.0, 0.0]), np.array([0.0, 0.0]), 0.0)
    assert len(nothing.x) == len(nothing.y) == 0
    assert len(Line.steps("cat", np.zeros(0), np.zeros(0), 0.0).x) == 0


def has_a_margin(picture: np.ndarray) -> bool:
    """Nothing is cut off at the edges."""
    edges = (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:])
    return all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize("classes", [0, 1, 80])
@pytest.mark.filterwarnings("error")
def test_classes_of_one_model(classes: int) -> None:
    names = ["$odd^{", "_hidden", "two\nlines", "狗", *(f"class {i} {'x' * i}" for i in range(80))]
    lines = [line(name) for name in names[:classes]]
    picture = draw_classes(lines, line("mean"), title="a run " * 30)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert has_a_margin(picture)
    blue = (picture == (0x1F, 0x77, 0xB4)).all(axis=2)  # the first colour
    assert blue.any() == (classes > 0)
    assert (picture == 0).all(axis=2).sum() > 500  # the mean


def test_models_side_by_side() -> None:
    models = ["a/best", "b/best", "a name of some length " * 3]
    panels = [
        Panel(title=f"class {i}", lines=[line(name) for name in models[: 3 - i % 2]], figure="AP")
        for i in range(5)
    ]
    picture = draw_models(panels, models, title="data.val")
    assert has_a_margin(picture)
    third = (picture == (0x2C, 0xA0, 0x2C)).all(axis=2)  # the third colour
    rows = np.split(third[: len(third) * 4 // 10 * 2], 2)  # the legend is below them
    cells = [cell for row in rows for cell in np.array_split(row, 3, axis=1)]
    assert [cell.sum() > 100 for cell in cells] == [True, False, True, False, True, False]


def rows_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The rows with something of a colour, in the frame's upper 300 px: the legend is below it."""
    return np.flatnonzero((picture[:300] == colour).all(axis=2).any(axis=1))


BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)


@pytest.mark.filterwarnings("error")
def test_curves_from_zero() -> None:
    """A level line at 1 is the top of the frame, one at 1/2 its middle; 0 is its bottom."""
    x = np.arange(5)
    curves = [Line(name="a" * 300, x=x, y=x * 0 + 1.0), Line(name="$_", x=x, y=x * 0 + 0.5)]
    picture = draw_curves(curves, title="t", x="steps", y="rate")
    high, middle = rows_of(picture, BLUE).mean(), rows_of(picture, ORANGE).mean()
    frame = (picture == 0).all(axis=2).mean(axis=1) > 0.8
    bottom = np.flatnonzero(frame).max()
    assert (bottom - middle) / (bottom - high) == pytest.approx(0.5, abs=0.02)
    assert has_a_margin(picture)


def test_a_logarithmic_scale_ends_where_nothing_is_to_see() -> None:
    """Six decades: a value of 1e-3 lies in the middle, whatever the smallest is."""
    y = np.array([1e-16, 1.0, 1e-3, 1e-3, 1e-3, 1e-3])
    rate = Line(name="rate", x=np.arange(6), y=y)
    picture = draw_curves([rate], title="t", x="x", y="y", y_scale="log")
    row = (picture == BLUE).all(axis=2).sum(axis=1).argmax()  # the level part
    frame = np.flatnonzero((picture == 0).all(axis=2).mean(axis=1) > 0.8)
    height = frame.max() - rows_of(picture, BLUE).min()  # of the value 1
    assert (frame.max() - row) / height == pytest.approx(0.5, abs=0.02)


def test_points_have_their_markers() -> None:
    one = [Line(name="now", x=np.array([9]), y=np.array([0.6]), marker="x")]
    assert len(rows_of(draw_curves(one, title="t", x="x", y="y"), BLUE)) > 3


def test_pooled_sorts_by_score_and_skips_classes_without_truth() -> None:
    one = PrecisionRecall.of_hits(np.array([True, False]), np.array([0.9, 0.3]), truths=2)
    other = PrecisionRecall.of_hits(np.array([False, True]), np.array([0.6, 0.5]), truths=1)
    all_of_them = pooled([one, other, curve("---", truths=0)])
    assert all_of_them.scores.tolist() == [0.9, 0.6, 0.5, 0.3]
    assert all_of_them.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert all_of_them.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert pooled([]).truths == 0 and len(pooled([]).scores) == 0


def test_mean_precision_over_classes() -> None:
    half, whole = curve("+", truths=2), curve("++", truths=2)
    mean = mean_precision([half, whole, curve("-", truths=0)])
    assert mean[RECALL_LEVELS <= 0.5].tolist() == [1.0] * 51
    assert mean[RECALL_LEVELS > 0.5].tolist() == [0.5] * 50
    assert mean_precision([]).tolist() == [0.0] * 101
