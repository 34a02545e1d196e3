"""Serves the page of a checkpoint on this machine, or writes the folder of a Space that does."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np

from yolo.apps.demo.pictures import Overlay, Views, write_examples
from yolo.apps.explain import eigencam, scale_names
from yolo.apps.predict import Predictor
from yolo.config import REPOSITORY_ROOT
from yolo.config.load import portable
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel, is_exported
from yolo.factory.initial_weights import read_config
from yolo.files import atomic_write, read_or_refuse
from yolo.models.torch_weights import evaluated_tensors
from yolo.train.checkpoint import load_checkpoint, save_checkpoint

_SPACE = Path(__file__).with_name("space")
"""The templates of a Space's ``app.py`` and ``README.md``."""


def show(
    checkpoint: Path,
    *,
    device: str = "auto",
    conf: float | Literal["auto"] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> None:
    """Serve the demo page of a checkpoint or an exported file until interrupted or terminated.

    Its slider starts at ``conf``; with ``auto`` each class's own confidence counts beside it.

    Raises:
        SystemExit: 128 + SIGTERM when terminated.
    """
    # by an exception, so that the folder is removed, also as a container's only process
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with own_folder() as folder:
        from yolo.apps.demo.page import build_page, serving  # Gradio is an extra

        predictor = Predictor.from_checkpoint(checkpoint, device=device, conf=conf)

        def explain(image: np.ndarray) -> list[Overlay]:
            return list(zip(eigencam(predictor, image), scale_names(predictor), strict=True))

        page = build_page(
            Views(predictor, explain),
            write_examples(folder / "examples"),
            conf=predictor.postprocess.conf,
            iou=predictor.postprocess.iou,
        )
        with serving(page, host=host, port=port) as address:
            print(f"{checkpoint}: open {address} in a browser; stop with Ctrl+C", flush=True)
            while True:
                time.sleep(3600)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder for all of the page's files; Gradio sends no reports.

    Gradio reads these settings when it is imported and when a page is built.
    """
    with tempfile.TemporaryDirectory(prefix="yolo-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "GRADIO_EXAMPLES_CACHE": str(folder / "cache"),
            "GRADIO_ALLOWED_PATHS": "",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        yield folder


def make_space(checkpoint: Path, folder: Path) -> list[Path]:
    """Write ``app.py``, ``requirements.txt``, ``README.md``, ``LICENSE``, the model and ``yolo/``.

    A checkpoint's optimizer state is left out, and so are the folders of this machine in its
    config; of averaged weights only those are kept. The folder is empty, new, or a Space written
    before; hidden files (a clone's ``.git``) stay.

    Returns:
        What was written.
    """
    model = f"model{checkpoint.suffix}"
    _check_folder(folder)
    write_model = _read_model(checkpoint)
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        gradio = "6.0.0"  # the oldest that will do
    own = (REPOSITORY_ROOT / "requirements.txt").read_text("utf-8")
    exported = "onnxruntime\n" if is_exported(checkpoint) else ""
    texts = {
        "app.py": (_SPACE / "app.txt").read_text("utf-8").format(model=model),
        "requirements.txt": f"{own}# the page\ngradio\ngrad-cam>=1.5.7\n{exported}",
        "README.md": (_SPACE / "readme.txt").read_text("utf-8").format(gradio=gradio),
        "LICENSE": (REPOSITORY_ROOT / "LICENSE").read_text("utf-8"),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder / model)
        for name, text in texts.items():  # a clone may hold links there, which lead anywhere
            atomic_write(folder / name, text.encode())
        shutil.rmtree(folder / "yolo", ignore_errors=True)
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(REPOSITORY_ROOT / "yolo", folder / "yolo", ignore=ignore)
    except OSError as error:
        raise UserError(f"{folder}: the Space cannot be written ({error})") from error
    return [folder / name for name in (*texts, model, "yolo")]


def _check_folder(folder: Path) -> None:
    """Nothing of somebody else's is overwritten or published."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; name a folder for the Space")
    app = folder / "app.py"
    ours = app.is_file() and "scripts/demo.py --make-space" in app.read_text("utf-8", "replace")
    if not ours and any(not path.name.startswith(".") for path in folder.glob("*")):
        raise UserError(f"{folder}: holds other files; name a new or an empty folder for the Space")


def _read_model(checkpoint: Path) -> Callable[[Path], object]:
    if checkpoint.suffix.lower() == ".torchscript":
        ExportedModel.open(checkpoint)  # refuses it, as the Space would
    if is_exported(checkpoint):
        return partial(atomic_write, content=read_or_refuse("the model", checkpoint))
    content = load_checkpoint(checkpoint)
    lost = ("optimizer", "scaler", "ema")  # only for training
    kept = {key: value for key, value in content.items() if key not in lost}
    kept["config"] = portable(read_config(checkpoint, content).model_dump())
    return partial(save_checkpoint, content={**kept, "model": evaluated_tensors(content)})
