"""CONTRIBUTING: its encoder, added to a copy of the repository, and the places that it names."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from yolo.config import load_config

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("yolo", "configs", "scripts", "tests", "export.py", "pyproject.toml", "CONTRIBUTING.md")
STEPS = (
    "yolo/models/encoders/densenet121.py",
    "yolo/models/encoders/__init__.py",
    "yolo/models/torch_weights.py",
    "yolo/config/schema/encoders.py",
    "configs/yolov3/densenet121_coco.yaml",
    "tests/models/test_densenet121.py",
    "configs/try.yaml",
)
"""What each code block of the section is or changes, in order."""

USE = """
import export, numpy as np
from pathlib import Path
from yolo.apps.predict.predictor import Predictor
from yolo.config import load_config
from yolo.factory.detector import build_detector
from yolo.train.checkpoint import save_checkpoint

overrides = ["model.encoder.weights=null", "model.neck.width=scaled", "data.image_size=64"]
config = load_config(Path("configs/yolov3/densenet121_coco.yaml"), overrides).config
detector = build_detector(config, ["cat", "dog"])
for name, parameter in detector.head.named_parameters():
    if name.endswith("output.bias"):
        parameter.data.zero_()
content = {
    "config": config.model_dump(mode="json"), "class_names": ["cat", "dog"], "category_ids": [1, 2],
    "model": detector.state_dict(), "ema": None, "progress": {"step": 1},
    "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
}
save_checkpoint(Path("best.pt"), content)
image = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
(prediction,) = Predictor.from_checkpoint("best.pt", device="cpu", conf=0.1)([image])
print(len(prediction.detections), "predicted")
assert export.main(["best.pt", "--format", "torchscript"]) == 0
"""


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return re.search(rf"## {re.escape(title)}\n(.*?)\n## ", text, re.DOTALL)[1]


def blocks() -> list[str]:
    """The code of the section, without its indentation."""
    text = section("Add an encoder")
    found = re.findall(r"^ *```\w+\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for code in found]


def apply_diff(path: Path, diff: str) -> None:
    """Lines of context are searched for downwards; what stands after one is taken out or put in."""
    lines, at = path.read_text("utf-8").splitlines(), 0
    for change in diff.splitlines()[1:]:
        kind, line = change[0], change[1:]
        if kind == "+":
            lines.insert(at, line)
            at += 1
        else:
            at = lines.index(line, at) + 1
            if kind == "-":
                at -= 1
                del lines[at]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt")
            )
        else:
            shutil.copy(source, folder / name)
    for path, code in zip(STEPS, blocks(), strict=True):
        if code.startswith("--- "):
            assert code.splitlines()[0] == f"--- {path}"
            apply_diff(folder / path, code)
        else:
            assert f"`{path}`" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(code, "utf-8")
    return folder


def test_where_is_names_files_that_exist_and_keys_of_the_schema():
    rows = re.findall(r"^\| ([^|]+) \| ([^|]*`[^|]*) \|$", section("Where is ...?"), re.MULTILINE)
    assert len(rows) >= 14
    config = load_config(ROOT / "configs" / "quickstart.yaml").config.model_dump()
    for what, where in rows:
        files = re.findall(r"`([\w/]+\.py)`", where)
        assert files, what
        for file in files:
            assert (ROOT / "yolo" / file).is_file(), (
                f"CONTRIBUTING, {what}: yolo/{file} is not there"
            )
        for key in re.findall(r"`([\w.]+)`", what):
            value = config
            for name in key.split("."):
                assert name in value, f"CONTRIBUTING: the schema has no {key}"
                value = value[name]


def test_the_config_to_try_is_valid(repository):
    run(repository, "-c", "from yolo import load_config; load_config('configs/try.yaml')")


def test_the_new_encoder_is_built_predicts_and_is_exported(repository):
    assert "predicted" in run(repository, "-c", USE)
    assert (repository / "best.torchscript").is_file()


@pytest.mark.slow
def test_the_new_encoder_passes_the_tests_of_all_encoders(repository):
    run(repository, "scripts/make_schema.py")
    tests = ["tests/models", "tests/train/test_freezing.py", "tests/config", "tests/golden"]
    run(repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)
