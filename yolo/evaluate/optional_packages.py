"""The packages that only exporting needs."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal, get_args

from yolo.errors import UserError

Package = Literal["onnx", "onnxscript", "onnxruntime"]


def need(package: Package) -> ModuleType:
    """Import one of them; nothing else is ever imported by a name.

    Raises:
        UserError: it is not installed.
    """
    assert package in get_args(Package)
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {package}, which is not installed; install it with "
            "`pip install -e '.[export]'`"
        ) from error
