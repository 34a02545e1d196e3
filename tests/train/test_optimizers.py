import copy
import re

import pytest
import torch
from torch import nn

from yolo.errors import UserError
from yolo.models.encoders import ENCODERS
from yolo.models.layers import ConvBlock
from yolo.train.optimizers import Freeze, adam, adamw, param_groups, sgd, stages


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


# What can be frozen; what that does to training is in test_trainer.py


class WithNeck(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.neck = ConvBlock(3, 8, kernel_size=1)


def frozen_names(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def norms_at_rest(model: nn.Module) -> set[str]:
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    return {name for name, norm in norms.items() if not norm.training}


@pytest.mark.parametrize("name", ENCODERS)
def test_stages_stand_in_the_order_in_which_they_run(name):
    """Or a part that comes later would be frozen before an earlier one."""
    encoder = ENCODERS[name]().eval()
    found = dict(stages(encoder))
    order = []
    for stage, module in found.items():
        module.register_forward_hook(lambda *_, stage=stage: order.append(stage))
    with torch.no_grad():
        encoder(torch.zeros(1, 3, 64, 64))
    assert order == list(found) and len(order) > 4
    held = {id(p) for module in found.values() for p in module.parameters()}
    assert held == {id(p) for p in encoder.parameters()}


@pytest.mark.parametrize(
    ("encoder", "until", "first_trained"),
    [
        ("darknet53", "encoder.stem", "encoder.stages.0.downsample.conv.weight"),
        ("darknet53", "encoder.stages.3", "encoder.stages.4.downsample.conv.weight"),
        ("darknet53", "encoder.stages", "neck.conv.weight"),
        ("darknet53", "encoder", "neck.conv.weight"),
        ("darknet_tiny", "encoder.convs.1", "encoder.convs.2.conv.weight"),
        ("mobilenet_v3_small", "encoder.features.11", "encoder.features.12.0.weight"),
        ("resnet18", "encoder.layer1", "encoder.layer2.0.conv1.weight"),
        ("resnet18", "encoder.layer1.0", "encoder.layer1.1.conv1.weight"),
    ],
)
def test_all_before_the_named_part_is_frozen_too(encoder, until, first_trained):
    model = WithNeck(ENCODERS[encoder]()).train()
    assert Freeze(model, until=until).apply(step=0)
    names = [name for name, _ in model.named_parameters()]
    assert frozen_names(model) == set(names[: names.index(first_trained)])
    assert norms_at_rest(model) == {
        name for name in norms_at_rest(model.eval()) if f"{name}.weight" in frozen_names(model)
    }


@pytest.mark.parametrize("until", ["encoder.stages.9", "encoder.stage", "neck", "stem", ""])
def test_a_part_that_is_not_there_is_refused_with_those_that_are(until):
    with pytest.raises(UserError) as error:
        Freeze(WithNeck(ENCODERS["darknet53"]()), until=until)
    parts = ["encoder", "encoder.stem", *(f"encoder.stages.{i}" for i in range(5))]
    assert (
        str(error.value) == f"{until!r} is no stage of this encoder; it can be {', '.join(parts)}"
    )


def test_freezing_is_a_function_of_the_step():
    model = WithNeck(ENCODERS["darknet_tiny"](width=0.25))
    freeze = Freeze(model, until="encoder.convs.0", unfreeze_at=5)
    seen = []
    for step in (0, 4, 5, 6, 3):
        changed = freeze.apply(step) if model.train() else None
        seen.append((changed, len(frozen_names(model)), len(norms_at_rest(model))))
    assert seen == [(True, 3, 1), (False, 3, 1), (True, 0, 0), (False, 0, 0), (True, 3, 1)]


@pytest.mark.parametrize(
    ("batch_norm", "unfreeze_at", "pattern", "at_rest"),
    [
        ("trained", None, r"encoder\.convs\.0\.conv\.weight", 0),
        ("frozen_part", None, r"encoder\.convs\.0\.(conv\.weight|norm\.weight|norm\.bias)", 1),
        ("whole_network", 1000, r"encoder\.convs\.0\.conv\.weight|.*norm\.(weight|bias)", 8),
    ],
)
def test_whose_batch_norms_are_frozen(batch_norm, unfreeze_at, pattern, at_rest):
    model = WithNeck(ENCODERS["darknet_tiny"](width=0.25)).train()
    until = "encoder.convs.0"
    freeze = Freeze(model, until=until, batch_norm=batch_norm, unfreeze_at=unfreeze_at)
    freeze.apply(step=0 if unfreeze_at else 10**9)
    expected = {name for name, _ in model.named_parameters() if re.fullmatch(pattern, name)}
    assert frozen_names(model) == expected
    norms = norms_at_rest(model)
    assert len(norms) == at_rest and (norms == {f"{until}.norm"}) == (at_rest == 1)
    count = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    before = " before step 1,000" if unfreeze_at else ""
    line = f"frozen{before}: {count:,} parameters, up to {until}"
    assert freeze.describe(0, starting=True) == line
