"""Every test file is run by one of the make targets."""

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MARKERS = ("slow", "browser", "gpu")


class _CollectedFiles:
    """A plugin that notes which test files pytest would import, and imports none."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector):
        self.paths.add(module_path)
        return _EmptyModule.from_parent(parent, path=module_path)


class _EmptyModule(pytest.File):
    def collect(self) -> list[pytest.Item]:
        return []


def collected_files(root: Path) -> set[Path]:
    files = _CollectedFiles()
    arguments = ["--collect-only", "-qq", "-c", str(ROOT / "pyproject.toml")]
    pytest.main([*arguments, f"--rootdir={root}", str(root / "tests")], plugins=[files])
    return {path for path in files.paths if path.is_relative_to(root / "tests")}


def test_files(root: Path) -> set[Path]:
    return set((root / "tests").rglob("test_*.py"))


test_files.__test__ = False


def test_no_test_file_is_left_out() -> None:
    assert test_files(ROOT)
    assert test_files(ROOT) - collected_files(ROOT) == set()


@pytest.mark.parametrize("folder", ["build", "dist", "factory"])
def test_a_folder_of_any_name_is_collected(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "tests" / folder / "test_something.py"
    path.parent.mkdir(parents=True)
    path.write_text("def test_it() -> None: ...\n")
    assert collected_files(tmp_path) == {path}


def test_a_folder_that_is_skipped_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tests" / ".hidden" / "test_something.py"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert test_files(tmp_path) - collected_files(tmp_path) == {path}


def test_the_make_targets_cover_every_marker() -> None:
    expressions = re.findall(
        r'-m pytest .*?-m "?([^"\n]+?)"? tests', (ROOT / "Makefile").read_text()
    )
    assert len(expressions) == 4
    for marked in itertools.product([False, True], repeat=len(MARKERS)):
        markers = dict(zip(MARKERS, marked, strict=True))
        chosen = [eval(each, {}, markers) for each in expressions]  # noqa: S307 - our own Makefile
        assert chosen.count(True) == 1, markers
