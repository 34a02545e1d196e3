"""What the compiled C of AlexeyAB's Darknet adds to the gradient, stored in alexeyab.json.

    git clone https://github.com/AlexeyAB/darknet
    python -m tests.reference.make_alexeyab darknet

The C is not part of this project; ``DRIVER`` only calls it. Of one image of 96 px with two layers
of two anchors each, at strides 16 and 32.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("alexeyab.json")
SIZE_PX, STRIDES_PX, CLASSES = 96, (16, 32), 3
ANCHORS_PX = [[[10, 10], [20, 40]], [[50, 50], [90, 60]]]
TRUTHS = [  # cx, cy, w, h in pixels and class, each in a cell of its own at every stride
    (14.0, 25.0, 11.0, 14.0, 2),
    (40.5, 9.0, 30.0, 40.0, 0),
    (83.0, 50.0, 24.0, 36.0, 1),
    (45.0, 57.0, 70.0, 55.0, 2),
    (75.0, 90.0, 60.0, 80.0, 0),
]
CASES: dict[str, dict[str, float]] = {
    "plain": {},
    "scale_x_y": {"scale_x_y": 1.2},
    "iou_thresh": {"iou_thresh": 0.25},
    "normalizers": {"iou_normalizer": 0.5, "obj_normalizer": 2.0},
    "label_smooth_eps": {"label_smooth_eps": 0.1},
    "all": {"scale_x_y": 2.0, "iou_thresh": 0.4, "iou_normalizer": 0.07, "obj_normalizer": 0.4},
}
DEFAULTS = {
    "scale_x_y": 1.0,
    "iou_thresh": 1.0,
    "iou_normalizer": 1.0,
    "obj_normalizer": 1.0,
    "label_smooth_eps": 0.0,
}
DRIVER = """
#include <float.h>
#include "yolo_layer.h"

int64_t get_current_iteration(network net) { return 0; }  /* of another file */

void deltas(int side, int first, int size, float *anchors, int classes, int count, float *truth,
            float *input, float *delta, float *settings) {
    int mask[2] = {first, first + 1}, zero = 0, i;
    float nothing = 0;
    layer l = make_yolo_layer(1, side, side, 2, 4, mask, classes, count);
    for (i = 0; i < 8; ++i) l.biases[i] = anchors[i];
    l.scale_x_y = settings[0];
    l.iou_thresh = settings[1];
    l.iou_normalizer = settings[2];
    l.obj_normalizer = settings[3];
    l.label_smooth_eps = settings[4];
    l.cls_normalizer = l.truth_thresh = l.ignore_thresh = 1;  /* nothing is ignored */
    l.max_delta = FLT_MAX;
    l.iou_loss = MSE;
    network_state state = {0};
    state.net.w = state.net.h = size;
    state.net.rewritten_bbox = state.net.total_bbox = &zero;
    state.net.delta_rolling_max = state.net.delta_rolling_avg = &nothing;
    state.train = 1;
    state.truth = truth;
    state.input = input;
    forward_yolo_layer(l, state);
    for (i = 0; i < l.outputs; ++i) delta[i] = l.delta[i];
}
"""


def raw_maps() -> list[np.ndarray]:
    """Numbers from -2 to 2 that need not be stored, float32 (1, A, H, W, 5 + K)."""
    maps = []
    for level, stride in enumerate(STRIDES_PX):
        shape = (1, 2, SIZE_PX // stride, SIZE_PX // stride, 5 + CLASSES)
        index = np.arange(np.prod(shape)) + 1000 * level
        maps.append(((index * 7919 + 13) % 2003 / 2003 * 4 - 2).astype(np.float32).reshape(shape))
    return maps


def main() -> None:
    library = ctypes.CDLL(compile_driver(Path(sys.argv[1])), mode=os.RTLD_LAZY)
    found = {name: deltas(library, {**DEFAULTS, **case}) for name, case in CASES.items()}
    lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in found.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compile_driver(darknet: Path) -> str:
    folder = Path(tempfile.mkdtemp())
    (folder / "driver.c").write_text(DRIVER)
    parts = ("yolo_layer", "box", "activations", "blas", "utils")
    sources = [folder / "driver.c", *(darknet / "src" / f"{part}.c" for part in parts)]
    includes = [f"-I{darknet / name}" for name in ("include", "src")]
    stub = "-Wl,--unresolved-symbols=ignore-all"  # what no call reaches
    output = str(folder / "driver.so")
    subprocess.run(
        ["cc", "-O1", "-w", "-fPIC", "-shared", *includes, *sources, stub, "-lm", "-o", output],
        check=True,
    )
    return output


def deltas(library: ctypes.CDLL, settings: dict[str, float]) -> list[list[float]]:
    """Of both layers, in the order of our maps."""
    relative = [(*(v / SIZE_PX for v in box), label, 0) for *box, label in TRUTHS]
    truth = as_floats(relative)
    found = []
    for level, raw in enumerate(raw_maps()):
        side = raw.shape[2]
        theirs = as_floats(raw[0].transpose(0, 3, 1, 2))  # anchor, number, row, column
        delta = np.zeros_like(theirs)
        library.deltas(
            *(side, 2 * level, SIZE_PX),
            *(pointer(as_floats(ANCHORS_PX)), CLASSES, len(TRUTHS), pointer(truth)),
            *(pointer(theirs), pointer(delta), pointer(as_floats(list(settings.values())))),
        )
        ours = delta.reshape(2, 5 + CLASSES, side, side).transpose(0, 2, 3, 1)
        found.append([float(f"{value:.7g}") for value in ours.flatten()])
    return found


def as_floats(values: object) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).flatten()


def pointer(values: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)


if __name__ == "__main__":
    main()
