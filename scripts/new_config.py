"""Write a config for a folder of your own images: ``python scripts/new_config.py FOLDER``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.apps.convert.find_data import Sections, find_data
from yolo.config import REPOSITORY_ROOT, ConfigError, load_config
from yolo.config.command_line import Parser
from yolo.errors import UserError, exit_code, one_line
from yolo.files import write_or_refuse

CONFIGS = REPOSITORY_ROOT / "configs"
BASE = CONFIGS / "base" / "small_data.yaml"

EXAMPLES = """examples:
  python scripts/new_config.py data/cells
  python scripts/new_config.py ~/Downloads/cells --output configs/cells.yaml

It finds YOLO's text files where there is a data.yaml (Roboflow's, Ultralytics'), COCO's jsons, and
Pascal VOC's XML files with the lists train and val in ImageSets/Main.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the folder, open what was found, write the config, say what comes next.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    parser = Parser("Write a config for a folder of your own images.", EXAMPLES)
    parser.add_argument("folder", type=Path, help="the data set: its images and annotations")
    what = "the config to write, which must not exist (configs/<name of the folder>.yaml)"
    parser.add_argument("--output", type=Path, metavar="YAML", help=what)
    arguments = parser.parse(argv)
    folder = arguments.folder.expanduser().resolve()
    if not folder.is_dir():
        parser.error(f"{arguments.folder}: there is no such folder")
    output = arguments.output or CONFIGS / f"{re.sub('[^A-Za-z0-9]+', '_', folder.name)}.yaml"
    parser.check_file(output, "--output ")
    if output.exists():
        parser.error(f"{output}: exists; name another --output, or remove it")
    return exit_code(lambda: write(folder, output.absolute()))


def write(folder: Path, output: Path) -> None:
    """What ``main`` does once the command line has proved right."""
    try:
        sections = find_data(folder)
    except ConfigError as error:  # a data.yaml that is no YAML
        raise UserError(error) from error
    if not sections:
        raise UserError(
            f"{folder}: nothing of a known form was found (a data.yaml with `train` and `val`, "
            "COCO's jsons, Annotations with ImageSets/Main); the README lists what can be read"
        )
    if absent := {"train", "val"} - {*sections}:
        raise UserError(
            f"{folder}: has images for {' and '.join(sections)}, but none for {min(absent)}; a "
            "training needs both: put a part of the images aside"
        )
    overrides = [f"data.{split}={json.dumps(one, default=str)}" for split, one in sections.items()]
    config = load_config(BASE, overrides).config
    from yolo.data.formats.detection import first_names
    from yolo.factory.data import build_dataset  # imports torch

    found = []
    for split in sections:
        data = build_dataset(config, split)
        found.append(f"{split}: {len(data):,} images, {len(data.annotations.labels):,} boxes")
        if split == "train":
            names, epochs = data.class_names, config.training.steps * 16 / len(data)
    found.append(f"{len(names)} classes: {first_names(names, 20)}")
    lines = list(_yaml(sections, found, output, f"{epochs:,.0f}"))
    write_or_refuse("the config", output, "".join(lines).encode(), remedy="name another --output")
    shown = output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output
    print(*found, f"written: {shown}", "", "check it, then train:", sep="\n")
    print(f"  python scripts/preflight.py --config {shown}\n  python main.py --config {shown}")


def _yaml(sections: Sections, found: Sequence[str], output: Path, epochs: str) -> Iterator[str]:
    """The lines of the config; json is YAML, and quotes what needs it."""
    base = os.path.relpath(BASE, output.parent)
    schema = os.path.relpath(CONFIGS / "schema.json", output.parent)
    yield f"# yaml-language-server: $schema={schema}\n"
    yield from (f"# {one_line(line)}\n" for line in found)
    yield f"extends: {json.dumps(base)}\ndata:\n"
    for split, section in sections.items():
        paths = {
            key: os.path.relpath(value, output.parent) if isinstance(value, Path) else value
            for key, value in section.items()
        }
        yield f"  {split}: {json.dumps(paths, ensure_ascii=False)}\n"
    yield f"training:\n  steps: 2400  # of 16 images, {epochs} epochs; many images want more\n"


if __name__ == "__main__":
    sys.exit(main())
