"""The folder that a hosted Space runs: the page, the model and the code it needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from yolo.config import REPOSITORY_ROOT
from yolo.errors import UserError
from yolo.models.weights import evaluated_tensors
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

OLDEST_GRADIO = "6.0.0"
"""Named in the front matter where Gradio is not installed."""

_ONLY_FOR_TRAINING = ("optimizer", "scaler", "ema")

_APP = '''"""The demo page: ``pip install -r requirements.txt``, then ``python app.py``.

Written by scripts/demo.py --make-space.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from yolo.apps.demo.show import show
from yolo.errors import UserError


def main() -> None:
    """Serve the page; a host names its address in the environment."""
    try:
        show(
            HERE / "{model}",
            host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
            port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        )
    except UserError as error:
        sys.exit(f"error: {{error}}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
'''

_README = """---
title: Object detection
emoji: 🔎
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: mit
pinned: false
---

# Object detection

Upload a picture, or take one by webcam: the page shows what the model finds and, by EigenCAM, what
it looks at. To run it elsewhere: `pip install -r requirements.txt`, then `python app.py`.

The licence in the front matter is the code's; change it if the model's is another.
"""


def make_space(checkpoint: Path, folder: Path) -> list[Path]:
    """Write ``app.py``, ``requirements.txt``, ``README.md``, ``LICENSE``, the model and ``yolo/``.

    A checkpoint's optimizer state is left out, and of averaged weights only those are kept.

    Args:
        checkpoint: a checkpoint or an exported file.
        folder: empty, new, or a Space that was written before; hidden files (a clone's ``.git``)
            stay.

    Returns:
        What was written.

    Raises:
        UserError: the checkpoint cannot be read, or the folder holds something else or cannot be
            written.
    """
    model = f"model{checkpoint.suffix}"
    _check_folder(folder)
    write_model = _read_model(checkpoint)
    texts = {
        "app.py": _APP.format(model=model),
        "requirements.txt": _requirements(checkpoint),
        "README.md": _README.format(gradio=_gradio_version()),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder / model)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        _copy_code(folder)
    except OSError as error:
        raise UserError(f"{folder}: the Space cannot be written ({error})") from error
    return [folder / name for name in (*texts, "LICENSE", model, "yolo")]


def _check_folder(folder: Path) -> None:
    """Nothing of somebody else's is overwritten or published."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file; name a folder for the Space")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    app = folder / "app.py"
    ours = app.is_file() and "scripts/demo.py --make-space" in app.read_text("utf-8", "replace")
    if names and not ours:
        raise UserError(f"{folder}: holds other files; name a new or an empty folder for the Space")


def _read_model(checkpoint: Path) -> Callable[[Path], object]:
    """What writes the model to a path."""
    if checkpoint.suffix != ".pt":
        if not checkpoint.is_file():
            raise UserError(f"{checkpoint}: there is no such file")
        return partial(shutil.copyfile, checkpoint)
    content = _without_training(load_checkpoint(checkpoint))
    return partial(save_checkpoint, content=content)


def _without_training(content: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if key not in _ONLY_FOR_TRAINING}
    return {**kept, "model": evaluated_tensors(content)}


def _requirements(checkpoint: Path) -> str:
    """The project's own, and those of the page."""
    own = (REPOSITORY_ROOT / "requirements.txt").read_text("utf-8")
    extra = ["gradio", "grad-cam>=1.5.7"]
    if checkpoint.suffix == ".onnx":
        extra.append("onnxruntime")
    return own + "# the page\n" + "".join(f"{name}\n" for name in extra)


def _copy_code(folder: Path) -> None:
    target = folder / "yolo"
    if target.exists():
        shutil.rmtree(target)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(REPOSITORY_ROOT / "yolo", target, ignore=ignore)
    shutil.copyfile(REPOSITORY_ROOT / "LICENSE", folder / "LICENSE")


def _gradio_version() -> str:
    try:
        return version("gradio")
    except PackageNotFoundError:
        return OLDEST_GRADIO
