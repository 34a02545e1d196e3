"""Show how the configs of two runs differ: ``python scripts/diff_runs.py logs/A logs/B``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolo.config import ConfigError
from yolo.config.command_line import Parser
from yolo.config.save import Setting, read_settings, yaml_text
from yolo.errors import exit_code

EXAMPLES = """examples:
  python scripts/diff_runs.py logs/first_try logs/second_try
  python scripts/diff_runs.py logs/first_try configs/quickstart.yaml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print every setting that differs, its value and the place it came from on either side.

    Returns:
        0, whether they differ or not; 2 where a config cannot be read.
    """
    parser = Parser(description="Show how the configs of two runs differ.", epilog=EXAMPLES)
    for name in ("a", "b"):
        parser.add_argument(
            name, type=Path, metavar=name.upper(), help="a run's folder, or a YAML file"
        )
    arguments = parser.parse(argv)
    try:
        a, b = read_settings(arguments.a), read_settings(arguments.b)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    names = str(arguments.a), str(arguments.b)
    return exit_code(lambda: print(table(a, b, names=names)))


def table(a: Mapping[str, Setting], b: Mapping[str, Setting], *, names: tuple[str, str]) -> str:
    """The differing settings, both sides beneath each other: lists are too long for columns."""
    keys = [key for key in dict.fromkeys([*a, *b]) if _value(a, key) != _value(b, key)]
    if not keys:
        return f"no difference in {len(a)} settings"
    lines = [f"A  {names[0]}", f"B  {names[1]}"]
    for key in keys:
        shown = _shown(a, key), _shown(b, key)
        width = max(len(value) for value, _ in shown)
        lines += ["", key]
        lines += [
            f"  {side}  {value:<{width}}  {origin}".rstrip()
            for side, (value, origin) in zip("AB", shown, strict=True)
        ]
    return "\n".join([*lines, "", f"{len(keys)} of {len({*a, *b})} settings differ"])


def _value(settings: Mapping[str, Setting], key: str) -> object:
    return settings[key].value if key in settings else _MISSING


_MISSING = object()


def _shown(settings: Mapping[str, Setting], key: str) -> tuple[str, str]:
    """A setting's value as YAML has it, and its origin."""
    if key not in settings:
        return "-", "no such setting"
    return yaml_text(settings[key].value), settings[key].origin


if __name__ == "__main__":
    sys.exit(main())
