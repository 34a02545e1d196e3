"""Heads: where each number stands, and where training starts."""

import numpy as np
import pytest
import torch

from tests.reference.yolov1 import Layer, to_darknet
from yolo.errors import UserError
from yolo.models.heads import OBJECTNESS, LocallyConnected, YOLOv1Head, YOLOv2Head, YOLOv3Head

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


def naive(layer, x):
    """The dot product of every window with the weights of its place, in the stored order."""
    images, channels, cells, _ = x.shape
    size, padding = layer.kernel_size, layer.kernel_size // 2
    weight = layer.weight.view(cells, cells, layer.out_channels, channels, size, size)
    bias = layer.bias.view(layer.out_channels, cells, cells)
    out = torch.zeros(images, layer.out_channels, cells, cells, dtype=x.dtype)
    for row in range(cells):
        for column in range(cells):
            out[:, :, row, column] = bias[:, row, column]
            for i in range(size):
                for j in range(size):
                    r, c = row + i - padding, column + j - padding
                    if 0 <= r < cells and 0 <= c < cells:
                        shared = weight[row, column, :, :, i, j]  # (out, in)
                        out[:, :, row, column] += x[:, :, r, c] @ shared.T
    return out


def test_against_a_naive_loop_forward_and_backward():
    layer = LocallyConnected(5, 6, cells=4).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    leaves = (x, layer.weight, layer.bias)
    ours, expected = layer(x), naive(layer, x)
    torch.testing.assert_close(ours, expected)
    grad = torch.randn_like(ours)
    gradients = (torch.autograd.grad(result, leaves, grad) for result in (ours, expected))
    torch.testing.assert_close(*gradients)


def test_the_memory_format_of_the_map_does_not_matter():
    layer = LocallyConnected(8, 4, cells=3)
    x = torch.randn(2, 8, 3, 3)
    interleaved = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), layer(interleaved))


def test_all_places_share_the_start_of_one():
    """A uniform distribution has a third of its bound's square: 2 / 3 / cells ** 2 of the input."""
    layer = LocallyConnected(64, 32, cells=5)
    out = layer(torch.randn(16, 64, 5, 5))[:, :, 1:-1, 1:-1]  # away from the padding
    assert abs(out.square().mean().item() * 25 - 2 / 3) < 0.1


def make_yolov2_head(in_channels=8):
    return YOLOv2Head(in_channels=(in_channels,), anchors_per_cell=5, classes=2)


def make_yolov3_head(**settings):
    channels = {"in_channels": (8, 16, 32), "hidden_channels": (16, 32, 64)}
    settings = {**channels, "strides_px": (8, 16, 32), **settings}
    return YOLOv3Head(anchors_per_cell=3, classes=4, **settings)


def test_channels_hold_one_anchor_after_the_other():
    head = make_yolov3_head()
    for scale in (head.stride8, head.stride16, head.stride32):
        torch.nn.init.zeros_(scale.output.weight)
        scale.output.bias.data = torch.arange(27.0)
    maps = tuple(torch.randn(2, c, n, n + 1) for c, n in ((8, 4), (16, 2), (32, 1)))
    raw = head(maps)
    assert [tuple(r.shape) for r in raw] == [(2, 3, 4, 5, 9), (2, 3, 2, 3, 9), (2, 3, 1, 2, 9)]
    for r in raw:
        expected = torch.arange(27.0).view(1, 3, 1, 1, 9).expand_as(r)
        assert torch.equal(r, expected)


def test_cells_and_anchors_stay_in_their_place_without_a_copy():
    x = torch.randn(2, 8, 3, 4).to(memory_format=torch.channels_last)
    head, scale = make_yolov2_head(), make_yolov3_head().stride8.eval()
    (raw,) = head((x,))
    assert raw.shape == (2, 5, 3, 4, 7)
    assert torch.equal(raw[1, 3, 2, 1], head.output(x)[1, 21:28, 2, 1])
    of_scale = scale(x)
    assert torch.equal(of_scale[0, 1, 2, 3, 5], scale.output(scale.conv(x))[0, 9 + 5, 2, 3])
    assert raw.stride()[-1] == of_scale.stride()[-1] == 1, "views of channels-last memory"


@pytest.mark.parametrize(
    ("make_head", "in_channels", "least", "most"),
    [
        (lambda: make_yolov2_head(64), (64,), 0.05, 0.2),
        (make_yolov3_head, (8, 16, 32), 0.005, 0.02),
        (lambda: make_yolov3_head(decoupled=True), (8, 16, 32), 0.005, 0.02),
    ],
)
def test_training_starts_at_the_anchors_with_few_objects(make_head, in_channels, least, most):
    for raw in make_head()(tuple(torch.randn(2, c, 8, 8) for c in in_channels)):
        objectness = raw[..., OBJECTNESS].sigmoid()
        assert objectness.min() > least and objectness.max() < most
        assert raw[..., :OBJECTNESS].abs().max() < 0.6
        assert raw[..., OBJECTNESS + 1 :].abs().max() < 0.6


def test_the_branches_of_a_decoupled_head_are_joined_box_by_box():
    scale = make_yolov3_head(decoupled=True).stride8.double().eval()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    raw, stem = scale(x), scale.stem(x)
    assert raw.shape == (2, 3, 3, 4, 9)
    numbers = scale.box_output(scale.box_branch(stem))
    classes = scale.class_output(scale.class_branch(stem))
    for place in np.ndindex(2, 3, 3, 4):
        image, anchor, *cell = place
        box = numbers[(image, slice(5 * anchor, 5 * anchor + 5), *cell)]
        label = classes[(image, slice(4 * anchor, 4 * anchor + 4), *cell)]
        assert torch.equal(raw[place], torch.cat((box, label)))
    assert torch.autograd.gradcheck(scale, x, fast_mode=True)


def test_each_branch_of_a_decoupled_head_learns_its_own():
    for numbers, learns in ((slice(5), "box"), (slice(5, None), "class")):
        scale = make_yolov3_head(decoupled=True).stride32
        scale(torch.randn(2, 32, 3, 4))[..., numbers].square().sum().backward()
        moved = {name.split(".")[0] for name, p in scale.named_parameters() if p.grad.any()}
        assert moved == {"stem", f"{learns}_branch", f"{learns}_output"}


def test_a_decoupled_head_has_the_layers_of_the_paper():
    """A 1x1 convolution, twice two 3x3 with batch norm, two outputs with bias, all 256 wide."""
    channels = {"in_channels": (128, 256, 512), "hidden_channels": (256, 512, 1024)}
    head = make_yolov3_head(decoupled=True, **channels)
    expected = [c * 256 + 512 + 4 * (9 * 256 * 256 + 512) + 257 * 3 * 9 for c in (128, 256, 512)]
    assert [sum(p.numel() for p in each.parameters()) for each in head.children()] == expected


def test_two_scales_and_their_hidden_channels():
    """YOLOv3-tiny's at stride 16 are fewer than twice the map's."""
    head = make_yolov3_head(in_channels=(8, 16), strides_px=(16, 32), hidden_channels=(8, 32))
    assert [name for name, _ in head.named_children()] == ["stride16", "stride32"]
    assert (head.stride16.conv.conv.out_channels, head.stride32.conv.conv.out_channels) == (8, 32)
    raw = head((torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)))
    assert [tuple(r.shape) for r in raw] == [(2, 3, 4, 4, 9), (2, 3, 2, 2, 9)]
