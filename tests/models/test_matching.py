import torch
from torch import nn

from yolo.models.layers import ConvBlock, Normalise
from yolo.models.weights import fill_matching, report_filled, tensors_by_layer


def network(classes: int) -> nn.Module:
    return nn.ModuleDict(
        {
            "normalise": Normalise(mean=(0.0,), std=(1.0,)),
            "blocks": nn.Sequential(ConvBlock(3, 4, kernel_size=1), ConvBlock(4, 4, kernel_size=1)),
            "output": nn.Conv2d(4, classes, 1),
        }
    )


def test_a_convolution_and_its_norm_are_one_layer_and_normalising_is_none():
    layers = tensors_by_layer(network(2))
    assert list(layers) == ["blocks.0", "blocks.1", "output"]
    assert layers["output"] == ["output.weight", "output.bias"]
    assert [name.removeprefix("blocks.1.") for name in layers["blocks.1"]] == [
        "conv.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]


def test_layers_are_filled_as_a_whole_or_not_at_all():
    model, start, other = network(2), network(2), network(3)
    model.load_state_dict(start.state_dict())
    tensors = other.state_dict()
    del tensors["blocks.1.norm.running_var"], tensors["blocks.0.norm.num_batches_tracked"]
    tensors["output.bias"] = torch.ones(2)  # fits, but not beside that weight
    assert fill_matching(model, tensors) == ("blocks.0",)
    found, before = model.state_dict(), start.state_dict()
    for name, value in found.items():
        source = tensors if name.startswith("blocks.0.") and name in tensors else before
        assert torch.equal(value, source[name]), name
    assert not torch.equal(found["blocks.0.conv.weight"], before["blocks.0.conv.weight"])


def test_a_report_names_layers_in_order_and_counts_parameters_without_statistics():
    report = report_filled(network(2), "a file", ["output", "blocks.1"])
    assert (report.filled, report.left) == (("blocks.1", "output"), ("blocks.0",))
    assert report.parameters_filled == (2 * 4 + 2) + (4 * 4 + 4 + 4)
    assert report.parameters == report.parameters_filled + (4 * 3 + 4 + 4)
