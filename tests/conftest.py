"""Fixtures of every test."""

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for its newest version otherwise
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared by as many processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers whichever tests ran before; torch only where a test uses it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test draw from the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Python's end waits for processes that a test forgot, and `make test` with it."""
    yield
    assert not multiprocessing.active_children()


@pytest.fixture
def usage_error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command with bad usage, which exits with 2; returns what it prints."""

    def run(main: Callable[[list[str]], int], *argv: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*argv])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with coco-mini/, bccd/ and voc-sample/."""
    folder = os.environ.get("YOLO_TEST_DATA")
    if not folder:
        pytest.skip("YOLO_TEST_DATA does not name a folder with coco-mini, bccd and voc-sample")
    path = Path(folder).resolve()
    if not path.is_dir():
        pytest.fail(f"YOLO_TEST_DATA names {path}, which is no folder")
    return path
