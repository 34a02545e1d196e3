"""Hooks of mkdocs: pages from elsewhere in the repository, and those that are generated.

``mkdocs.yml`` names this file; ``make docs`` runs it.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from command_reference import command_reference
from config_reference import config_reference
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("benchmarks/*.md", "weights/*.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that keep their place in the repository, and have the same one in the site."""

API = """
## yolo.Predictor

::: yolo.apps.predict.predictor.Predictor
    options: {members: [from_checkpoint, __call__]}

::: yolo.apps.predict.prediction.Prediction
    options: {members: [draw, save]}

::: yolo.records.Detections

## yolo.load_config

::: yolo.config.load.load_config

::: yolo.config.load.Resolved
    options: {members: false}
"""
"""For mkdocstrings, which reads the docstrings from the source."""

GENERATED: dict[str, Callable[[], str]] = {
    "api": lambda: API,
    "config": config_reference,
    "commands": command_reference,
}
"""What takes the place of ``<!-- generated: NAME -->``."""

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
"""The path of a link in Markdown, without its anchor."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and the files that any page links to."""
    pages = {path for pattern in OUTSIDE for path in ROOT.glob(pattern)}
    texts = [*pages, *(Path(file.abs_src_path) for file in files.documentation_pages())]
    for path in sorted(pages.union(*map(linked_files, texts))):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def linked_files(page: Path) -> Iterator[Path]:
    """The files beside docs/ that a page links to."""
    for link in LINK.findall(page.read_text("utf-8")):
        path = Path(os.path.normpath(page.parent / link))
        is_own = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs")
        if is_own and path.is_file() and path != ROOT / "README.md":
            yield path


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put in what is generated, and lead links to where the site has their targets."""
    for name, text in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        markdown = markdown.replace(mark, text()) if mark in markdown else markdown
    return LINK.sub(lambda link: site_link(link[1], page.file.src_uri), markdown)


def site_link(link: str, page: str) -> str:
    """A link of a page, which is relative to its file in the repository, in the site."""
    is_outside = (ROOT / page).is_file()
    in_repository = page if is_outside else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link))
    if not (ROOT / target).exists():
        return link
    target = "index.md" if target == "README.md" else target.removeprefix("docs/")
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
