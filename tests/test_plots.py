import numpy as np
import pytest

from yolo.plots import Line, Panel, draw_classes, draw_models


def line(name: str, figure: float = 0.5) -> Line:
    levels = np.linspace(0, 1, 11)
    return Line.steps(name, levels, 1 - levels / 2, figure)


def test_the_area_below_the_steps_is_the_average_precision() -> None:
    """Right, wrong, right of four truths: precision 1 up to a recall of 1/4, 2/3 up to 2/4."""
    steps = Line.steps("cat", np.array([0.25, 0.25, 0.5]), np.array([1.0, 2 / 3, 2 / 3]), 5 / 12)
    assert steps.x.tolist() == [0, 0.25, 0.25, 0.5, 0.5]
    assert steps.y.tolist() == [1, 1, 2 / 3, 2 / 3, 0]
    assert np.trapezoid(steps.y, steps.x) == pytest.approx(steps.figure)


def test_nothing_found_is_no_line() -> None:
    steps = Line.steps("cat", np.array([0.0, 0.0]), np.array([0.0, 0.0]), 0.0)
    assert len(steps.x) == len(steps.y) == 0
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
    height, width = third.shape
    cells = [
        third[row * height * 4 // 10 :][: height * 4 // 10, column * width // 3 :][:, : width // 3]
        for row in (0, 1)
        for column in (0, 1, 2)
    ]
    assert [cell.sum() > 100 for cell in cells] == [True, False, True, False, True, False]
