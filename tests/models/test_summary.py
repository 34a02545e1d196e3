import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.detectors import make_detector
from yolo.models.necks import NECKS
from yolo.models.summary import dry_run, summarise


def kept_for_backward(model, images):
    """Bytes per image that a real forward pass leaves for the backward pass."""
    weights = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(images)
    del output
    return sum(kept.values()) // len(images)


@pytest.mark.parametrize(
    ("name", "neck", "head"),
    [
        ("darknet_tiny", "yolov3", {}),
        ("mobilenet_v3_small", "yolov3", {}),
        ("mobilenet_v3_small", "yolov3", {"decoupled": True}),
        ("resnet18", "yolov2", {}),
        ("darknet_tiny", "yolov1", {}),
    ],
)
def test_totals_against_torchs_own_counts(name, neck, head):
    size_px = 128
    model = make_detector(name, neck, head=head, image_size=size_px)
    summary = dry_run(model, size_px)
    total = sum(p.numel() for p in model.parameters())
    assert summary.parameters == summary.trainable == total
    assert sum(row.parameters for row in summary.rows) == total
    images = torch.zeros(2, 3, size_px, size_px, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        kept = kept_for_backward(model, images)
    assert summary.multiply_adds * 2 * len(images) == counter.get_total_flops()
    assert summary.activation_bytes == kept


def test_darknet53_works_as_hard_as_darknet_says():
    model = make_detector("darknet53", classes=80, neck_width="paper")
    billions = 2 * dry_run(model, 416).multiply_adds / 1e9
    assert abs(billions - 65.86) < 0.05  # what Darknet prints for yolov3.cfg at 416, and its site


def test_the_model_stays_as_it_was():
    model = make_detector("darknet_tiny", width=0.25)
    model.encoder.eval()
    before = copy.deepcopy(model.state_dict())
    summarise(model, 64)
    assert not model.encoder.training and model.neck.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())


def test_the_table_shows_each_layer_on_one_line():
    model = make_detector("darknet_tiny", width=0.5)
    model.encoder.requires_grad_(False)
    lines = summarise(model, 416).splitlines()
    stem = next(line.split() for line in lines if line.startswith("encoder.convs.1 "))
    assert stem == [
        "encoder.convs.1", "ConvBlock", "3x3/1", "8x208x208", "16x208x208",
        "1,184", "no", "49,840,128",
    ]  # fmt: skip
    assert any(line.split()[-2:] == ["yes", "11,075,584"] for line in lines)
    assert max(map(len, lines)) <= 140
    frozen = sum(p.numel() for p in model.encoder.parameters())
    assert any(f"{frozen:,} frozen" in line for line in lines)


@pytest.mark.parametrize("neck", NECKS)
def test_every_generation_has_a_table(neck):
    lines = summarise(make_detector("darknet_tiny", neck), 64).splitlines()
    assert any(line.startswith("head.") for line in lines)


def test_totals_name_what_a_file_of_darknet_holds():
    text = summarise(
        make_detector("darknet_tiny", "yolov3_tiny", classes=80, neck_width="paper"), 416
    )
    assert "8,852,366 (" in text and "8,858,734 numbers" in text  # yolov3-tiny.weights


def test_the_widest_table_fits_140_columns():
    model = make_detector("mobilenet_v3_large", classes=80, neck_width="paper")
    assert max(map(len, summarise(model, 608).splitlines())) <= 140
