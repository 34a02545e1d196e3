"""Limits on the size of files, functions and rooms; ``python -m tests.test_sizes`` prints them."""

import ast
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES_OF_YOLO = 24_000
MOST_LINES_OF_THE_CORE = 17_800
MOST_FILES = 170
MOST_FILES_BESIDE_THE_ROOMS = 6
MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 45


def line_counts(package: Path) -> dict[Path, int]:
    """Lines of each file, docstrings and blank lines included, by its path in the package."""
    files = sorted(package.rglob("*.py"))
    return {path.relative_to(package): path.read_text("utf-8").count("\n") for path in files}


def room_of(path: Path) -> str:
    """data/formats/voc.py -> data, apps/demo/page.py -> apps/demo, boxes.py -> "" ."""
    parts = path.parts[:-1]
    return "/".join(parts[:2]) if parts[:1] == ("apps",) else "".join(parts[:1])


def function_lengths(package: Path) -> Iterator[tuple[str, int]]:
    """Name and lines, docstring included, of every function and method."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                start = node.body[0].lineno
                if ast.get_docstring(node) is not None:
                    start = node.body[0].end_lineno + 1  # what is counted is what is computed
                yield f"{path.relative_to(package)}:{node.name}", node.end_lineno - start + 1


def main() -> None:
    """Print lines and files of every room, and the lengths of functions."""
    rooms: dict[str, list[int]] = defaultdict(list)
    for path, lines in line_counts(ROOT / "yolo").items():
        rooms[room_of(path)].append(lines)
    for room, counts in sorted(rooms.items()):
        print(f"{room or '(beside the rooms)':20} {len(counts):4} files {sum(counts):7,} lines")
    core = sum(sum(counts) for room, counts in rooms.items() if not room.startswith("apps"))
    whole = sum(map(sum, rooms.values()))
    print(f"yolo {whole:,} lines in {sum(map(len, rooms.values()))} files, core {core:,}")
    tests = line_counts(ROOT / "tests")
    print(f"tests {sum(tests.values()):,} lines in {len(tests)} files")
    lengths = sorted(length for _, length in function_lengths(ROOT / "yolo"))
    p90 = lengths[len(lengths) * 9 // 10]
    print(f"functions: median {statistics.median(lengths):g}, p90 {p90}, longest {lengths[-1]}")


def test_lines_and_files() -> None:
    counts = line_counts(ROOT / "yolo")
    assert sum(counts.values()) <= MOST_LINES_OF_YOLO
    core = sum(lines for path, lines in counts.items() if path.parts[0] != "apps")
    assert core <= MOST_LINES_OF_THE_CORE
    assert len(counts) <= MOST_FILES
    assert len([path for path in counts if not room_of(path)]) <= MOST_FILES_BESIDE_THE_ROOMS
    assert [str(path) for path, lines in counts.items() if lines > MOST_LINES_OF_A_FILE] == []


def test_functions() -> None:
    lengths = dict(function_lengths(ROOT / "yolo"))
    assert [name for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION] == []
    assert statistics.median(lengths.values()) <= 8
    assert sorted(lengths.values())[len(lengths) * 9 // 10] <= 20


if __name__ == "__main__":
    main()
