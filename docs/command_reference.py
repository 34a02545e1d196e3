"""Every command's help as its own parser prints it; ``hooks.py`` puts it into a page.

Imports no torch, for the commands answer before they do.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_HELP = "make_schema"
"""For those who change the schema; its imports take seconds."""


def command_reference() -> str:
    """The ``--help`` of every command, as its own parser prints it."""
    return "\n\n".join(f"## {path}\n\n```text\n{help_of(path)}\n```" for path in commands())


def commands() -> list[str]:
    """Every command by its path in the repository."""
    names = (path.stem for path in sorted((ROOT / "scripts").glob("*.py")))
    scripts = [f"scripts/{name}.py" for name in names if name != WITHOUT_HELP]
    return ["main.py", "validation.py", "export.py", *scripts]


def help_of(path: str) -> str:
    """What a command prints of itself, 100 columns wide."""
    with (
        mock.patch.object(sys, "path", [str(ROOT), *sys.path]),
        mock.patch.object(sys, "argv", [path]),
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.suppress(SystemExit),
    ):
        importlib.import_module(path.removesuffix(".py").replace("/", ".")).main(["--help"])
    return printed.getvalue().rstrip()
