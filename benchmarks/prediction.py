"""Prediction: one image after the other, and the suppression of many boxes alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.figures import Figure, Goal, Settings
from benchmarks.timing import take_turns
from benchmarks.training import CLASSES, make_contiguous, random_batch
from yolo.apps.export.graph import ExportGraph, trace_onnx, write_onnx
from yolo.apps.predict.predictor import TrainedNetwork
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.detection.postprocess import Labels, Postprocess
from yolo.evaluate.exported import ExportedModel, ExportMetadata
from yolo.factory.detector import build_coder, build_detector, build_postprocess
from yolo.letterbox import FILL_COLOUR_RGB
from yolo.models.detector import Detector
from yolo.records import Detections
from yolo.train.distributed import keep_freed_memory

CONFIG = REPOSITORY_ROOT / "configs" / "yolov3" / "darknet53_coco.yaml"
CONF = 0.25
SPEEDUP = Goal("at least", 2.5)

BOXES, PASSING = 10_647, 1_000
"""Of YOLOv3 at 416 px, and how many of an image pass the threshold."""

SUPPRESSION_MS = Goal("at most", 100)
ALL_CLASSES = Goal("at most", 1.2)


def lacks_onnx(settings: Settings) -> str | None:
    """What the machine lacks to measure the exported file beside."""
    del settings
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return "ONNX or ONNX Runtime is not installed; pip install -e '.[export]'"
    return None


def measure_prediction(settings: Settings) -> Iterator[Figure]:
    """Darknet-53 YOLOv3, one image at a time, decoding and suppression included."""
    if settings.device.type == "cpu":
        keep_freed_memory()
    size_px = 64 if settings.tiny else 416
    config = load_config(CONFIG, ["model.encoder.weights=null"]).config
    detector = build_detector(config, CLASSES).eval()
    image = random_batch(1, size_px).images
    postprocess = build_postprocess(config, conf=CONF)
    auto = TrainedNetwork(detector, build_coder(config), device=settings.device, size_px=size_px)
    plain = _Plain(config, detector, settings.device)
    work = {
        "unfused": lambda: plain(image, postprocess),
        "auto": lambda: auto.detect(image, postprocess),
    }
    with tempfile.TemporaryDirectory() as folder:
        exported = _export(config, detector, size_px, Path(folder))
        work["onnx"] = lambda: exported.detect(image)
        seconds = take_turns(work, rounds=settings.rounds)
    labels = {
        "unfused": "unfused, fp32, contiguous",
        "auto": f"Predictor's network: fused, channels last, {auto.precision.name}",
        "onnx": "ONNX Runtime, fp32",
    }
    for name, label in labels.items():
        yield Figure(f"{label}, {size_px} px, batch 1", seconds.median(name) * 1000, "ms")
    goal = None if settings.tiny else SPEEDUP
    yield Figure("auto over unfused", seconds.speedup("auto", over="unfused"), "times", goal)
    yield Figure("ONNX Runtime over unfused", seconds.speedup("onnx", over="unfused"), "times")


class _Plain:
    """The network as PyTorch runs it when nobody cares."""

    def __init__(self, config: Config, detector: Detector, device: torch.device) -> None:
        detector = build_detector(config, CLASSES).to(device).eval()
        self._detector, self._device = make_contiguous(detector), device
        self._coder = build_coder(config).to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, postprocess: Postprocess) -> list[Detections]:
        raw = self._detector(images.to(self._device))
        return [found.to("cpu") for found in postprocess(*self._coder(raw))]


def _export(config: Config, detector: Detector, size_px: int, folder: Path) -> ExportedModel:
    metadata = ExportMetadata(
        class_names=tuple(CLASSES),
        category_ids=tuple(range(len(CLASSES))),
        image_size_px=size_px,
        fill_colour_rgb=FILL_COLOUR_RGB,
        **asdict(build_postprocess(config, conf=CONF)),
        generation=config.model.head.type,
        config={},
        step=0,
        precision="fp32",
        dynamic_size=False,
        nms=False,
    )
    graph = ExportGraph(detector, build_coder(config), half=False)
    write_onnx(folder / "model.onnx", trace_onnx(graph, metadata), metadata)
    return ExportedModel.open(folder / "model.onnx")


def measure_suppression(settings: Settings) -> Iterator[Figure]:
    """Threshold and suppression of 8 images whose boxes all compete."""
    images, boxes = (2, 100) if settings.tiny else (8, BOXES)
    passing = min(PASSING, boxes)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(images, boxes, 2, generator=generator) * 400
    sizes = torch.rand(images, boxes, 2, generator=generator) * 100 + 10
    boxes_px = torch.cat((corners, corners + sizes), dim=2).to(settings.device)
    scores = torch.rand(images, boxes, len(CLASSES), generator=generator) * 0.2
    scores[:, :passing, 0] += 0.5
    scores = scores.to(settings.device)

    def work(postprocess: Postprocess) -> Callable[[], object]:
        return lambda: [found.to("cpu") for found in postprocess(boxes_px, scores)]

    modes: tuple[Labels, ...] = ("best_class", "all_classes")
    contestants = {mode: work(Postprocess(conf=0.5, iou=0.45, labels=mode)) for mode in modes}
    seconds = take_turns(contestants, rounds=settings.rounds)
    label = f"{images} images x {boxes:,} boxes x {len(CLASSES)} classes, {passing:,} pass"
    goal = None if settings.tiny else SUPPRESSION_MS
    yield Figure(label, seconds.median("best_class") * 1000, "ms", goal)
    ratio, goal = seconds.speedup("best_class", over="all_classes"), goal and ALL_CLASSES
    yield Figure("every class of a box over its best", ratio, "times", goal)
