"""What holds for the loss of every generation."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.detection.losses.cases import CASES, CROWDED, GENERATIONS
from yolo.records import Targets

each_generation = pytest.mark.parametrize("generation", GENERATIONS.values(), ids=GENERATIONS)


@each_generation
@pytest.mark.parametrize("targets", [CASES["random"], CROWDED], ids=["random", "crowded"])
def test_terms_add_up_over_micro_batches(generation, targets):
    raw, loss = generation.random_raw(3), generation.make_loss()
    whole = loss(raw, targets, 3, images_seen=0)
    assert tuple(whole) == generation.terms
    for name, value in whole.items():
        parts = 0
        for image in range(3):
            mine, count = targets.image_index == image, targets.max_per_image
            boxes, labels = targets.boxes_cxcywh_norm[mine], targets.labels[mine]
            part = Targets(boxes, labels, torch.zeros_like(labels), targets.ignored[mine], count)
            parts += loss([r[image : image + 1] for r in raw], part, 3, images_seen=0)[name]
        assert value.item() > 0
        torch.testing.assert_close(parts, value)


@each_generation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_and_finite_for_any_finite_output(generation, dtype):
    values = torch.tensor([0, 6e-8, 1, -1, 300, -300, 65504, -65504]).to(dtype)
    raw = [values[torch.randint(8, (3, *s))].requires_grad_() for s in generation.shapes]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = generation.make_loss()(raw, CROWDED, 3, images_seen=0)
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert not any(r.grad.isnan().any() for r in raw)


class NoHostData(TorchDispatchMode):
    """Fails where an operation mixes in a host tensor: its copy would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.ndim:
                raise AssertionError(f"{func} reads a host tensor")
        return func(*args, **(kwargs or {}))


@each_generation
def test_never_waits_for_the_device(generation):
    """On a pretended GPU: a value read on the host (.item(), boolean indexing) raises there."""
    with FakeTensorMode():
        loss = generation.make_loss().to("cuda")
        raw = [torch.randn((2, *shape), device="cuda") for shape in generation.shapes]
        zeros = torch.zeros(6, dtype=torch.int64, device="cuda")
        boxes = torch.rand(6, 4, device="cuda")
        targets = Targets(boxes, zeros, zeros, zeros.bool(), max_per_image=6, is_finite=True)
        with NoHostData():
            terms = loss(raw, targets, 2, images_seen=0)
            matches = loss.matches(raw, targets)
        assert all(term.device.type == "cuda" for term in terms.values())
        assert matches.owned.device.type == "cuda"
        with pytest.raises(Exception, match="nonzero"):
            raw[0][raw[0] > 0].sum()


@each_generation
def test_nor_does_its_backward_pass(generation):
    """On tensors without numbers, of which none can be read."""
    loss = generation.make_loss().to("meta")
    raw = [torch.randn((2, *s), device="meta", requires_grad=True) for s in generation.shapes]
    zeros = torch.zeros(6, dtype=torch.int64, device="meta")
    targets = Targets(torch.rand(6, 4, device="meta"), zeros, zeros, zeros.bool(), 6, True)
    with NoHostData():
        terms = loss.terms(raw, targets, images_seen=0)
        torch.stack(list(terms.values())).sum().backward()
    assert all(values.grad.shape == values.shape for values in raw)
