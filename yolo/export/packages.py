"""The packages that only exporting needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from yolo.errors import UserError


def need(package: str) -> ModuleType:
    """Import onnx, onnxscript or onnxruntime.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {package}, which is not installed; install it with "
            "`pip install -e '.[export]'`"
        ) from error
