"""A config file that is whole, and ways to write and misuse others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from yolo.config import REPOSITORY_ROOT, ConfigError, load_config

CONFIGS = REPOSITORY_ROOT / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
FILES = sorted(CONFIGS.rglob("*.yaml"))
EXPERIMENTS = [path for path in FILES if not {"base", "recipes"} & {*path.parts}]

Write = Callable[..., Path]
Problems = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a YAML file that extends the quickstart, or with `whole=True` nothing."""

    def write_file(text: str, name: str = "test.yaml", whole: bool = False) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if whole else f"extends: {QUICKSTART}\n{text}", encoding="utf-8")
        return file

    return write_file


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """The lines of the ConfigError of a file, with the test's folder cut out."""

    def collect(file: Path, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_config(file, overrides)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return collect
