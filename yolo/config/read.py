"""YAML text -> plain values, as YAML 1.2 reads them, refusing what a config cannot mean."""

import os
import re
from pathlib import Path

import yaml

from yolo.config.errors import ConfigError

exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir
"""Unlike those of Path they raise nothing for a name that no file can have, such as a long one."""

LARGEST_FILE_BYTES = 1_000_000
LARGEST_NUMBER_OF_VALUES = 100_000
"""After aliases are expanded: ten nested lines of aliases can stand for billions of values."""

_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}


class CoreLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` with the scalars of YAML 1.2's core schema.

    SafeLoader follows YAML 1.1, where `1e-4` is text, `no` is false, `1:30` is 90 and `010` is 8.
    Keys are always text.
    """

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012
        None: [(_TAG + name, re.compile(f"^(?:{text})$")) for name, text in _SCALARS.items()]
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, object]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _construct_int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    number = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    str(number)  # no message could show what Python refuses to write in decimal
    return number


CoreLoader.add_constructor(_TAG + "int", _construct_int)


def read_yaml_file(path: Path, label: str) -> object:
    """Reads a YAML file, called `label` in messages, into plain Python values."""
    try:
        if is_folder(path):
            raise ConfigError([f"{label}: is a folder, not a YAML file"])
        # opened, a pipe would wait and a device send without end
        if exists(path) and not is_file(path):
            raise ConfigError([f"{label}: is a pipe, a socket or a device, not a YAML file"])
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError([f"{label}: is too large for a config (over 1 MB)"])
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError([f"{label}: no such file"]) from error
    except OSError as error:
        raise ConfigError([f"{label}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{label}: is not text (UTF-8)"]) from error
    except ValueError as error:
        raise ConfigError([f"{label}: is no file's name: {error}"]) from error
    return read_yaml(text, label)


def read_yaml(text: str, label: str) -> object:
    """Reads YAML text, as `read_yaml_file` a file."""
    try:
        loader = CoreLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node, label)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{_place(mark)}: " if mark else ""
        reason = error.problem or error.context
        lines = text.split("\n")[: mark.line + 1] if mark else []
        if tabbed := [
            n for n, line in enumerate(lines, 1) if re.match(r" *\t|[^#'\"]*: *\t", line)
        ]:
            place = f"line {tabbed[-1]}: "
            reason = "it has a tab, where YAML takes blanks alone: indent with blanks"
        raise ConfigError([f"{label}: {place}is not YAML: {reason}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{label}: is nested too deeply"]) from error
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise ConfigError([f"{label}: is not YAML: {str(error).splitlines()[0]}"]) from error


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _check_nodes(root: yaml.Node, label: str) -> None:
    """Raises ConfigError for tags, repeated or compound keys, and aliases out of hand."""
    problems: list[str] = []
    counts: dict[int, int] = {}  # of the values under each node; 0 while they are being counted

    def count_values(node: yaml.Node) -> int:
        """Counts each alias as often as it is used."""
        if counts.get(id(node)) == 0:
            raise ConfigError([f"{label}: {_place(node.start_mark)}: holds an alias of itself"])
        if id(node) not in counts:
            counts[id(node)] = 0
            problems.extend(f"{label}: {problem}" for problem in _problems(node))
            inner = node.value if isinstance(node, yaml.CollectionNode) else []
            values = [item[1] if isinstance(item, tuple) else item for item in inner]
            counts[id(node)] = 1 + sum(map(count_values, values))
        return counts[id(node)]

    if count_values(root) > (most := LARGEST_NUMBER_OF_VALUES):
        problems.append(f"{label}: its aliases stand for more than {most:,} values")
    if problems:
        raise ConfigError(problems)


def _problems(node: yaml.Node) -> list[str]:
    """What a config cannot mean in a node itself."""
    problems = []
    if node.tag not in _TAGS:
        tag = node.tag.replace(_TAG, "!!")
        problems.append(f"{_place(node.start_mark)}: the tag {tag} is not allowed in a config")
    lines: dict[str, int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{_place(key.start_mark)}: a key must be text")
        elif key.value in lines:
            problems.append(
                f"{key.value}: stands twice in one mapping, in lines {lines[key.value]} and "
                f"{line}: keep one"
            )
        else:
            lines[key.value] = line
    return problems
