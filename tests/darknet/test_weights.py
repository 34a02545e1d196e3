"""The format of weights files, byte by byte, on a network of two small convolutions."""

import struct

import numpy as np
import pytest
import torch
from torch import nn

from yolo.darknet.cfg import Convolution, LayerList, MaxPool, Yolo
from yolo.darknet.weights import (
    classes_for,
    count_floats,
    fill,
    is_weights_file,
    layers_in_name,
    read_weights,
    write_weights,
)
from yolo.errors import UserError

FLOATS = 4 * 2 + 2 * 3 + 12 + 12 * 2
"""Norm and weights of 1x1 from 3 to 2 channels; biases and weights to 2 * (5 + 1) outputs."""


@pytest.fixture
def layers() -> LayerList:
    """One 1x1 convolution with norm, a pooling, and the end: two anchors, one class."""
    layers = LayerList()
    conv = nn.Conv2d(3, 2, kernel_size=1, bias=False)
    layers.add(Convolution(conv, norm=nn.BatchNorm2d(2), activation="leaky"))
    layers.add(MaxPool(size=2, stride=2))
    layers.add(Convolution(nn.Conv2d(2, 12, kernel_size=1), norm=None, activation="linear"))
    layers.add(Yolo(mask=(0, 1), anchors=2, classes=1))
    return layers


OUR_HEADER = struct.pack("<iiiq", 0, 2, 0, 7)


def write_file(path, floats, *, header=OUR_HEADER):
    path.write_bytes(header + np.asarray(floats, dtype="<f4").tobytes())
    return path


def test_the_numbers_stand_where_darknet_reads_them(layers, tmp_path):
    """Biases, scales, means, variances, then weights; biases, weights."""
    file = read_weights(write_file(tmp_path / "a.weights", np.arange(FLOATS)))
    assert (file.version, file.seen, file.extra_bytes) == ((0, 2, 0), 7, 0)
    first, last = layers.convolutions
    assert fill(layers, file.floats) == [first, last]
    assert [t.tolist() for t in (first.norm.bias, first.norm.weight)] == [[0, 1], [2, 3]]
    assert first.norm.running_mean.tolist() + first.norm.running_var.tolist() == [4, 5, 6, 7]
    assert first.conv.weight.flatten(1).tolist() == [[8, 9, 10], [11, 12, 13]]
    assert last.conv.bias.tolist() == list(range(14, 26))
    assert last.conv.weight.flatten(1)[:2].tolist() == [[26, 27], [28, 29]]


def test_what_is_written_is_what_was_read(layers, tmp_path):
    path = write_file(tmp_path / "a.weights", np.random.default_rng(0).normal(size=FLOATS))
    for record in layers.convolutions:  # as the models keep them
        record.conv.to(memory_format=torch.channels_last)
    file = read_weights(path)
    fill(layers, file.floats)
    write_weights(tmp_path / "b.weights", layers, seen=file.seen)
    assert (tmp_path / "b.weights").read_bytes() == path.read_bytes()
    assert path.stat().st_size == 20 + 4 * FLOATS


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        (struct.pack("<iiii", 0, 1, 0, 12), 12),  # 16 bytes: up to version 0.1
        (struct.pack("<iiiq", 0, 2, 0, 1 << 40), 1 << 40),  # 20 bytes: from 0.2 on
        (struct.pack("<iiiq", 1, 0, 3, 12), 12),
    ],
)
def test_the_header_is_as_long_as_its_version_says(header, seen, tmp_path):
    file = read_weights(write_file(tmp_path / "a.weights", [1, 2, 3], header=header))
    assert file.seen == seen
    assert file.floats.tolist() == [1, 2, 3]


def test_another_number_of_classes_shows_in_the_length(layers, tmp_path):
    """Each class costs its two anchors a bias and two weights."""
    assert count_floats(layers) == FLOATS
    assert count_floats(layers, classes=4) == FLOATS + 3 * 2 * 3
    assert [classes_for(layers, FLOATS + extra) for extra in (0, 6, 60, 59)] == [1, 2, 11, None]
    assert classes_for(layers, FLOATS - 6) is None, "no classes at all"


def test_of_another_number_of_classes_all_but_the_last_convolution_is_taken(layers):
    first, last = layers.convolutions
    before = last.conv.weight.clone()
    floats = np.arange(count_floats(layers, classes=3), dtype=np.float32)
    assert fill(layers, floats, classes=3) == [first]
    assert first.conv.weight.flatten().tolist() == list(range(8, 14))
    assert torch.equal(last.conv.weight, before)


def test_the_first_layers_alone(layers):
    assert count_floats(layers, up_to=2) == 14
    assert fill(layers, np.zeros(14, np.float32), up_to=2) == layers.convolutions[:1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "not a weights file of Darknet"),
        (b"<!DOCTYPE html><html>", "not a weights file of Darknet"),
        (struct.pack("<iii", 0, 2, 0), "not a weights file of Darknet"),
    ],
)
def test_what_is_no_weights_file_is_named_in_a_sentence(content, text, tmp_path):
    path = tmp_path / "a.weights"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=text) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_a_weights_file_is_known_by_its_name_or_its_header(tmp_path):
    assert is_weights_file(tmp_path / "yolov3.weights")
    assert is_weights_file(tmp_path / "darknet53.conv.74")
    assert is_weights_file(write_file(tmp_path / "renamed.bin", [1.0]))
    torch.save({"a": torch.zeros(9)}, tmp_path / "a.pt")
    (tmp_path / "a.txt").write_text("a text of some length")
    assert not is_weights_file(tmp_path / "a.pt")
    assert not is_weights_file(tmp_path / "a.txt")
    assert not is_weights_file(tmp_path / "missing.pt")
    assert layers_in_name(tmp_path / "darknet53.conv.74") == 74
    assert layers_in_name(tmp_path / "yolov3.weights") is None
