"""A checkpoint as Darknet's files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from yolo.apps.export.exporting import exported_file
from yolo.config import Config
from yolo.config.schema.model import YOLOv2LossConfig, YOLOv3LossConfig
from yolo.darknet.cfg import Options, cfg_text
from yolo.darknet.weights import write_weights
from yolo.errors import UserError
from yolo.factory.detector import anchors_px
from yolo.factory.initial_weights import load_trained_detector
from yolo.models.detector import list_detector


def export_darknet(
    checkpoint_path: Path,
    *,
    stem: Path | None = None,
    image_size_px: int | None = None,
    thresh: float | None = None,
) -> list[Path]:
    """Write a checkpoint's detector as ``<stem>.cfg``, ``<stem>.weights`` and ``<stem>.names``.

    Either all three are written or none is touched. Returns their paths.

    Args:
        stem: None for the checkpoint's own name beside it.
        image_size_px: of the cfg; None for the training's.
        thresh: scores up to it become 0 in OpenCV; None means 0.2 in YOLOv3, which is OpenCV's own,
            and in YOLOv2 the loss's ``ignore_threshold``, which Darknet reads there in training.
    """
    checkpoint, config, detector = load_trained_detector(checkpoint_path)
    try:
        layers = list_detector(detector)
        # Darknet divides by 255 and that is all. Mean and deviation could only move into the first
        # convolution if it had no padding: the zeros around the image mean another colour then.
        if detector.normalise.mean.any() or (detector.normalise.std != 1).any():
            raise UserError(
                "the model's input is normalised with a mean and a deviation "
                "(model.preprocessing), and Darknet knows RGB / 255 only; train with "
                "model.preprocessing: unit_range"
            )
        options = _detection_options(config, thresh)
    except UserError as error:
        raise UserError(f"{checkpoint_path}: {error}") from error
    size_px = image_size_px or config.data.image_size
    cfg = cfg_text(layers, image_size_px=size_px, anchors_px=anchors_px(config), detection=options)
    names = "".join(f"{name}\n" for name in checkpoint["class_names"])
    seen = checkpoint["progress"]["step"] * config.training.batch_size
    stem = stem or checkpoint_path.with_suffix("")
    files: dict[Path, Callable[[Path], object]] = {
        Path(f"{stem}.cfg"): lambda path: path.write_text(cfg, encoding="utf-8"),
        Path(f"{stem}.weights"): lambda path: write_weights(path, layers, seen=seen),
        Path(f"{stem}.names"): lambda path: path.write_text(names, encoding="utf-8"),
    }
    with ExitStack() as stack:  # all under temporary names, then all renamed
        for path, write in files.items():
            write(stack.enter_context(exported_file(path)))
    return list(files)


def _detection_options(config: Config, thresh: float | None) -> Options:
    """What a detection layer needs beside its anchors; Darknet trains by most of it."""
    loss, scale_xy = config.loss, getattr(config.model.head, "scale_xy", 1.0)
    if isinstance(loss, YOLOv3LossConfig):
        if loss.class_loss == "cross_entropy":
            raise UserError(
                "the classes were trained to exclude each other (loss.class_loss: cross_entropy), "
                "and Darknet's [yolo] layers know independent classes only (bce)"
            )
        training = {"jitter": 0.3, "ignore_thresh": loss.ignore_threshold, "truth_thresh": 1}
        scale = {} if scale_xy == 1 else {"scale_x_y": scale_xy}
        return {**training, "random": 1, **scale, **({} if thresh is None else {"thresh": thresh})}
    assert isinstance(loss, YOLOv2LossConfig)
    if scale_xy != 1:
        raise UserError(
            "centres were trained to leave their cells (model.head.scale_xy), and Darknet's "
            "[region] layer does not know that"
        )
    return {
        "bias_match": 1,
        "jitter": 0.3,
        "rescore": int(loss.rescore),
        "object_scale": loss.object_scale,
        "noobject_scale": loss.no_object_scale,
        "class_scale": loss.class_scale,
        "coord_scale": loss.coord_scale,
        "absolute": 1,
        "thresh": loss.ignore_threshold if thresh is None else thresh,
        "random": 1,
    }
