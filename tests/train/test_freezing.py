"""What can be frozen; what that does to training is in test_trainer.py."""

import re

import pytest
import torch
from torch import nn

from yolo.errors import UserError
from yolo.models.encoders import ENCODERS
from yolo.models.layers import ConvBlock
from yolo.train.freezing import Freeze, stages


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
