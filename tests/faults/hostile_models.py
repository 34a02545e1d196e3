"""Models that want to do harm, or to be built larger than they are: refused with one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import export
import validation
from scripts import predict
from tests.checkpoints import NAMES
from tests.detectors import make_config, save_detector
from tests.exported_files import write_onnx
from tests.faults.hostile import CANARY, fails, harmless
from tests.faults.trial import Property
from yolo.factory.detector import build_detector
from yolo.train.checkpoint import _seal, load_checkpoint, save_checkpoint

PROPERTY = "12 Hostile files"


class _Saver(torch.nn.Module):
    """TorchScript that writes a file when it is called."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        torch.save([images], self.path)
        return [images]


class _Maker(_Saver):
    """The same by mapping one that is made."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.from_file(self.path, True, 10), images]


def program_as_model(seed: int, folder: Path) -> None:
    """A TorchScript program as exported file, as ONNX and as checkpoint, sealed or not: it never
    runs, one sentence, exit code 1 or 2.
    """
    kind, suffix = [_Saver, _Maker][seed % 2], [".torchscript", ".onnx", ".pt", ".TorchScript"]
    path = folder / f"model{suffix[seed // 2 % 4]}"
    torch.jit.script(kind(str(folder / CANARY))).save(str(path))
    if path.suffix == ".pt" and seed // 8 % 2:
        _seal(path)
    _refused(path, folder)


def _refused(path: Path, folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    with harmless(folder):
        prediction = ["--checkpoint", path, "--output", folder / "out"]
        fails(predict.main, folder / "a.png", *prediction, naming=path)
        fails(validation.main, path, "--gpu", "cpu", naming=path)
        if path.suffix == ".pt":
            fails(export.main, path, "--format", "darknet", naming=path)


def _of_width(width: float) -> Callable[[Path], object]:
    """A checkpoint whose config makes a model of gigabytes, and whose tensors are small."""
    return lambda path: _write(path, neck={"type": "yolov3", "width": width})


def _expanded(path: Path) -> None:
    """The same with tensors of the right shapes, of one number each."""
    config = make_config(neck_width=8.0)
    with torch.device("meta"):
        detector = build_detector(config, NAMES)
    zeros = {
        name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in detector.state_dict().items()
    }
    save_detector(path, detector, config, NAMES, model=zeros)


def _write(path: Path, *, neck: Any = None, size: int | None = None, **content: Any) -> None:
    config = make_config(neck_width=0.1)
    plain = config.model_dump(mode="json")
    plain["model"]["neck"] = neck or plain["model"]["neck"]
    plain["data"]["image_size"] = size or plain["data"]["image_size"]
    save_detector(path, build_detector(config, NAMES), config, NAMES)
    whole = {**load_checkpoint(path), "config": plain, **content}
    save_checkpoint(path, whole)


CHECKPOINTS: list[Callable[[Path], object]] = [
    *(_of_width(width) for width in (8.0, 1e9, -1.0, float("inf"))),
    _expanded,
    lambda path: _write(path, size=20_480),
    lambda path: _write(path, precision={"name": "fp37", "reason": "so"}),
    lambda path: _write(path, progress={"step": "seven"}),
    lambda path: _write(path, progress={"step": -7}),
    lambda path: _write(path, class_names=["x"] * 100_000, category_ids=[*range(100_000)]),
    lambda path: _write(path, class_names=["x"] * 9),
    lambda path: _write(path, class_names=[*"abcdefghi"], category_ids=[*range(9)]),
    lambda path: _write(path, config={"task": "detect", "model": torch.zeros(3)}),
    lambda path: _write(path, ema={"module.encoder.stem.conv.weight": "text"}),
]

ONNX: list[dict[str, Any]] = [
    {"outputs": "float[batch, 2, 4] boxes"},
    {"class_names": ("x",) * 100_000, "category_ids": tuple(range(100_000))},
    {"image_size_px": 20_480, "dynamic_size": True},
    {"image_size_px": 20_480, "images": "uint8[batch, 3, 20480, 20480] images"},
    {"entries": {"yolo.precision": '"fp37"'}},
    {"entries": {"yolo.step": '"seven"'}},
    {"entries": {"yolo.step": "-7"}},
    {"entries": {"yolo.conf": "NaN"}},
    {"entries": {"yolo.config": "[" * 100_000}},
    {"nms": True, "outputs": "float[batch, 2, 4] boxes, float[batch, 2] scores"},
]


def well_formed_but_hostile(seed: int, folder: Path) -> None:
    """Checkpoints and ONNX files that are whole, with a width, size, step, number of names or of
    outputs that is not theirs: refused before anything of that size is built.
    """
    kinds = len(CHECKPOINTS) + len(ONNX)
    number = random.Random(seed).randrange(kinds) if seed >= kinds else seed
    if number < len(CHECKPOINTS):
        path = folder / "model.pt"
        CHECKPOINTS[number](path)
        Image.new("RGB", (40, 40)).save(folder / "a.png")
        with harmless(folder):  # validation opens the data first, which are nowhere
            prediction = ["--checkpoint", path, "--output", folder / "out"]
            fails(predict.main, folder / "a.png", *prediction, naming=path)
            fails(export.main, path, "--format", "onnx", naming=path)
    else:
        _refused(write_onnx(folder / "model.onnx", **ONNX[number - len(CHECKPOINTS)]), folder)


TRIALS = [
    Property(program_as_model, full=16, quick=3),
    Property(well_formed_but_hostile, full=len(CHECKPOINTS) + len(ONNX), quick=2),
]
