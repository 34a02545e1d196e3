import copy

import pytest
import torch
from torch import nn

from yolo.optim.optimizers import adam, adamw, param_groups, sgd


def small_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    return network.to(memory_format=torch.channels_last)


def train(network, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(2, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


def test_only_weights_decay():
    network = small_network()
    network[0].requires_grad_(False)
    decayed, free = param_groups(network, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [p is network[3].weight for p in decayed["params"]] == [True]
    assert [tuple(p.shape) for p in free["params"]] == [(8,), (8,), (4,)]


@pytest.mark.parametrize(
    ("ours", "reference", "settings"),
    [
        (adam, torch.optim.Adam, {"betas": (0.8, 0.95)}),
        (adamw, torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (sgd, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_fused_steps_are_pytorchs_plain_ones(ours, reference, settings):
    """In channels-last memory too, where the fused kernels see other strides."""
    network = small_network()
    twin = copy.deepcopy(network)
    train(network, ours(network, learning_rate=0.01, weight_decay=0.1, **settings))
    groups = param_groups(twin, 0.1)
    train(twin, reference(groups, lr=0.01, foreach=False, **settings))
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("build", [adam, adamw, sgd])
def test_a_resumed_optimizer_goes_on_exactly(build):
    network = small_network()
    optimizer = build(network, learning_rate=0.01, weight_decay=0.1)
    train(network, optimizer)
    twin = copy.deepcopy(network)
    resumed = build(twin, learning_rate=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(network, optimizer)
    train(twin, resumed)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_network_without_biases_has_an_empty_second_group():
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    optimizer = adam(network, learning_rate=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]
    train(network, optimizer, steps=1)
