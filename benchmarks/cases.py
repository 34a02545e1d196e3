"""All cases: a new one is one more entry, and a line in scripts/benchmark.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from benchmarks.annotations import lacks_linux, measure_annotations
from benchmarks.coco_metric import measure_coco_metric
from benchmarks.detection import measure_detection
from benchmarks.figures import Case, Result, Settings
from benchmarks.gpu import lacks_gpu, measure_gpu
from benchmarks.loader import lacks_images, measure_loader
from benchmarks.loss import measure_loss
from benchmarks.prediction import lacks_onnx, measure_prediction, measure_suppression
from benchmarks.training import Training, measure_training
from yolo.errors import UserError

TRAININGS = {
    "train-darknet53": Training(
        config="configs/yolov3/darknet53_coco.yaml",
        image_size_px=416,
        images=8,
        speedup_with_amx=3.0,
        peak_gb=4.2,
    ),
    "train-mobilenet": Training(
        config="configs/yolov3/mobilenet_v3_small_coco.yaml", image_size_px=256, images=16
    ),
    "train-tiny": Training(config="configs/quickstart.yaml", image_size_px=256, images=16),
}

CASES = (
    *(
        Case(name=name, measure=partial(measure_training, training))
        for name, training in TRAININGS.items()
    ),
    Case(name="detection", measure=measure_detection),
    Case(name="prediction", measure=measure_prediction, lacks=lacks_onnx),
    Case(name="suppression", measure=measure_suppression),
    Case(name="loss", measure=measure_loss),
    Case(name="loader", measure=measure_loader, lacks=lacks_images),
    Case(name="coco-metric", measure=measure_coco_metric),
    Case(name="annotations-memory", measure=measure_annotations, lacks=lacks_linux),
    Case(name="gpu", measure=measure_gpu, lacks=lacks_gpu),
)


def measure_cases(
    names: Sequence[str], settings: Settings, log: Callable[[str], None]
) -> Iterator[Result]:
    """The figures of one case after the other, each as soon as it is known.

    Args:
        names: of cases; none for all that can run here.
        settings: how to measure.
        log: gets a line for each case that is left out.

    Raises:
        UserError: this machine lacks something for a case that was named, or memory.
    """
    for case in CASES:
        if names and case.name not in names:
            continue
        lack = case.lacks(settings)
        if lack and names:
            raise UserError(f"{case.name}: {lack}")
        if lack:
            log(f"{case.name}: left out, for {lack}")
            continue
        try:
            for figure in case.measure(settings):
                yield Result(case.name, figure)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{case.name}: the memory of the GPU is used up; free some, or measure it with "
                "--gpu cpu"
            ) from error
