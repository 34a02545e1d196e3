"""Files that ``torch.save`` wrote, read without running anything that they hold."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


def load_plain(path: Path) -> Any:
    """Tensors and plain data to the CPU.

    Raises:
        Exception: of any kind, for what the unpickler raises on foreign bytes is anyone's guess.
            ValueError: the file holds compressed data, which ``torch.save`` never writes, and of
            which a kilobyte can stand for a gigabyte.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise ValueError("its data are compressed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols: it reads or fails
        return torch.load(path, map_location="cpu", weights_only=True)
