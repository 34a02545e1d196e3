"""What a network looks at: EigenCAM maps over the image (https://arxiv.org/abs/2008.00299)."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo.apps.predict.network import TrainedNetwork
from yolo.apps.predict.predictor import Predictor
from yolo.errors import UserError, did_you_mean
from yolo.models.detector import Detector
from yolo.models.necks.neck import Neck

MOST_CELLS = 64
"""Per side of a map: larger ones are averaged down, for the package's decomposition holds a matrix
of all cells times all cells (1.1 GB at 128 x 128)."""

IMAGE_WEIGHT = 0.5
"""Of the image under the map."""


def eigencam(
    predictor: Predictor, image: np.ndarray, *, layer_names: Sequence[str] = ()
) -> list[np.ndarray]:
    """Lay the first principal component of a layer's output over the image: warm is strong.

    By default of the maps that the neck hands to the head, one for each scale, from the finest
    stride to the coarsest; several threads may do that at once. It says where in the image the
    features differ most from their mean, for all classes together.

    Args:
        predictor: of a checkpoint: an exported file shows nothing of its inside.
        image: uint8 (H, W, 3), RGB.
        layer_names: other layers, by their names in ``layers``.

    Returns:
        An RGB picture uint8 (H, W, 3) for each scale or layer.

    Raises:
        UserError: an exported file, an unknown layer, one without a map, or the grad-cam package is
            missing.
    """
    network = _trained(predictor)
    cam = _package()
    chosen = _chosen(network.detector, layer_names)
    model = _AsCamWantsIt(network)
    prepared = predictor.prepare(image)
    square = torch.from_numpy(prepared.square).permute(2, 0, 1)[None]  # (S, S, 3) -> (1, 3, S, S)
    if chosen:  # one pass for each: the package counts layers in the order in which they run
        maps = [_map_of(cam, model, name, layer, square) for name, layer in chosen.items()]
    else:
        maps = list(_maps(cam, model, list(model.taps), square))
    box = prepared.letterbox
    rows = slice(box.pad_top, box.pad_top + box.scaled_hw[0])
    columns = slice(box.pad_left, box.pad_left + box.scaled_hw[1])
    return [_overlay(cam, image, each[rows, columns]) for each in maps]


def scale_names(predictor: Predictor) -> list[str]:
    """``stride8`` and so on: what the pictures of ``eigencam`` without layers are of."""
    return [f"stride{stride}" for stride in _strides_px(trained_detector(predictor))]


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers to choose from: every part of a detector that holds a convolution, by its name."""
    whole = {"", "encoder", "neck", "head"}  # they return several maps
    return {
        name: part
        for name, part in model.named_modules()
        if name not in whole and any(isinstance(inner, nn.Conv2d) for inner in part.modules())
    }


class _AsCamWantsIt(nn.Module):
    """A detector that takes float images and returns one tensor, with a layer at each scale.

    The taps belong to this wrapper, so their hooks see nothing of another thread's images.
    """

    def __init__(self, network: TrainedNetwork) -> None:
        super().__init__()
        self.detector = network.detector
        self.taps = nn.ModuleList(nn.Identity() for _ in _strides_px(self.detector))
        self._autocast = network.autocast

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, 3, S, S), 0..255 -> (B, all raw numbers)."""
        with self._autocast():
            maps = self.detector.neck(self.detector.encoder(self.detector.normalise(images)))
            maps = tuple(tap(one) for tap, one in zip(self.taps, maps, strict=True))
            return torch.cat([raw.flatten(1) for raw in self.detector.head(maps)], dim=1)


def _map_of(
    cam: ModuleType, model: _AsCamWantsIt, name: str, layer: nn.Module, square: Tensor
) -> np.ndarray:
    """The map of a layer that the user chose."""
    try:
        return _maps(cam, model, [layer], square)[0]
    except _NoMapError as error:
        raise UserError(
            f"EigenCAM needs a layer that returns one map, and {name} {error}; "
            "choose one inside it (scripts/explain.py --list)"
        ) from error


def _maps(
    cam: ModuleType, model: _AsCamWantsIt, targets: Sequence[nn.Module], square: Tensor
) -> np.ndarray:
    """One pass through the network, whose targets run in the given order.

    Args:
        cam: the package.
        model: the network.
        targets: L layers.
        square: uint8 (1, 3, S, S).

    Returns:
        float32 (L, S, S), 0..1.
    """
    project = cam.utils.svd_on_activations.get_2d_projection_with_sign_correction

    class EigenCamOfEach(cam.EigenCAM):  # type: ignore[name-defined]
        """The package would average the layers, and leave the sign to the decomposition.

        The sign of a principal component is arbitrary. Here the farthest cell from the mean is
        warm, by the package's own correction (https://doi.org/10.3390/app15137562, equation 13).
        """

        def get_cam_image(
            self,
            input_tensor: Tensor,
            target_layer: nn.Module,
            target_category: Any,
            activations: np.ndarray | None,
            grads: Any,
            eigen_smooth: bool,
        ) -> np.ndarray:
            del input_tensor, target_layer, target_category, grads, eigen_smooth
            if activations is None:
                raise _NoMapError("does not run by itself")
            maps: np.ndarray = project(activations)
            return maps

        def aggregate_multi_layers(self, maps: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(maps, axis=1)  # of (1, 1, S, S) each

    with torch.no_grad():
        eigen = EigenCamOfEach(model, list(targets), reshape_transform=_as_small_map)
        try:
            maps: np.ndarray = eigen(square.float(), targets=[])[0]
        finally:
            eigen.activations_and_grads.release()
    return maps


class _NoMapError(Exception):
    """What a layer does instead of returning a map."""


def _as_small_map(output: Any) -> Tensor:
    """A layer's output (1, C, H, W) in float32, with at most ``MOST_CELLS`` cells a side."""
    if not isinstance(output, Tensor):
        raise _NoMapError("returns several")
    if output.ndim != 4:
        raise _NoMapError(f"returns numbers of shape {tuple(output.shape)}")
    height, width = output.shape[2:]
    return F.adaptive_avg_pool2d(output.float(), (min(height, MOST_CELLS), min(width, MOST_CELLS)))


def _overlay(cam: ModuleType, image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The part of a map that the image covers, scaled to 0..1 and to the image's size, over it."""
    height, width = image.shape[:2]
    heat = heat - heat.min()
    heat = heat / max(float(heat.max()), 1e-7)
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    picture: np.ndarray = cam.utils.image.show_cam_on_image(
        image.astype(np.float32) / 255, heat, use_rgb=True, image_weight=IMAGE_WEIGHT
    )
    return picture


def _chosen(model: Detector, names: Sequence[str]) -> dict[str, nn.Module]:
    known = layers(model)
    for name in names:
        if name not in known:
            raise UserError(
                f"the network has no layer {name!r}{did_you_mean(name, known)}; "
                "scripts/explain.py --list names them all"
            )
    return {name: known[name] for name in names}


def _strides_px(detector: Detector) -> tuple[int, ...]:
    assert isinstance(detector.neck, Neck)
    return detector.neck.strides_px


def trained_detector(predictor: Predictor) -> Detector:
    """The network of a predictor, its batch norms fused, whose ``layers`` ``eigencam`` can show.

    Raises:
        UserError: an exported file.
    """
    return _trained(predictor).detector


def _trained(predictor: Predictor) -> TrainedNetwork:
    if not isinstance(predictor.network, TrainedNetwork):
        raise UserError("EigenCAM needs the checkpoint: an exported file shows no layer's output")
    return predictor.network


def _package() -> ModuleType:
    try:
        import pytorch_grad_cam
        import pytorch_grad_cam.utils.image
        import pytorch_grad_cam.utils.svd_on_activations
    except ImportError as error:
        raise UserError(
            "EigenCAM needs the grad-cam package; install it with `pip install -e '.[explain]'`"
        ) from error
    return pytorch_grad_cam
