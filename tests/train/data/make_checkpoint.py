"""Writes ``checkpoint_version_<n>.pt`` with the code whose version is ``n``.

    python tests/train/data/make_checkpoint.py FOLDER

Run it in a checkout of that version, before the version is raised; the file is then kept beside
this script for ever. Version 1 was written before checkpoints knew ``schedule`` and
``skipped_in_a_row``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path.cwd() / "tests/train")]

from test_trainer import trainer  # noqa: E402

from yolo.train.checkpoint import VERSION  # noqa: E402

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trainer(Path(folder) / "run").fit()
        written = Path(folder) / "run" / "last.pt"
        target = Path(sys.argv[1]) / f"checkpoint_version_{VERSION}.pt"
        target.write_bytes(written.read_bytes())
