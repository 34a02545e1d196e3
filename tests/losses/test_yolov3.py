"""The YOLOv3 loss against Darknet's deltas, written here as Darknet writes them: in loops."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from yolo.coders.anchor import AnchorCoder
from yolo.losses.yolov3 import YOLOv3Loss
from yolo.records import Targets

ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]
STRIDES = (8, 16, 32)
SIZE, CLASSES = 96, 4


def coder(**kwargs):
    return AnchorCoder(anchors_px=ANCHORS, stride_px=STRIDES, **kwargs)


def make_targets(rows):
    """rows: (image, cx, cy, w, h, label, ignored), sorted by image."""
    rows = [(*row, False)[:7] for row in rows]
    images = [row[0] for row in rows]
    return Targets(
        boxes_cxcywh_norm=torch.tensor([row[1:5] for row in rows]).reshape(-1, 4).float(),
        labels=torch.tensor([row[5] for row in rows], dtype=torch.int64),
        image_index=torch.tensor(images, dtype=torch.int64),
        ignored=torch.tensor([row[6] for row in rows], dtype=torch.bool),
        max_per_image=max((images.count(i) for i in images), default=0),
    )


def random_targets(images, count, generator):
    rows = []
    for image in range(images):
        for _ in range(count):
            cx, cy = generator.uniform(0.05, 0.95, 2)
            w, h = np.exp(generator.uniform(math.log(0.06), math.log(1.0), 2))
            rows.append((image, cx, cy, w, h, int(generator.integers(CLASSES))))
    return make_targets(rows)


def random_raw(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, 3, SIZE // s, SIZE // s, 5 + CLASSES, generator=generator)
        .double()
        .float()
        .requires_grad_()
        for s in STRIDES
    ]


def iou(a, b):
    """Of (cx, cy, w, h) boxes."""
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter), inter / (a[2] * a[3])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def darknet_delta(raw, targets, ignore_threshold):
    """forward_yolo_layer's delta: first every cell's objectness, then truth after truth."""
    maps = [r.detach().double().numpy() for r in raw]
    delta = [np.zeros_like(m) for m in maps]
    truths = [
        (int(i), [float(v) for v in box], int(label), bool(ignored))
        for i, box, label, ignored in zip(
            targets.image_index,
            targets.boxes_cxcywh_norm.double(),
            targets.labels,
            targets.ignored,
            strict=True,
        )
    ]
    for level, m in enumerate(maps):
        images, anchors, height, width, _ = m.shape
        for b, a, j, i in np.ndindex(images, anchors, height, width):
            t = m[b, a, j, i]
            pred = (
                (i + sigmoid(t[0])) / width,
                (j + sigmoid(t[1])) / height,
                math.exp(t[2]) * ANCHORS[level][a][0] / SIZE,
                math.exp(t[3]) * ANCHORS[level][a][1] / SIZE,
            )
            excused = False
            for image, box, _, ignored in truths:
                if image != b:
                    continue
                overlap, inside = iou(pred, box)
                excused |= inside > 0.5 if ignored else overlap > ignore_threshold
            delta[level][b, a, j, i, 4] = 0 if excused else 0 - sigmoid(t[4])
    owned = set()
    for b, box, label, ignored in truths:
        if ignored:
            continue
        fits = [
            iou((0, 0, box[2], box[3]), (0, 0, aw / SIZE, ah / SIZE))[0]
            for row in ANCHORS
            for aw, ah in row
        ]
        level, a = divmod(int(np.argmax(fits)), 3)
        height, width = maps[level].shape[2:4]
        i, j = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
        t, d = maps[level][b, a, j, i], delta[level][b, a, j, i]
        scale = 2 - box[2] * box[3]
        d[0] = scale * (box[0] * width - i - sigmoid(t[0]))
        d[1] = scale * (box[1] * height - j - sigmoid(t[1]))
        d[2] = scale * (math.log(box[2] * SIZE / ANCHORS[level][a][0]) - t[2])
        d[3] = scale * (math.log(box[3] * SIZE / ANCHORS[level][a][1]) - t[3])
        d[4] = 1 - sigmoid(t[4])
        if (level, b, a, j, i) in owned:  # delta_yolo_class: only this class is set to 1
            d[5 + label] = 1 - sigmoid(t[5 + label])
        else:
            for k in range(CLASSES):
                d[5 + k] = (1.0 if k == label else 0.0) - sigmoid(t[5 + k])
        owned.add((level, b, a, j, i))
    return delta


CASES = {
    "random": random_targets(3, 5, np.random.default_rng(1)),
    "shared anchor, two labels": make_targets(
        [(0, 0.5, 0.5, 0.30, 0.30, 1), (0, 0.52, 0.52, 0.31, 0.29, 3), (2, 0.2, 0.8, 0.9, 0.9, 0)]
    ),
    "ignored regions": make_targets(
        [(0, 0.5, 0.5, 0.8, 0.8, 1, True), (0, 0.4, 0.5, 0.3, 0.3, 2), (1, 0.5, 0.5, 1, 1, 0, True)]
    ),
    "no truth": make_targets([]),
    "centre on the far border": make_targets([(1, 1.0, 1.0, 0.2, 0.2, 2)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ignore_threshold", [0.3, 0.7])
def test_gradient_is_darknets_delta(case, ignore_threshold):
    raw, targets = random_raw(3), CASES[case]
    loss = YOLOv3Loss(coder=coder(), ignore_threshold=ignore_threshold)
    sum(loss(raw, targets, images_in_step=12).values()).backward()
    for ours, delta in zip(raw, darknet_delta(raw, targets, ignore_threshold), strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), -delta / 12, atol=2e-6)


def test_terms_add_up_over_micro_batches():
    targets = CASES["random"]
    raw = random_raw(3)
    loss = YOLOv3Loss(coder=coder())
    whole = loss(raw, targets, 3)
    for name in ("xy", "wh", "object", "no_object", "class"):
        parts = 0
        for image in range(3):
            mine = targets.image_index == image
            part = Targets(
                targets.boxes_cxcywh_norm[mine],
                targets.labels[mine],
                torch.zeros(int(mine.sum()), dtype=torch.int64),
                targets.ignored[mine],
                int(mine.sum()),
            )
            parts += loss([r[image : image + 1] for r in raw], part, 3)[name]
        assert whole[name].item() > 0
        torch.testing.assert_close(parts, whole[name])


@pytest.mark.parametrize("class_loss", ["bce", "cross_entropy"])
def test_finite_for_any_finite_float16(class_loss):
    generator = np.random.default_rng(2)
    targets = random_targets(2, 4, generator)
    values = np.array([0, 6e-8, 1, -1, 300, -300, 65504, -65504], np.float16)
    raw = [
        torch.from_numpy(
            generator.choice(values, (2, 3, SIZE // s, SIZE // s, 5 + CLASSES))
        ).requires_grad_()
        for s in STRIDES
    ]
    terms = YOLOv3Loss(coder=coder(), class_loss=class_loss)(raw, targets, 2)
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(r.grad.float().nan_to_num(posinf=0, neginf=0).isfinite().all() for r in raw)
    assert not any(r.grad.isnan().any() for r in raw)


def test_class_weights_scale_their_class_alone():
    targets = make_targets([(0, 0.5, 0.5, 0.3, 0.3, 1)])
    raw = random_raw(1)
    plain = YOLOv3Loss(coder=coder(), class_loss="cross_entropy")(raw, targets, 1)
    weights = [1.0, 2.5, 1.0, 1.0]
    heavy = YOLOv3Loss(coder=coder(), class_loss="cross_entropy", class_weights=weights)(
        raw, targets, 1
    )
    torch.testing.assert_close(heavy["class"], plain["class"] * 2.5)
    torch.testing.assert_close(heavy["object"], plain["object"])


class NoHostData(TorchDispatchMode):
    """Fails where an operation mixes in a host tensor: its copy would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.ndim:
                raise AssertionError(f"{func} reads a host tensor")
        return func(*args, **(kwargs or {}))


def test_never_waits_for_the_device():
    """On a pretended GPU: a value read on the host (.item(), boolean indexing) raises there."""
    with FakeTensorMode():
        loss = YOLOv3Loss(coder=coder()).to("cuda")
        raw = [torch.randn(2, 3, SIZE // s, SIZE // s, 9, device="cuda") for s in STRIDES]
        targets = Targets(
            torch.rand(6, 4, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.int64, device="cuda"),
            torch.zeros(6, dtype=torch.bool, device="cuda"),
            max_per_image=6,
        )
        with NoHostData():
            terms = loss(raw, targets, 2)
        assert all(term.device.type == "cuda" for term in terms.values())
        with pytest.raises(Exception, match="nonzero"):
            raw[0][raw[0] > 0].sum()
