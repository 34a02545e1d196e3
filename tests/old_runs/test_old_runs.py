"""What version 8c96352 wrote is read, scored, exported and gone on with; see make.py."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from yolo.config import REPOSITORY_ROOT
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

sys.path.insert(0, str(REPOSITORY_ROOT / "scripts"))
import predict
import report

import export
import main as training
import validation

OLD = Path(__file__).parent / "8c96352"
WAS_AT = "/tmp/oldrun"
"""Where make.py was told to write: the run's config names its data there."""


def moved(value, folder: Path):
    """Plain data with the paths that it names moved to another folder."""
    if isinstance(value, dict):
        return {name: moved(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [moved(part, folder) for part in value]
    return value.replace(WAS_AT, str(folder)) if isinstance(value, str) else value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run's folder, its data beside it."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    path = folder / "run" / "config.yaml"
    path.write_text(path.read_text("utf-8").replace(WAS_AT, str(folder)), "utf-8")
    checkpoint = load_checkpoint(OLD / "run" / "last.pt")
    checkpoint["config"] = moved(checkpoint["config"], folder)
    for name in ("last.pt", "best.pt"):
        save_checkpoint(folder / "run" / name, checkpoint)
    return folder / "run"


def losses_of(folder: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {str(row["step"]): row["loss"] for row in rows if row["phase"] == "training"}


def test_resuming(run: Path) -> None:
    assert training.main(["--resume", str(run), "--gpu", "cpu", "training.steps=8"]) == 0
    expected = json.loads((OLD / "losses.json").read_text())
    assert losses_of(run) == pytest.approx(expected, rel=2e-3)  # equal on the same machine
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["steps"] == 8


@pytest.mark.parametrize("name", ["run/last.pt", "detector.onnx"])
def test_scoring(name: str, run: Path, tmp_path: Path) -> None:
    place = tmp_path / "figures.json"
    if name.endswith(".onnx"):
        _move_onnx(run.parent)
    assert validation.main([str(run.parent / name), "--gpu", "cpu", "--json", str(place)]) == 0
    expected = json.loads((OLD / "validation.json").read_text())
    found = json.loads(place.read_text())
    assert found["step"] == expected["step"]
    assert found["results"][0]["stats"] == pytest.approx(expected["results"][0]["stats"], abs=1e-3)
    if not name.endswith(".onnx"):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
        assert found["accuracy"] == expected["accuracy"]


def _move_onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "detector.onnx")
    for entry in model.metadata_props:
        entry.value = entry.value.replace(WAS_AT, str(folder))
    onnx.save(model, folder / "detector.onnx")


def test_prediction_export_and_report(run: Path, tmp_path: Path) -> None:
    checkpoint, boxes = str(run / "last.pt"), tmp_path / "boxes.json"
    arguments = [str(run.parent / "data"), "--checkpoint", checkpoint, "--conf", "0.001"]
    arguments += ["--gpu", "cpu", "--json", str(boxes), "--output", str(tmp_path / "pictures")]
    assert predict.main(arguments) == 0
    assert boxes.stat().st_size > 0
    output = tmp_path / "detector.onnx"
    assert export.main([checkpoint, "--format", "onnx", "--output", str(output)]) == 0
    assert report.main([str(run)]) == 0


def test_the_cached_annotations_do_no_harm(tmp_path: Path) -> None:
    """An old entry, put where the new one lies, lacks what is kept today: it is made anew."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(OLD / "data", data)
    _open(data, cache)
    (entry,) = cache.glob("*.npz")
    with (
        np.load(entry, allow_pickle=False) as new,
        np.load(next((OLD / "cache").glob("*.npz")), allow_pickle=False) as old,
    ):
        assert set(old.files) == set(new.files)
        arrays = {name: old[name] for name in old.files}
        arrays["image_stamps"] = new["image_stamps"]
        meta = json.loads(arrays["meta"].tobytes())
        meta["key"] = json.loads(new["meta"].tobytes())["key"]
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(entry, **arrays)
    os.utime(entry, (1, 1))
    dataset = _open(data, cache)
    assert entry.stat().st_mtime != 1
    boxes = np.concatenate([dataset.load(index).boxes_xyxy_px for index in range(len(dataset))])
    fresh = _open(data, None)
    expected = np.concatenate([fresh.load(index).boxes_xyxy_px for index in range(len(fresh))])
    np.testing.assert_array_equal(boxes, expected)


def _open(data: Path, cache: Path | None) -> YoloTextDataset:
    names = ("disc", "square")
    return YoloTextDataset(images=data, labels=data, names=None, class_names=names, cache=cache)


def test_the_cached_pixels_are_the_same(run: Path, monkeypatch) -> None:
    """A training fills a cache with files of the same names and bytes."""
    cache = run.parent / "new_cache"
    monkeypatch.setattr("yolo.factory.data.CACHE", cache)
    arguments = ["--resume", str(run), "--gpu", "cpu", "training.steps=8"]
    assert training.main(arguments) == 0
    old = {path.name: path.read_bytes() for path in (OLD / "cache").glob("*.pixels")}
    assert old
    assert {path.name: path.read_bytes() for path in cache.rglob("*.pixels")} == old
