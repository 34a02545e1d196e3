"""Up to twenty seeded losses of every generation and encoder.

``python -m tests.golden.make`` stores those that losses.json has not, such as a new encoder's; what
is stored stays until it is deleted there, and only what is stored is compared: the losses before
the training multiplies differences so much that machines, which round differently, disagree.
The images and boxes are made here, so that no change of the data's side moves these numbers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tests.detectors import make_config
from yolo.factory.detector import build_coder, build_detector, build_loss
from yolo.models.encoders import ENCODERS
from yolo.records import Targets
from yolo.train.optimizers import sgd

PATH = Path(__file__).with_name("losses.json")
STEPS, IMAGES, BOXES, SIZE_PX = 20, 2, 3, 64
LEARNING_RATE = 1e-4
RELATIVE = 1e-4  # may differ between machines; on one machine two runs are equal to the bit
NUDGE = 1e-7
"""A change of all boxes that stands for the rounding of another machine: of float32, which boxes
are in."""
NAMES = ["circle", "square", "triangle", "star"]
GENERATIONS = ("yolov1", "yolov2", "yolov3", "yolov3_tiny", "yolov3_spp")
NECK_WIDTH = 0.125
"""Of the paper's channels: most of the time goes to the encoders."""


def losses(name: str, *, nudge: float = 0.0) -> list[float]:
    """The loss before each of the steps, of a float64 network on one thread."""
    generation, encoder = name.split("/")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_train(generation, encoder, nudge))
    finally:
        torch.set_num_threads(threads)


def comparable(found: list[float], nudged: list[float]) -> list[float]:
    """The first losses, those that the nudge moves by less than a tenth of what may differ."""
    near = (abs(a - b) <= RELATIVE / 10 * abs(a) for a, b in zip(found, nudged, strict=True))
    return [loss for loss, _ in zip(found, itertools.takewhile(bool, near), strict=False)]


def find_difference(name: str, found: list[float]) -> str | None:
    """The first loss that is not the stored one, in words; None where all are."""
    for step, before in enumerate(json.loads(PATH.read_text())[name]):
        if not abs(found[step] - before) <= RELATIVE * abs(before):
            return f"{name}, step {step}: {found[step]} is not {before} of tests/golden/losses.json"
    return None


def _train(generation: str, encoder: str, nudge: float) -> Iterator[float]:
    head = {"dropout": 0.0} if generation == "yolov1" else {}
    config = make_config(encoder, generation, neck_width=NECK_WIDTH, head=head, image_size=SIZE_PX)
    # in float64: batch norm over so few values multiplies what rounding differs in, a thousandfold
    # and more in twenty steps, and no two kinds of CPU round alike
    model = build_detector(config, NAMES).train().double()
    loss = build_loss(config, build_coder(config), NAMES)
    optimizer = sgd(model, learning_rate=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    for step in range(STEPS):
        images, targets = batch(step, nudge)
        terms = loss(model(images), targets, IMAGES, images_seen=step * IMAGES)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        yield total.item()


def batch(step: int, nudge: float = 0.0) -> tuple[Tensor, Targets]:
    """Random pixels and boxes of one step; half of the steps come again, as in an epoch."""
    generator = torch.Generator().manual_seed(step % (STEPS // 2))
    shape = (IMAGES, 3, SIZE_PX, SIZE_PX)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    count = IMAGES * BOXES
    boxes = torch.rand(count, 4, generator=generator)
    boxes[:, :2] = 0.2 + 0.6 * boxes[:, :2]
    boxes[:, 2:] = 0.1 + 0.3 * boxes[:, 2:]
    targets = Targets(
        boxes_cxcywh_norm=boxes * (1 + nudge),
        labels=torch.randint(len(NAMES), (count,), generator=generator),
        image_index=torch.arange(IMAGES).repeat_interleave(BOXES),
        ignored=torch.zeros(count, dtype=torch.bool),
        max_per_image=BOXES,
    )
    return images.contiguous(memory_format=torch.channels_last), targets


def main() -> None:
    """Add what is not in the file yet; a line for each run, so that a change shows which ones."""
    stored = json.loads(PATH.read_text()) if PATH.exists() else {}
    names = [f"{generation}/{encoder}" for generation in GENERATIONS for encoder in ENCODERS]
    found = {
        name: stored.get(name) or comparable(losses(name), losses(name, nudge=NUDGE))
        for name in names
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in found.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
