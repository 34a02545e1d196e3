"""Darknet's weights files: a header, then the numbers of every convolution in the cfg's order.

The header is three int32, the version (major, minor, revision), and the number of images seen in
training: an int32 up to version 0.1, 16 bytes in all, an int64 from 0.2 on, 20 bytes. A convolution
is its biases, then with batch norm its scales, running means and running variances, then its
weights (out, in, height, width): float32, little-endian, nothing between them.

Running variances are stored as they are; each program adds its own epsilon to them (see
``BATCH_NORM_EPSILON`` in the models).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolo.darknet.layer_records import Convolution, LayerList, Region, Yolo
from yolo.errors import UserError

FLOAT_BYTES = 4
WRITTEN_VERSION = (0, 2, 0)
LARGEST_VERSION = 999
"""Beyond it Darknet takes a number for the mark of a file from before 2014, layers transposed."""

_VERSION_BYTES = 12
_NAMED_AS_DARKNETS = re.compile(r"\.(weights|conv\.\d+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file holds.

    Attributes:
        path: where it lies.
        version: major, minor, revision.
        seen: images seen in training.
        floats: float32 (N,), all behind the header.
        extra_bytes: 0 to 3, behind the last whole float.
    """

    path: Path
    version: tuple[int, int, int]
    seen: int
    floats: np.ndarray
    extra_bytes: int

    @property
    def size(self) -> str:
        """How much is there, for an error."""
        extra = " and a part of one more" if self.extra_bytes else ""
        return f"{len(self.floats):,} floats{extra}"


def is_weights_file(path: Path) -> bool:
    """Whether a file is Darknet's, by its name or, if the name does not say so, by its header."""
    if _NAMED_AS_DARKNETS.search(path.name):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_VERSION_BYTES)
    return len(head) == _VERSION_BYTES and _plausible(_version(head))


def layers_in_name(path: Path) -> int | None:
    """The N of a file named ``*.conv.N``: it holds the first N layers of a network."""
    found = re.search(r"\.conv\.(\d+)$", path.name, re.IGNORECASE)
    return int(found[1]) if found else None


def read_weights(path: Path) -> WeightsFile:
    """Read a file; whether its length fits a model is for ``fill`` and its callers to say.

    Raises:
        UserError: there is no such file, it is empty, or its header is not Darknet's.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the weights file cannot be read ({error.strerror})") from error
    if not content:
        raise UserError(f"{path}: the weights file is empty; download or copy it again")
    header = _header_bytes(path, content)
    seen = int.from_bytes(content[_VERSION_BYTES:header], "little", signed=True)
    count, extra = divmod(len(content) - header, FLOAT_BYTES)
    floats = np.frombuffer(content, dtype="<f4", count=count, offset=header)
    return WeightsFile(path, _version(content), seen, floats, extra)


def write_weights(path: Path, layers: LayerList, *, seen: int = 0) -> None:
    """Write the layers, with the header of 20 bytes.

    Args:
        path: the file; written over if it exists.
        layers: of an encoder or a whole detector.
        seen: images seen in training, by which Darknet goes on in its schedule.
    """
    header = np.array(WRITTEN_VERSION, dtype="<i4").tobytes() + np.int64(seen).tobytes()
    with path.open("wb") as file:
        file.write(header)
        for convolution in layers.convolutions:
            for tensor in tensors(convolution):
                values = tensor.detach().float().cpu().contiguous().numpy()
                file.write(values.astype("<f4", copy=False).tobytes())


def tensors(convolution: Convolution) -> list[Tensor]:
    """What a file holds of a convolution, in its order."""
    conv, norm = convolution.conv, convolution.norm
    if norm is None:
        assert conv.bias is not None
        return [conv.bias, conv.weight]
    assert norm.running_mean is not None and norm.running_var is not None
    return [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]


def count_floats(layers: LayerList, *, classes: int | None = None, up_to: int | None = None) -> int:
    """How many floats a file of these layers holds.

    Args:
        layers: of an encoder or a whole detector.
        classes: for another number of classes than the detector's.
        up_to: the first layers only, so many.
    """
    return sum(size for _, size, _ in _places(layers, classes, up_to))


def classes_for(layers: LayerList, floats: int) -> int | None:
    """The number of classes with which a file of a detector holds so many floats, if any has."""
    without, per_class = count_floats(layers, classes=0), count_floats(layers, classes=1)
    per_class -= without
    if per_class == 0 or floats <= without or (floats - without) % per_class:
        return None
    return (floats - without) // per_class


@torch.no_grad()
def fill(
    layers: LayerList, floats: np.ndarray, *, classes: int | None = None, up_to: int | None = None
) -> list[Convolution]:
    """Copy a file's numbers into the layers.

    Args:
        layers: of an encoder or a whole detector.
        floats: float32 (N,), exactly ``count_floats`` of them.
        classes, up_to: see ``count_floats``; the last convolutions before the detection layers
            are left as they are if the file has another number of classes.

    Returns:
        The convolutions that were filled.
    """
    assert len(floats) == count_floats(layers, classes=classes, up_to=up_to)
    filled, at = [], 0
    for convolution, size, same in _places(layers, classes, up_to):
        if same:
            _copy(convolution, torch.from_numpy(floats[at : at + size].astype(np.float32)))
            filled.append(convolution)
        at += size
    return filled


def _copy(convolution: Convolution, values: Tensor) -> None:
    at = 0
    for tensor in tensors(convolution):
        tensor.copy_(values[at : at + tensor.numel()].view(tensor.shape))
        at += tensor.numel()


def _places(
    layers: LayerList, classes: int | None, up_to: int | None
) -> Iterator[tuple[Convolution, int, bool]]:
    """Each convolution, its floats in the file, and whether they are what the layer has."""
    records = list(layers)
    for index, record in enumerate(records[:up_to]):
        if not isinstance(record, Convolution):
            continue
        own = sum(tensor.numel() for tensor in tensors(record))
        after = records[index + 1] if index + 1 < len(records) else None
        if classes is None or not isinstance(after, Yolo | Region) or after.classes == classes:
            yield record, own, True
        else:
            fields = own // record.conv.out_channels  # numbers per output channel
            yield record, fields * after.outputs(classes), False


def _header_bytes(path: Path, content: bytes) -> int:
    """Length of the header; refuses what is no file of Darknet's."""
    if len(content) >= _VERSION_BYTES:
        version = _version(content)
        if _plausible(version) and len(content) >= _header_size(version):
            return _header_size(version)
    raise UserError(
        f"{path}: not a weights file of Darknet: it does not begin with a header of version, "
        "revision and images seen; check the file, a download may have saved a web page"
    )


def _header_size(version: tuple[int, int, int]) -> int:
    major, minor, _ = version
    return _VERSION_BYTES + (8 if major * 10 + minor >= 2 else 4)


def _version(content: bytes) -> tuple[int, int, int]:
    major, minor, revision = np.frombuffer(content[:_VERSION_BYTES], dtype="<i4").tolist()
    return major, minor, revision


def _plausible(version: tuple[int, int, int]) -> bool:
    return all(0 <= number <= LARGEST_VERSION for number in version)
