"""YOLOv1, v2 and v3 in PyTorch: one YAML file describes a detector, its data and its training."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolo.apps.predict import Predictor
    from yolo.config import load_config

__version__ = "0.1.0"

__all__ = ["Predictor", "load_config"]

# Threads of OpenMP wait for each other by spinning, 300,000 turns unless told otherwise. Where
# another process wants the same cores, that slows a training on the CPU down several times; 1,000
# turns cost an idle machine nothing. It is read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: torch takes seconds."""
    if name == "Predictor":
        from yolo.apps.predict import Predictor

        return Predictor
    if name == "load_config":
        from yolo.config import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
