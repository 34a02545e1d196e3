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

from yolo.darknet.cfg import BOX_FIELDS, Convolution, LayerList, Region, Yolo
from yolo.errors import UserError

WRITTEN_VERSION = (0, 2, 0)
LARGEST_VERSION = 999
"""Beyond it Darknet takes a number for the mark of a file from before 2014, layers transposed."""

_VERSION_BYTES = 12


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file holds: the header, and all float32 (N,) behind it."""

    version: tuple[int, int, int]
    seen: int  # images seen in training
    floats: np.ndarray
    extra_bytes: int  # 0 to 3, behind the last whole float

    @property
    def size(self) -> str:
        """How much is there, for an error."""
        extra = " and a part of one more" if self.extra_bytes else ""
        return f"{len(self.floats):,} floats{extra}"


def is_weights_file(path: Path) -> bool:
    """Whether a file is Darknet's, by its name or, if the name leaves it open, by its header."""
    if path.suffix.lower() == ".weights" or layers_in_name(path) is not None:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _version(file.read(_VERSION_BYTES)) is not None


def layers_in_name(path: Path) -> int | None:
    """The N of a file named ``*.conv.N``: it holds the first N layers of a network."""
    found = re.search(r"\.conv\.(\d+)$", path.name, re.IGNORECASE)
    return int(found[1]) if found else None


def read_weights(path: Path) -> WeightsFile:
    """Read a file, whatever model it fits."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the weights file cannot be read ({error.strerror})") from error
    if not content:
        raise UserError(f"{path}: the weights file is empty; download or copy it again")
    version = _version(content)
    header = _VERSION_BYTES + (8 if version and version >= (0, 2, 0) else 4)
    if version is None or len(content) < header:
        raise UserError(
            f"{path}: not a weights file of Darknet: it does not begin with a header of version, "
            "revision and images seen; check the file, a download may have saved a web page"
        )
    seen = int.from_bytes(content[_VERSION_BYTES:header], "little", signed=True)
    count, extra = divmod(len(content) - header, 4)
    floats = np.frombuffer(content, dtype="<f4", count=count, offset=header)
    return WeightsFile(version, seen, floats, extra)


def _version(content: bytes) -> tuple[int, int, int] | None:
    """Major, minor and revision, where the first bytes can be a version of Darknet."""
    if len(content) < _VERSION_BYTES:
        return None
    major, minor, revision = np.frombuffer(content[:_VERSION_BYTES], dtype="<i4").tolist()
    plausible = all(0 <= number <= LARGEST_VERSION for number in (major, minor, revision))
    return (major, minor, revision) if plausible else None


def write_weights(path: Path, layers: LayerList, *, seen: int = 0) -> None:
    """Write the layers of an encoder or a whole detector, with the header of 20 bytes.

    ``seen`` is the number of images seen in training, by which Darknet goes on in its schedule.
    """
    with path.open("wb") as file:
        file.write(np.array(WRITTEN_VERSION, dtype="<i4").tobytes() + np.int64(seen).tobytes())
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
    """Floats in a file of the layers: with other ``classes``, of the first ``up_to`` alone."""
    return sum(size for _, size, _ in _places(layers, classes, up_to))


def classes_for(layers: LayerList, floats: int) -> int | None:
    """The number of classes with which a file of a detector holds so many floats, if any has."""
    without = count_floats(layers, classes=0)
    per_class = count_floats(layers, classes=1) - without
    if per_class == 0 or floats <= without or (floats - without) % per_class:
        return None
    return (floats - without) // per_class


@torch.no_grad()
def fill(
    layers: LayerList, floats: np.ndarray, *, classes: int | None = None, up_to: int | None = None
) -> list[Convolution]:
    """Copy a file's ``count_floats`` numbers into the layers. Returns what was filled.

    With another number of classes, the last convolutions before the detection layers stay.
    """
    assert len(floats) == count_floats(layers, classes=classes, up_to=up_to)
    filled, start = [], 0
    for convolution, size, same in _places(layers, classes, up_to):
        if same:
            targets = tensors(convolution)
            values = torch.from_numpy(floats[start : start + size].astype(np.float32))
            parts = values.split([target.numel() for target in targets])
            for target, part in zip(targets, parts, strict=True):
                target.copy_(part.view(target.shape))
            filled.append(convolution)
        start += size
    return filled


def _places(
    layers: LayerList, classes: int | None, up_to: int | None
) -> Iterator[tuple[Convolution, int, bool]]:
    """Each convolution, its floats in the file, and whether they are what the layer has."""
    for layer, after in zip(layers[:up_to], [*layers[1:], None], strict=False):
        if not isinstance(layer, Convolution):
            continue
        own = sum(tensor.numel() for tensor in tensors(layer))
        if classes is None or not isinstance(after, Yolo | Region) or after.classes == classes:
            yield layer, own, True
        else:
            # its outputs are A * (5 + K), each with as many numbers
            yield layer, own // (BOX_FIELDS + after.classes) * (BOX_FIELDS + classes), False
