"""README and docs/: they name what exists, and their commands and examples work."""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yolo.config import REPOSITORY_ROOT as ROOT
from yolo.config import ConfigError, load_config
from yolo.config.command_line import Parser

sys.path.insert(0, str(ROOT / "docs"))
from command_reference import commands, help_of
from config_reference import config_reference

QUICKSTART = ROOT / "configs/quickstart.yaml"
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "weights/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
MOST_LINES_OF_THE_README = 130
FOR_THE_READER = {
    "configs/mine.yaml",
    "configs/try.yaml",
    "configs/yolov3/densenet121_coco.yaml",
    "tests/models/test_densenet121.py",
    "yolo/models/encoders/densenet121.py",
}
"""Files that the reader is to write."""

PLACEHOLDER = re.compile(r"[A-Z]+|.*\.\.\.|value")
"""What stands for a value in `key=value`."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# Paths and links


def missing_paths(text: str) -> list[str]:
    """Files and folders of the repository that a text names and that are not there."""
    text = re.sub(r"https?://\S+", "", text)
    folders = "benchmarks|configs|docs|scripts|tests|yolo"
    named = re.findall(rf"(?<![\w/.-])(?:\.\./)*((?:{folders})/[\w./{{}},-]*[\w}}])", text)
    parts = "base|pretrain|recipes|yolov1|yolov2|yolov3"
    of_configs = re.findall(rf"(?<![\w/])((?:{parts})/[\w{{}},]+\.yaml)", text)
    named += [f"configs/{path}" for path in of_configs]
    paths = itertools.chain.from_iterable(map(expand_braces, named))
    return [p for p in paths if p not in FOR_THE_READER and not (ROOT / p).exists()]


def expand_braces(path: str) -> Iterator[str]:
    """a_{b,c}.yaml -> a_b.yaml, a_c.yaml."""
    found = re.search(r"\{([^{}]*)\}", path)
    if found is None:
        yield path
        return
    for word in found[1].split(","):
        yield from expand_braces(path[: found.start()] + word + path[found.end() :])


def broken_links(page: Path) -> Iterator[str]:
    text = without_code(page.read_text("utf-8"))
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def anchors(page: Path) -> set[str]:
    """The names of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).lower().replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


@each_page
def test_every_path_exists(page):
    assert missing_paths(page.read_text("utf-8")) == []


@each_page
def test_every_link_leads_somewhere(page):
    assert list(broken_links(page)) == []


def test_what_is_not_there_is_noticed(tmp_path):
    text = "`configs/yolov3/{bccd,bcd}_x.yaml` yolov3/bccd.yaml scripts/predikt.py tests/faults"
    names = ["configs/yolov3/bccd_x.yaml", "configs/yolov3/bcd_x.yaml", "scripts/predikt.py"]
    assert missing_paths(text) == names
    page = tmp_path / "page.md"
    page.write_text("# One: two\n[a](page.md#one-two) [b](#three) [c](gone.md) [d](https://x.y)")
    assert list(broken_links(page)) == ["#three", "gone.md"]


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE))
    assert {"demo", "docs", "faults", "test"} <= named <= targets


# Commands


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """The path and the arguments of each command in code blocks and code spans."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    shell = "".join(code for language, code in blocks if not language)
    lines = shell.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(python [^`]+)`", without_code(text))
    for line in lines:
        words = shlex.split(optional_too(line), comments=True)
        at = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
        if at and ("torchrun" in words or words[at - 1] == "python"):
            rest = (word.removesuffix("...") for word in words[at + 1 :] if word != "&")
            yield words[at], [word for word in rest if word]


def optional_too(line: str) -> str:
    """[--split test] -> --split test."""
    return re.sub(r"\[(-[^\]]*|key=[^\]]*|[A-Z]+)\]", r"\1", line)


EVERY_COMMAND = {
    shlex.join([path, *argv]): (path, argv)
    for page in PAGES
    for path, argv in commands_of(page.read_text("utf-8"))
}


class Parsed(Exception):
    """Ends a command once its line has proved right."""


def parse(path: str, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | Any:
    """The arguments, by the command's own parser; SystemExit with 2 where it refuses them."""
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    for name in ("parse", "parse_arguments", "parse_train_arguments"):
        if hasattr(module, name):
            return getattr(module, name)(argv)
    original = Parser.parse

    def parse_only(self: Parser, argv: list[str]) -> argparse.Namespace:
        raise Parsed(original(self, argv))

    monkeypatch.setattr(Parser, "parse", parse_only)
    with pytest.raises(Parsed) as parsed:
        module.main(argv)
    return parsed.value.args[0]


@functools.cache
def known_keys() -> set[str]:
    """Dotted; what data.val and data.test may hold is what data.train may."""
    keys = re.findall(r"^\| `([\w.]+)` \|", config_reference(), re.MULTILINE)
    of_others = [key.replace("train", split, 1) for key in keys for split in ("val", "test")]
    return {*keys, *(key for key in of_others if key.startswith(("data.val.", "data.test.")))}


def check_settings(arguments: Any) -> None:
    """`key=value` by the schema: with its value where neither that nor the config is made up."""
    settings = [one for one in getattr(arguments, "overrides", ()) if one != "key=value"]
    config = getattr(arguments, "config", None)
    made_up = any(PLACEHOLDER.fullmatch(one.partition("=")[2]) for one in settings)
    if config is not None and Path(config).is_file() and not made_up and "logs" not in config.parts:
        load_config(config, settings)
    for setting in settings:
        assert setting.partition("=")[0] in known_keys(), setting


@pytest.fixture
def in_a_repository(tmp_path, monkeypatch):
    """A working directory with all configs and a run called <name>."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for name in ("config.yaml", "last.pt", "best.pt"):
        (tmp_path / "logs/<name>").mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs/<name>" / name).write_text("")
    monkeypatch.chdir(tmp_path)


def test_there_are_commands():
    assert len(EVERY_COMMAND) > 60
    assert set(commands()) <= {path for path, _ in EVERY_COMMAND.values()}


@pytest.mark.parametrize(("path", "argv"), EVERY_COMMAND.values(), ids=EVERY_COMMAND)
def test_every_command_parses(path, argv, in_a_repository, monkeypatch, capsys):
    if path == "scripts/make_schema.py":  # imports Albumentations, and has one option
        assert set(argv) <= {"--check"}
        return
    if argv == ["--help"]:
        return  # test_every_command_has_a_help
    try:
        check_settings(parse(path, argv, monkeypatch))
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


WRONG = [
    ("scripts/predict.py", "photo.jpg --confidence 0.3"),
    ("scripts/report.py", "logs/<name> --out page.html"),
    ("scripts/download_coco.py", "--spilts val"),
    ("validation.py", "--conf 2"),
    ("export.py", "--format onnx --thresh 0.1"),
    ("main.py", "--config configs/quickstart.yaml --gpus 0"),
]


@pytest.mark.parametrize(("path", "line"), WRONG)
def test_a_wrong_option_is_noticed(path, line, in_a_repository, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        parse(path, line.split(), monkeypatch)
    assert stopped.value.code == 2


def test_a_wrong_setting_is_noticed(in_a_repository, monkeypatch):
    for setting, error in (
        ("training.batchsize=3", ConfigError),
        ("training.steps=many", ConfigError),
        ("data.trane=DIR", AssertionError),
    ):
        arguments = parse("main.py", ["--config", "configs/quickstart.yaml", setting], monkeypatch)
        with pytest.raises(error):
            check_settings(arguments)


def test_optional_parts_of_a_command_are_read():
    text = "```\nnohup python main.py [--gpu 0] \\\n  a.b=[1,2] [X] S... &  # don't\n```"
    assert list(commands_of(text)) == [("main.py", ["--gpu", "0", "a.b=[1,2]", "X", "S"])]


# What is generated


def test_the_config_reference_has_every_key():
    text, schema = config_reference(), json.loads((ROOT / "configs/schema.json").read_text("utf-8"))
    rows = [[*re.split(r" (?<!\\)\| ", row)] for row in re.findall(r"^\| (`.*) \|$", text, re.M)]
    found = {(row[0].strip("`").rpartition(".")[2], row[-1].replace("\\|", "|")) for row in rows}
    sections = [*schema["anyOf"], *(d for n, d in schema["$defs"].items() if n != "Transform")]
    wanted = [item for section in sections for item in section["properties"].items()]
    assert len(wanted) > 180
    for name, value in wanted:
        assert (name, value["description"]) in found, name
    for transform in schema["$defs"]["Transform"]["anyOf"]:
        name = transform["properties"]["type"]["const"]
        section = text.split(f"\n### {name}\n")[1].split("\n###")[0]
        for argument in transform["properties"]:
            assert f"\n| `{argument}` |" in section, (name, argument)


def test_the_config_reference_has_defaults_and_what_is_allowed():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", config_reference(), re.MULTILINE))
    steps = "**required** | a whole number, at least 1 | Optimizer steps."
    assert rows["training.steps"] == steps
    assert rows["evaluation.nms"].startswith('`"greedy"` | `greedy`, `soft` | soft: ')
    assert rows["training.ema"].startswith("`null` | null, or a section, below | ")
    assert rows["data.val"].startswith(" | a section, as `data.train` | ")
    assert set(load_config(QUICKSTART).origins) <= known_keys()


@pytest.mark.parametrize("path", commands())
def test_every_command_has_a_help(path):
    text = help_of(path)
    assert text.startswith(f"usage: {Path(path).name} ") and str(ROOT) not in text
    assert f"\npython {path}" in (ROOT / "docs/commands.md").read_text("utf-8")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_LINES_OF_THE_README


# Examples


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CONTRIBUTING.md"], ids=name_of)
def test_every_yaml_is_valid(page, tmp_path):
    """A part of a config is laid over the quickstart."""
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.M):
        if "\nextends:" not in f"\n{text}":
            text = f"extends: quickstart.yaml\n{text}"
        file = tmp_path / "mine.yaml"
        file.write_text(text.replace("extends: ", f"extends: {ROOT}/configs/"), "utf-8")
        load_config(file)


def onnx_example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    return code


def run_onnx_example(folder: Path) -> list[tuple[str, float, list[float]]]:
    """Names, scores and boxes that it prints; it needs neither PyTorch nor this project."""
    program = f"{onnx_example()}\nimport sys\nassert not {{'torch', 'yolo'}} & set(sys.modules)"
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(.+) ([\d.e-]+) \[(.*)\]$", done.stdout, re.MULTILINE)
    assert len(lines) == len(done.stdout.splitlines())
    return [(name, float(score), [float(x) for x in box.split()]) for name, score, box in lines]


def test_the_onnx_example_finds_what_prediction_finds(tmp_path):
    """In a photo of the network's size, which nothing has to resample."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    # torch takes seconds to import, and nothing else here needs it
    from tests.checkpoints import CONF, write_checkpoint
    from yolo.apps.export.exporting import export_model
    from yolo.apps.predict import Predictor

    pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    checkpoint = write_checkpoint(tmp_path / "best.pt", neck="yolov3_tiny")
    file = export_model(checkpoint, ".onnx", nms=True)
    (expected,) = Predictor.from_checkpoint(file, conf=CONF)(tmp_path / "photo.png")
    found = run_onnx_example(tmp_path)
    assert [name for name, *_ in found] == expected.names and len(found) > 2
    scores, boxes = ([one[i] for one in found] for i in (1, 2))
    np.testing.assert_allclose(scores, expected.detections.scores, atol=1e-4)
    clipped = np.clip(boxes, 0, [96, 60, 96, 60])
    np.testing.assert_allclose(clipped, expected.detections.boxes_xyxy_px, atol=0.02)


def test_the_onnx_example_goes_back_to_the_photo_by_hand(tmp_path):
    """200 x 100 px in a square of 64: scaled by 0.32, and moved down by 16."""
    pytest.importorskip("onnxruntime")
    from tests.exported_files import write_onnx

    Image.new("RGB", (200, 100)).save(tmp_path / "photo.png")
    write_onnx(tmp_path / "best.onnx", nms=True)
    box = [0.5 / 0.32, (0.5 - 16) / 0.32] * 2
    assert run_onnx_example(tmp_path) == [("cat", 0.5, pytest.approx(box))] * 2


def test_the_tables_of_inputs_and_outputs():
    """Against what every exported file is checked with when it is opened."""
    from tests.exported_files import METADATA

    text = (ROOT / "docs/export.md").read_text("utf-8").split("## Inputs and outputs")[1]
    tables = [
        re.findall(r"^\| `(\w+)` \| (\w+) \| \((.*?),?\) \|", part, re.MULTILINE)
        for part in text.split("The outputs of")
    ]
    wanted = [METADATA.inputs(), replace(METADATA, nms=True).outputs(), METADATA.outputs()]
    types = {"uint8": "uint8", "float32": "float", "int64": "int64"}
    for table, arrays in zip(tables, wanted, strict=True):
        found = [(name, types[kind], len(shape.split(","))) for name, kind, shape in table]
        assert found == [(name, kind, len(shape)) for name, (kind, shape) in arrays.items()]
    for name in METADATA.to_metadata():
        if name != "yolo.version":
            assert f"`{name.removeprefix('yolo.')}`" in text, name


def test_what_may_change_on_resuming_is_told():
    from yolo.factory.resume import CHANGEABLE

    text = (ROOT / "docs/resuming.md").read_text("utf-8")
    listed = text.split("What may change on resuming:")[1].split("and where")[0]
    assert re.findall(r"`([\w.]+)`", listed) == list(CHANGEABLE)


# The site


def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    from_elsewhere = re.compile(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//")
    for page in pages:
        text = page.read_text("utf-8")
        assert not from_elsewhere.search(text), page
        assert "<!-- generated:" not in text, page
    assert "training.batch_size" in (tmp_path / "config.html").read_text("utf-8")
    assert not list(tmp_path.glob("*.py"))
