"""A detector as a TorchScript file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch.jit import TracerWarning

from yolo.export.card import ExportCard
from yolo.export.graph import ExportGraph, example_images

CARD_FILE = "card.json"
"""The card's place among the extra files."""


def write_torchscript(path: Path, graph: ExportGraph, card: ExportCard) -> None:
    """Trace the graph and write it with its card.

    Sizes of images are read from them, so the file itself takes any that the network takes; whether
    that was checked is what ``card.dynamic_size`` says.
    """
    images = example_images(card.image_size_px, float_input=card.float_input)
    with warnings.catch_warnings(), torch.inference_mode():
        # the checks of a YOLOv1's sizes become constants, which is what they are
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
        traced = torch.jit.trace(graph, (images,), check_trace=False)
        torch.jit.save(traced, path, _extra_files={CARD_FILE: json.dumps(card.to_metadata())})
