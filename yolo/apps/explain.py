"""What a network looks at: EigenCAM maps over the image (https://arxiv.org/abs/2008.00299)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.apps.predict.predictor import Predictor, TrainedNetwork
from yolo.errors import UserError, did_you_mean
from yolo.letterbox import Letterbox
from yolo.models.detector import Detector
from yolo.models.necks import Neck

MAX_CELLS = 64
"""Per side of a map: larger ones are averaged down, for the package's decomposition holds a matrix
of all cells times all cells (1.1 GB at 128 x 128)."""


def eigencam(
    predictor: Predictor, image: np.ndarray, *, layer_names: Sequence[str] = ()
) -> list[np.ndarray]:
    """Lay the first principal component of a layer's output over the image: warm is strong.

    It shows where in the image the features differ most from their mean, for all classes together.

    Args:
        predictor: of a checkpoint: an exported file shows nothing of its inside.
        image: uint8 (H, W, 3), RGB.
        layer_names: of ``layers``; without any, the maps that the neck hands to the head, one for
            each scale, from the finest stride to the coarsest; several threads may do that at once.

    Returns:
        An RGB picture uint8 (H, W, 3) for each scale or layer.
    """
    network, package = trained_network(predictor), _import_package()
    (pixels, letterbox), detector = predictor.prepare(image), network.detector
    square = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (S, S, 3) -> (1, 3, S, S)
    square = square.to(network.device)
    with torch.no_grad(), network.autocast():
        if layer_names:
            maps = _maps_of(detector, layer_names, square)
        else:
            maps = detector.neck(detector.encoder(detector.normalise(square)))
    return [_overlay(package, image, each, letterbox) for each in maps]


def scale_names(predictor: Predictor) -> list[str]:
    """``stride8`` and so on: what the pictures of ``eigencam`` without layers are of."""
    neck = trained_network(predictor).detector.neck
    assert isinstance(neck, Neck)
    return [f"stride{stride}" for stride in neck.strides_px]


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers to choose from: every part of a detector that holds a convolution, by its name."""
    whole = {"", "encoder", "neck", "head"}  # they return several maps
    return {
        name: part
        for name, part in model.named_modules()
        if name not in whole and any(isinstance(inner, nn.Conv2d) for inner in part.modules())
    }


def trained_network(predictor: Predictor) -> TrainedNetwork:
    """The network of a predictor of a checkpoint."""
    if not isinstance(predictor.network, TrainedNetwork):
        raise UserError("EigenCAM needs the checkpoint: an exported file shows no layer's output")
    return predictor.network


def _maps_of(detector: Detector, names: Sequence[str], images: Tensor) -> list[Tensor]:
    """The output (1, C, H, W) of each named layer in one pass through the network."""
    known, outputs = layers(detector), dict[str, Any]()
    with ExitStack() as stack:
        for name in names:
            if name not in known:
                raise UserError(
                    f"the network has no layer {name!r}{did_you_mean(name, known)}; "
                    "scripts/explain.py --list names them all"
                )

            def keep(_layer: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor):
                    output = output.clone()  # an activation behind it works in place
                outputs.setdefault(name, output)

            stack.callback(known[name].register_forward_hook(keep).remove)
        detector(images)
    return [_check_map(name, outputs.get(name)) for name in names]


def _check_map(name: str, output: Any) -> Tensor:
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    problem = "does not run by itself" if output is None else "returns several"
    if isinstance(output, Tensor):
        problem = f"returns numbers of shape {tuple(output.shape)}"
    raise UserError(
        f"EigenCAM needs a layer that returns one map, and {name} {problem}; "
        "choose one inside it (scripts/explain.py --list)"
    )


def _overlay(
    package: ModuleType, image: np.ndarray, features: Tensor, letterbox: Letterbox
) -> np.ndarray:
    """The first principal component of a map (1, C, H, W) over its image.

    The sign of a principal component is arbitrary: the farthest cell from the mean is made warm, by
    the package's own correction (https://doi.org/10.3390/app15137562, equation 13).
    """
    rows, columns = (min(side, MAX_CELLS) for side in features.shape[2:])
    small = F.adaptive_avg_pool2d(features.float(), (rows, columns)).cpu().numpy()
    project = package.utils.svd_on_activations.get_2d_projection_with_sign_correction
    heat = np.maximum(project(small), 0)  # (1, H, W)
    top, left, size_px = letterbox.pad_top, letterbox.pad_left, letterbox.size_px
    (heat,) = package.utils.image.scale_cam_image(heat, (size_px, size_px))  # (S, S), 0..1
    heat = heat[top : top + letterbox.scaled_hw[0], left : left + letterbox.scaled_hw[1]]
    heat = (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-7)
    heat = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
    pixels = image.astype(np.float32) / 255
    return package.utils.image.show_cam_on_image(pixels, heat, use_rgb=True, image_weight=0.5)


def _import_package() -> ModuleType:
    try:
        import pytorch_grad_cam
        import pytorch_grad_cam.utils.image
        import pytorch_grad_cam.utils.svd_on_activations
    except ImportError as error:
        raise UserError(
            "EigenCAM needs the grad-cam package; install it with `pip install -e '.[explain]'`"
        ) from error
    return pytorch_grad_cam
