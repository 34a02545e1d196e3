"""Writes what a later version has to understand: a data set with its cache, a run, its losses.

    python path/to/tests/old_runs/make.py FOLDER

Run it in a checkout of the version whose files are to be kept; FOLDER then goes beside this script
as ``<commit>/``. The run is taken at the middle of its training, ``losses.json`` tells how that
version itself went on.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path.cwd()))

import main as training

HALF, WHOLE = 4, 8
IMAGES, SIZE_PX = 5, 64
ANCHORS = [[13, 13], [17, 17], [21, 21], [27, 27], [37, 37], [50, 50]]
NAMES = ["disc", "square"]


def draw_data(folder: Path) -> None:
    """Text labels beside PNG files, one object in each."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        image = np.full((SIZE_PX, SIZE_PX, 3), 40 * index, np.uint8)
        x, y, half = (int(value) for value in generator.integers([20, 20, 8], [44, 44, 18]))
        label = index % len(NAMES)
        if label == 0:
            cv2.circle(image, (x, y), half, (0, 0, 255), -1)
        else:
            cv2.rectangle(image, (x - half, y - half), (x + half, y + half), (0, 255, 0), -1)
        cv2.imwrite(str(folder / f"{index}.png"), image)
        sizes = " ".join(f"{value / SIZE_PX:.6f}" for value in (x, y, 2 * half, 2 * half))
        (folder / f"{index}.txt").write_text(f"{label} {sizes}\n")


def overrides(folder: Path) -> list[str]:
    """The quickstart, made small, on the drawn data."""
    data = json.dumps(
        {"type": "yolo_text", "images": str(folder / "data"), "labels": str(folder / "data")}
    )
    return [
        f"data.train={data}",
        f"data.val={data}",
        "data.test=null",
        f"data.class_names={json.dumps(NAMES)}",
        f"data.image_size={SIZE_PX}",
        "data.workers=0",
        "data.mosaic={p: 0.5}",
        "data.cache=disk",
        "model.encoder.width=0.02",
        "model.neck={type: yolov3_tiny, width: 0.02}",
        f"model.head={json.dumps({'type': 'yolov3_tiny', 'anchors': ANCHORS})}",
        "training.batch_size=4",
        "training.micro_batch_size=2",
        "training.precision=fp32",
        "training.schedule.warmup_steps=2",
        f"training.steps={WHOLE}",
        f"training.checkpoint_every={HALF}",
        f"evaluation.every={HALF}",
        "evaluation.batch_size=2",
        "evaluation.pictures=0",
        "logging.every=1",
        f"logging.directory={folder}",
    ]


def main() -> None:
    """Train to the end, keep the folder as it was half way."""
    folder = Path(sys.argv[1]).resolve()
    draw_data(folder / "data")
    start = ["--gpu", "cpu", "--name", "run", *overrides(folder)]
    cache = Path.cwd() / "data" / "cache"
    before = set(cache.rglob("*"))
    assert training.main(start) == 0
    for path in sorted(set(cache.rglob("*")) - before):
        if path.suffix in (".npz", ".pixels"):
            (folder / "cache").mkdir(exist_ok=True)
            shutil.copy(path, folder / "cache")
    whole = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    shutil.rmtree(folder / "run")
    assert training.main([*start, f"training.steps={HALF}"]) == 0
    losses = {row["step"]: row["loss"] for row in whole if row["phase"] == "training"}
    (folder / "losses.json").write_text(json.dumps(losses) + "\n")


if __name__ == "__main__":
    main()
