"""On a system that lacks what only Unix has, as Windows does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolo.config.layers import REPOSITORY_ROOT

PROGRAM = """
import os, pkgutil, signal, sys, types
import albumentations, matplotlib.pyplot, tensorboard, torch.utils.tensorboard, torchvision
import torch.distributed.elastic.multiprocessing  # what is not ours is made for each system

for module in ("fcntl", "resource", "termios", "pwd"):
    sys.modules[module] = None
msvcrt = sys.modules["msvcrt"] = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.locking = 3, lambda *arguments: None
for name in ("fork", "register_at_fork", "sched_getaffinity", "pread", "pwrite"):
    delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGXCPU", "SIGPIPE", "SIGALRM", "SIGBUS"):
    delattr(signal, name)
del signal.setitimer
system, sys.platform = sys.platform, "win32"
import yolo
for module in pkgutil.walk_packages(yolo.__path__, "yolo."):
    if not module.name.startswith(("yolo.apps.demo.", "yolo.apps.explain")):  # Gradio, Grad-CAM
        __import__(module.name)
from yolo.data.workers import START_METHOD
assert START_METHOD == "spawn"
sys.platform = system  # PyTorch asks for it at any time
import yolo.train.run_folder
yolo.train.run_folder.fcntl = types.SimpleNamespace(LOCK_EX=2, LOCK_NB=4, flock=lambda *_: None)
import main
from tests.train.toys import quickstart
from pathlib import Path
if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), sys.argv[2]
    changes = {"data": {"workers": workers}, "training": {"steps": 2}}
    sys.exit(main.main(["--name", "run", *quickstart(folder, **changes)]))
"""


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_training_without_what_only_unix_has(workers: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    ended = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "best.pt").is_file()
