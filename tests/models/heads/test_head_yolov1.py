import numpy as np
import pytest
import torch

from tests.reference.yolov1 import Layer, to_darknet
from yolo.errors import UserError
from yolo.models.heads.yolov1 import YOLOv1Head

CELLS, BOXES, CLASSES = 3, 2, 4
NUMBERS = CELLS * CELLS * (BOXES * 5 + CLASSES)


def make_head(**settings):
    settings = {"cells": CELLS, "boxes": BOXES, "classes": CLASSES, **settings}
    return YOLOv1Head(in_channels=(8,), **settings)


@pytest.mark.parametrize("end", ["local", "connected"])
def test_rows_of_the_last_layer_stand_in_darknets_order(end):
    """With the row's index as its output, the map put into Darknet's order counts up."""
    head = make_head(end=end).eval()
    torch.nn.init.zeros_(head.output.weight)
    head.output.bias.data = torch.arange(float(NUMBERS))
    (raw,) = head((torch.randn(2, 8, CELLS, CELLS),))
    assert raw.shape == (2, CELLS, CELLS, BOXES * 5 + CLASSES)
    flat = to_darknet(raw.detach().numpy(), Layer(CELLS, BOXES, CLASSES))
    assert np.array_equal(flat, np.tile(np.arange(NUMBERS), (2, 1)))
    # cell (row 1, column 2) is the sixth: after 36 classes and 18 confidences, its second box
    assert raw[0, 1, 2, 5:10].tolist() == [98, 99, 100, 101, 36 + 11]
    assert raw[0, 1, 2, 10:].tolist() == [20, 21, 22, 23]


def test_layers_are_those_of_the_cfg_and_of_the_paper():
    local, connected = make_head(end="local"), make_head(end="connected")
    hidden = local.hidden[0]
    assert hidden.weight.shape == (9, 256, 8 * 9) and hidden.bias.shape == (256 * 9,)
    assert local.output.weight.shape == (NUMBERS, 256 * 9)
    assert connected.hidden[1].weight.shape == (4096, 8 * 9)
    assert connected.output.weight.shape == (NUMBERS, 4096)
    assert all(head.hidden[i].negative_slope == 0.1 for head, i in ((local, 1), (connected, 2)))


@pytest.mark.parametrize("end", ["local", "connected"])
def test_training_starts_from_one_guess(end):
    head = make_head(end=end).eval()
    (raw,) = head((torch.randn(4, 8, CELLS, CELLS),))
    boxes = raw[..., : BOXES * 5].unflatten(-1, (BOXES, 5))
    assert (boxes[..., :4] - 0.5).abs().max() < 0.2 and boxes[..., 4].abs().max() < 0.2
    assert raw[..., BOXES * 5 :].abs().max() < 0.2
    assert raw.std(dim=0).mean() > 0.003, "the map decides"


def test_dropout_is_before_the_last_layer_and_in_training_alone():
    head = make_head(dropout=0.5)
    x = (torch.randn(1, 8, CELLS, CELLS),)
    seen = []
    head.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(x)
    assert 0.4 < (seen[0] == 0).float().mean() < 0.6
    head.eval()
    assert torch.equal(head(x)[0], head(x)[0])
    assert (seen[-1] != 0).all()


@pytest.mark.parametrize("shape", [(CELLS + 1, CELLS + 1), (CELLS, CELLS - 1)])
def test_another_size_is_refused(shape):
    with pytest.raises(UserError, match=r"built for 192 x 192 px alone \(3 x 3 cells\)"):
        make_head()((torch.randn(1, 8, *shape),))
