import torch

from yolo.models.heads.anchors import OBJECTNESS, YOLOv2Head


def test_channels_hold_one_anchor_after_the_other_without_a_copy():
    head = YOLOv2Head(in_channels=(8,), anchors_per_cell=5, classes=2)
    x = torch.randn(2, 8, 3, 4).to(memory_format=torch.channels_last)
    (raw,) = head((x,))
    channels = head.output(x)
    assert raw.shape == (2, 5, 3, 4, 7)
    assert torch.equal(raw[1, 3, 2, 1], channels[1, 21:28, 2, 1])
    assert raw.stride()[-1] == 1, "a view of channels-last memory"


def test_training_starts_at_the_anchors_with_few_objects():
    head = YOLOv2Head(in_channels=(64,), anchors_per_cell=5, classes=2)
    (raw,) = head((torch.randn(2, 64, 8, 8),))
    objectness = raw[..., OBJECTNESS].sigmoid()
    assert objectness.min() > 0.05 and objectness.max() < 0.2
    assert raw[..., :OBJECTNESS].abs().max() < 0.6
