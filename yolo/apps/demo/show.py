"""From a checkpoint to a page that is served."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from yolo.apps.demo.pictures import write_examples
from yolo.apps.demo.views import Overlay, Views
from yolo.apps.explain import eigencam, scale_names
from yolo.apps.predict import Predictor


def show(
    checkpoint: Path,
    *,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Serve the demo page of a checkpoint until interrupted or terminated.

    Args:
        checkpoint: a checkpoint or an exported file.
        device: a name for `torch.device`, or "auto".
        host, port: the address that is listened at; None for any free port from 7860 on.
        say: prints a line.

    Raises:
        UserError: Gradio is missing, the checkpoint cannot be used, or the port is taken.
        SystemExit: 128 + SIGTERM when terminated.
    """
    signal.signal(signal.SIGTERM, _stop)
    with own_folder() as folder:
        from yolo.apps.demo.page import build_page, serving  # Gradio is an extra

        predictor = Predictor.from_checkpoint(checkpoint, device=device)
        page = build_page(
            build_views(predictor),
            write_examples(folder / "examples"),
            conf=predictor.postprocess.conf,
            iou=predictor.postprocess.iou,
        )
        with serving(page, host=host, port=port) as address:
            log(f"{checkpoint}: open {address} in a browser; stop with Ctrl+C")
            while True:
                time.sleep(3600)


def _stop(number: int, _frame: object) -> None:
    """Leave by an exception, so that the folder is removed; alone in a container, leave at all."""
    sys.exit(128 + number)


def build_views(predictor: Predictor) -> Views:
    """The views of a predictor, EigenCAM at each scale of its network among them."""

    def explain(image: np.ndarray) -> list[Overlay]:
        overlays = eigencam(predictor, image)
        return list(zip(overlays, scale_names(predictor), strict=True))

    return Views(predictor, explain)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder, the only one that the page's files lie in; Gradio sends no reports.

    Gradio reads these settings when it is imported and when a page is built.
    """
    with tempfile.TemporaryDirectory(prefix="yolo-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        settings = {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "GRADIO_EXAMPLES_CACHE": str(folder / "cache"),
            "GRADIO_ALLOWED_PATHS": "",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        before = {key: os.environ.get(key) for key in settings}
        os.environ.update(settings)
        try:
            yield folder
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
