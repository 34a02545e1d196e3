import copy

import pytest
import torch
from torch import nn

from yolo.train.optimizers import adam, adamw, param_groups, sgd


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
    network[0].requires_grad_(False)  # what is frozen may be trained later, so it belongs to it
    decayed, free = param_groups(network, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(8, 3, 3, 3), (4, 8, 1, 1)]
    assert [tuple(p.shape) for p in free["params"]] == [(8,), (8,), (4,)]


def test_an_encoder_with_a_rate_of_its_own_has_groups_of_its_own():
    network = nn.Module()
    network.encoder, network.head = small_network(), nn.Linear(4, 2)
    optimizer = adamw(network, learning_rate=0.1, encoder_learning_rate=0.01, weight_decay=0.3)
    found = [
        (g["lr"], g["weight_decay"], g.get("part"), [p.numel() for p in g["params"]])
        for g in optimizer.param_groups
    ]
    assert found == [
        (0.1, 0.3, None, [8]),
        (0.1, 0.0, None, [2]),
        (0.01, 0.3, "encoder", [216, 32]),
        (0.01, 0.0, "encoder", [8, 8, 4]),
    ]


@pytest.mark.parametrize("build", [adam, adamw, sgd])
def test_a_parameter_without_gradient_is_passed_over(build):
    """Neither weight decay nor momentum moves it, and its state begins when it is trained."""
    network = small_network()
    before = network[0].weight.clone()
    network[0].requires_grad_(False)
    optimizer = build(network, learning_rate=0.01, weight_decay=0.1)
    train(network, optimizer)
    assert torch.equal(network[0].weight, before) and network[0].weight not in optimizer.state
    network[0].requires_grad_(True)
    train(network, optimizer, steps=1)
    assert not torch.equal(network[0].weight, before) and network[0].weight in optimizer.state


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
