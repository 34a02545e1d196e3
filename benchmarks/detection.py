"""Detection: the network alone, and with decoding and suppression, for every model."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.figures import Figure, Settings
from benchmarks.timing import take_turns, wait_for
from benchmarks.training import CLASSES, random_batch
from yolo.config import REPOSITORY_ROOT, Config, load_config
from yolo.factory.detector import build_coder, build_detector, build_postprocess
from yolo.train.distributed import keep_freed_memory
from yolo.train.precision import choose_precision

CONFIGS = (
    "quickstart",
    "yolov3/yolov3_tiny_coco",
    "yolov3/mobilenet_v3_small_coco",
    "yolov3/mobilenet_v3_large_coco",
    "yolov3/resnet18_coco",
    "yolov3/resnet50_coco",
    "yolov3/resnet101_coco",
    "yolov3/darknet53_coco",
    "yolov3/yolov3_spp_coco",
    "yolov2/darknet19_voc",
    "yolov2/resnet18_voc",
    "yolov2/resnet101_voc",
    "yolov1/darknet_voc",
    "yolov1/resnet18_voc",
    "yolov1/resnet50_voc",
)
"""A config for each model, from the folder ``configs``."""

PASSING = 1000
"""Boxes of an image that reach the suppression, as far as the model has so many."""

IMAGES, GPU_IMAGES = 4, 64


def measure_detection(settings: Settings) -> Iterator[Figure]:
    """Images per second in the precision that ``auto`` chooses, weights being random."""
    if settings.device.type == "cpu":
        keep_freed_memory()
    for name in CONFIGS[:1] if settings.tiny else CONFIGS:
        overrides = ["model.encoder.weights=null"]
        config = load_config(REPOSITORY_ROOT / "configs" / f"{name}.yaml", overrides).config
        yield from measure_network(name, config, settings)
        gc.collect()


def measure_network(name: str, config: Config, settings: Settings) -> Iterator[Figure]:
    """Of one model, whose name begins the figures' names."""
    size_px = 64 if settings.tiny else config.data.image_size
    images = 2 if settings.tiny else GPU_IMAGES if settings.device.type == "cuda" else IMAGES
    pixels = random_batch(images, size_px).images.to(settings.device)
    detector = build_detector(config, CLASSES).to(settings.device).eval()
    precision = choose_precision(
        config.training.precision,
        model=detector,
        device=settings.device,
        images=images,
        size_px=size_px,
    )
    detector.eval()
    coder = build_coder(config).to(settings.device)

    @torch.inference_mode()
    def network() -> list[Tensor]:
        with precision.autocast(settings.device):
            raw = detector(pixels)
        wait_for(settings.device)
        return raw

    postprocess = build_postprocess(config, conf=_conf_that_lets_pass(coder, network()))

    @torch.inference_mode()
    def network_and_boxes() -> None:
        for found in postprocess(*coder(network())):
            found.to("cpu")

    work = {"network": network, "with decoding and NMS": network_and_boxes}
    seconds = take_turns(work, rounds=settings.rounds)
    for what in work:
        label = f"{name}, {size_px} px, batch {images}, {precision.name}: {what}"
        yield Figure(label, images / seconds.median(what), "images/s")


def _conf_that_lets_pass(coder: torch.nn.Module, raw: Sequence[Tensor]) -> float:
    """The confidence that `PASSING` boxes of an average image reach."""
    with torch.inference_mode():
        _, scores = coder(raw)  # (B, N, K)
    best = scores.max(dim=2).values  # (B, N)
    count = min(PASSING, best.shape[1]) * best.shape[0]
    return max(0.0, float(best.flatten().topk(count).values[-1]))
