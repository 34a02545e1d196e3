"""A process that has imported everything once and forks trials on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.faults.trial import Result

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Runs one trial at a time.

    Args:
        folder: for the trials, and for what they share.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults", "--serve", "--folder", str(folder)],
            cwd=REPOSITORY_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, seed: int) -> Result:
        """Run a trial and wait for its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{name} {seed}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks the trials has ended"
        return Result(**json.loads(answer))

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
