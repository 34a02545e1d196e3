"""Every cheap case runs, and its figures can be read; how fast it was is not tested."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import annotations
from benchmarks.cases import CASES, TRAININGS
from benchmarks.figures import Figure, Goal, Settings, show
from benchmarks.memory import in_fresh_process, peak_bytes
from benchmarks.timing import Rounds, take_turns
from benchmarks.training import CLASSES, make_contiguous, random_batch, read_config
from scripts import benchmark
from tests.coco_files import write_coco
from yolo.factory.detector import build_detector

CHEAP = ("train-tiny", "detection", "suppression", "loss", "loader", "coco-metric", "gpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder like coco-mini, of four images."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), dtype=np.uint8)
    boxes = [(0, 0, [10, 10, 30, 20], False)]
    written = write_coco(tmp_path / "train2017", dict(enumerate(noise)), boxes, file_name="{}.jpg")
    Path(written["annotations"]).rename(tmp_path / "annotations/instances_train2017.json")
    return tmp_path


def table_of(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["case", "figure", "value", "goal", ""]
    assert all(set(cell) <= set("-:") for cell in cells[1])
    return cells[2:]


def test_cheap_cases_give_figures_and_a_page(images, tmp_path, capsys):
    page = tmp_path / "results.md"
    options = ["--tiny", "--rounds", "2", "--gpu", "cpu", "--data", str(images)]
    assert benchmark.main([*CHEAP, *options, "--output", str(page)]) == 0
    rows = table_of(page.read_text())
    assert [name for name in benchmark.CASES if name in {row[0] for row in rows}] == list(CHEAP)
    for row in rows:
        assert len(row) == 5
        value, unit = row[2].split()
        assert float(value.replace(",", "")) > 0, row
        assert unit in ("images/s", "times", "ms", "s", "%", "GB", "GB/s", "TFLOP/s")
    shares = [float(row[2].split()[0]) for row in rows if row[1].startswith("share of ")]
    assert len(shares) == 4 and abs(sum(shares) - 100) < 1  # of one sample of the loader
    assert f"`python scripts/benchmark.py {CHEAP[0]}" in page.read_text()
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(CHEAP) for line in printed) == len(rows)


def test_the_command_line_knows_the_cases():
    assert list(benchmark.CASES) == [case.name for case in CASES]
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert all(name in result.stdout for name in benchmark.CASES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lossy"], "there is no case 'lossy' (did you mean 'loss'?)"),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--gpu", "cpu,cpu"], "--gpu: measuring uses one device"),
        (["--output", "/nowhere/results.md"], "--output /nowhere/results.md: there is no folder"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, sentence, usage_error):
    error = usage_error(benchmark.main, *arguments)
    assert sentence in error
    assert error.count("\n") == 1


def test_a_named_case_without_its_data_fails(tmp_path, capsys):
    assert benchmark.main(["loader", "--gpu", "cpu", "--data", str(tmp_path / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: loader: ")
    assert "--data" in error


def test_an_unnamed_case_without_its_data_is_left_out(tmp_path):
    settings = Settings(rounds=2, device=torch.device("cpu"), data=tmp_path)
    lacks = {case.name: case.lacks(settings) for case in CASES}
    assert "does not exist" in (lacks.pop("loader") or "")
    assert "there is no GPU" in (lacks.pop("gpu") or "")
    if sys.platform == "linux":
        assert set(lacks.values()) == {None}


def test_the_baseline_computes_in_contiguous_memory():
    """Else channels-last memory would speed up what it is compared with."""
    detector = build_detector(read_config(TRAININGS["train-tiny"]), CLASSES)
    images = random_batch(2, 64).images
    reference = detector(images)
    outputs = []
    for module in make_contiguous(detector).modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, args, output: outputs.append(output))
    raw = detector(images)
    assert len(outputs) > 20
    assert all(output.is_contiguous() for output in outputs)
    for ours, theirs in zip(raw, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_contestants_take_turns_and_the_first_round_is_dropped():
    order: list[str] = []
    work = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    rounds = take_turns(work, rounds=3)
    assert order == ["a", "b"] * 3
    assert [len(values) for values in rounds.seconds.values()] == [2, 2]


def test_a_ratio_is_the_median_over_the_rounds():
    rounds = Rounds({"slow": [3.0, 30.0, 4.0], "fast": [1.0, 10.0, 4.0]})
    assert rounds.median("slow") == 4
    assert rounds.speedup("fast", over="slow") == 3


def test_goals():
    assert Figure("", 3.0, "times", Goal("at least", 3)).verdict == "met"
    assert Figure("", 2.9, "times", Goal("at least", 3)).verdict == "missed"
    assert Figure("", 4.3, "GB", Goal("at most", 4.2)).verdict == "missed"
    assert Figure("", 4.3, "GB").verdict == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_numbers_are_shown_with_the_digits_that_count(value, text):
    assert show(value) == text


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_memory_of_annotations_is_found_for_each_number_of_workers(monkeypatch):
    monkeypatch.setattr(annotations, "WORKERS", (0, 1))
    monkeypatch.setattr(annotations, "REPEATS", 1)
    assert list(annotations.annotations_cost((500, 3000))) == [0, 1]


def test_a_fresh_process_answers():
    assert in_fresh_process(os.getpid) != os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_peak_memory_is_the_process_own():
    """A process started by a large one must not be charged with its size."""
    large = np.ones(300_000_000, np.uint8)
    program = "from benchmarks.memory import peak_bytes; print(peak_bytes())"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert 0 < int(result.stdout) < large.nbytes
    assert peak_bytes() > large.nbytes
