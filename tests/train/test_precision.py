import warnings

import pytest
import torch
from torch import nn

from yolo.train import precision
from yolo.train.precision import Precision, choose_precision, faster_format

CPU = torch.device("cpu")


class Net(nn.Module):
    """Takes images, returns two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.formats: list[torch.dtype] = []

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv(images.float())
        self.formats.append(x.dtype)
        return [self.norm(x), x]


def choose(setting: str, device: torch.device = CPU, model: nn.Module | None = None) -> Precision:
    return choose_precision(setting, model=model or Net(), device=device, images=2, size_px=32)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_the_network_computes_in_the_format(name, dtype) -> None:
    chosen = choose(name)
    assert chosen == Precision(name, "as configured")
    assert chosen.scaler(CPU).is_enabled() == (name == "fp16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with chosen.autocast(CPU):
            outputs = nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8))
    assert outputs.dtype == dtype


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_gpu_by_its_generation(monkeypatch, capability, name) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = choose("auto", torch.device("cuda:0"))
    assert chosen.name == name and "natively" in chosen.reason


def test_a_macs_gpu_is_not_measured() -> None:
    assert choose("auto", torch.device("mps")).name == "fp32"


def test_a_cpu_without_bf16(monkeypatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert choose("auto").name == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for seconds, name in ((1.0, "bf16"), (3.0, "fp32")):
        times = {"fp32": 2.0, "bf16": seconds}
        monkeypatch.setattr(precision, "_seconds_of", lambda run, name, t=times: t[name])
        monkeypatch.setattr(precision, "WARM_UP_SECONDS", 0.0)
        chosen = choose("auto")
        assert chosen.name == name and f"{2.0 / seconds:.2f} times" in chosen.reason


def test_measuring_takes_turns_and_leaves_no_trace(monkeypatch) -> None:
    monkeypatch.setattr(precision, "WARM_UP_SECONDS", 0.05)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    model = Net().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert choose("auto", model=model).reason.startswith("measured: bf16 trains ")
    assert torch.equal(torch.rand(4), expected)  # random numbers go on as if nothing had been
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())

    class Shared(Net):
        def __deepcopy__(self, memo):
            return self

    watched = Shared()
    choose("auto", model=watched)
    takes_turns = [torch.float32, torch.bfloat16] * (len(watched.formats) // 2)
    assert watched.formats == takes_turns and len(takes_turns) >= 2 * (1 + 5)


def test_measuring_a_slow_model_ends_soon(monkeypatch) -> None:
    seconds = iter([9.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(precision, "_seconds_of", lambda *_: next(seconds))
    clock = iter([0.0, 0.0, 1.0, 2.0])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    chosen = faster_format(print, "works", warm_up_seconds=1e-9, timed_seconds=0.0)
    reason = "measured: bf16 works 0.75 times as fast as fp32 here"
    assert chosen == Precision("fp32", reason)  # of two rounds the second counts
