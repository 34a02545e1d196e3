"""Data sets that changed between a run's end and its --resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

import main as training
from tests.faults.tiny import check_told, command_of, last_lines, reference, resume, run_to_end
from tests.faults.trial import Property

PROPERTY = "17 Changed data"

Coco = dict[str, Any]


def _remove_image(coco: Coco, folder: Path) -> None:
    number = coco["images"].pop()["id"]
    coco["annotations"] = [each for each in coco["annotations"] if each["image_id"] != number]


def _remove_box(coco: Coco, folder: Path) -> None:
    coco["annotations"].pop(0)


def _move_box(coco: Coco, folder: Path) -> None:
    coco["annotations"][0]["bbox"][2] /= 2


def _change_label(coco: Coco, folder: Path) -> None:
    first, numbers = coco["annotations"][0], [each["id"] for each in coco["categories"]]
    first["category_id"] = next(number for number in numbers if number != first["category_id"])


def _reverse(coco: Coco, folder: Path) -> None:
    coco["images"].reverse()


def _replace_pixels(coco: Coco, folder: Path) -> None:
    path = folder / coco["images"][0]["file_name"]
    with Image.open(path) as image:
        turned = image.rotate(180)
    turned.save(path, quality=50)


CHANGES: dict[Callable[[Coco, Path], None], str] = {
    _remove_image: " images -> ",
    _remove_box: " boxes -> ",
    _move_box: "other boxes or labels",
    _change_label: "other boxes or labels",
    _reverse: "other ids, image sizes or order",
    _replace_pixels: "image files of other sizes in bytes",
}
"""What is done to a data set, and what is told of it."""


def changed_before_a_resume(seed: int, folder: Path) -> None:
    """Images, boxes, labels, order or pixels that changed before --resume, of training or
    validation: told and refused, unless asked for.
    """
    change, told = [*CHANGES.items()][seed % len(CHANGES)]
    changed = "val" if seed // len(CHANGES) % 2 else "train"
    reference(folder)  # which draws the images
    run, sections = folder / "logs" / "run", []
    for split, name in (("train", "train-7-0"), ("val", "val-4-0")):
        path = shutil.copytree(folder.parent / "shared" / "shapes" / name, folder / split)
        places = f"annotations: {path / 'instances.json'}, images: {path}"
        sections.append(f"data.{split}={{type: coco, {places}}}")

    def check_end(code: int, name: str, work: Callable[[], int]) -> Path:
        run_to_end(work, output := folder / f"{name}.txt", code, what=name)
        return output

    drawn = ("data.train.", "data.val.")
    own = [each for each in command_of(run, folder) if not each.startswith(drawn)]
    check_end(0, "begun", lambda: training.main([*own, *sections, "training.steps=2"]))
    check_end(0, "same", lambda: resume(run, "training.steps=3"))
    path = folder / changed / "instances.json"
    coco = json.loads(path.read_text())
    change(coco, folder / changed)
    path.write_text(json.dumps(coco))
    accept = "--accept-changed-data"
    output = check_end(1, "refused", lambda: resume(run, "training.steps=4"))
    check_told(output, f"data.{changed} is not what", told, accept)
    output = check_end(0, "accepted", lambda: resume(run, "training.steps=4", accept))
    assert "going on with it" in output.read_text(), last_lines(output)
    check_end(0, "known", lambda: resume(run, "training.steps=5"))


TRIALS = [
    Property(changed_before_a_resume, full=2 * len(CHANGES), quick=2, limit_s=120),
]
