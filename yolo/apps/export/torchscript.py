"""A detector as a TorchScript file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch.jit import TracerWarning

from yolo.evaluate.exported_graph import ExportGraph, example_images
from yolo.evaluate.exported_metadata import METADATA_FILE, ExportMetadata


def write_torchscript(path: Path, graph: ExportGraph, metadata: ExportMetadata) -> None:
    """Trace the graph and write it with its metadata.

    Sizes of images are read from them, so the file itself takes any that the network takes; whether
    that was checked is what ``metadata.dynamic_size`` says.
    """
    images = example_images(metadata.image_size_px, float_input=metadata.float_input)
    with warnings.catch_warnings(), torch.inference_mode():
        # the checks of a YOLOv1's sizes become constants, which is what they are
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", FutureWarning)  # torch would have torch.export instead
        traced = torch.jit.trace(graph, (images,), check_trace=False)
        torch.jit.save(
            traced, path, _extra_files={METADATA_FILE: json.dumps(metadata.to_metadata())}
        )
