"""`micro_batch_size: auto`: what fits, what is tried for that, and that a run keeps it."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

import main as training
from scripts import pretrain_encoder, visualize_batch
from tests.detectors import ONE_RANK
from tests.train.toys import quickstart
from yolo.config import REPOSITORY_ROOT, load_config
from yolo.factory import micro_batch
from yolo.factory.data import build_dataset, micro_batch_size
from yolo.factory.learner import build_learner, build_parts
from yolo.factory.micro_batch import ORIGIN, find_largest, fits_gpu, train_on_noise
from yolo.train.checkpoint import load_checkpoint
from yolo.train.distributed import Ranks

AUTO = {"micro_batch_size": "auto"}
CLASSIFIER = "configs/pretrain/shapes_darknet53.yaml"
CLASSIFIER_SETTINGS = [
    *("model.encoder={type: darknet_tiny, width: 0.25}", "data.train.images=24"),
    *("data.val.images=9", "data.image_size=32", "data.workers=0", "training.batch_size=8"),
]


class WithOthers(Ranks):
    """A rank, and the number that the others gather beside its own."""

    def gather(self, value):
        return [value, 4]


@pytest.mark.parametrize(
    ("batch", "ranks", "most", "size"),
    [
        (64, 1, 99, 64),
        (64, 1, 20, 16),
        (64, 1, 0, 1),  # the training itself says that not one image fits
        (60, 1, 13, 12),
        (48, 2, 20, 12),  # 16 divides 48, but leaves 8 of each rank's 24
        (50, 4, 99, 10),  # of shares of 12 and 13
        (3, 2, 99, 1),
    ],
)
def test_the_largest_that_divides_the_share_of_a_rank(batch, ranks, most, size):
    tried = []

    def fits(images):
        tried.append(images)
        return images <= most

    place = Ranks(rank=0, world_size=ranks, device=ONE_RANK.device)
    alone = SimpleNamespace(world_size=ranks, gather=ONE_RANK.gather)
    assert find_largest(batch, alone, fits) == size
    assert tried == sorted(tried) and sum(images > most for images in tried) <= 1
    training_of = SimpleNamespace(batch_size=batch, micro_batch_size="auto")
    share = micro_batch_size(SimpleNamespace(training=training_of), place)
    assert size <= share == -(-batch // ranks)  # as long as nothing was tried


def test_the_rank_with_the_least_memory_decides():
    ranks = WithOthers(rank=0, world_size=2, device=torch.device("cpu"))
    assert find_largest(64, ranks, lambda images: True) == 4
    assert find_largest(64, ranks, lambda images: images < 3) == 2


def test_a_gpu_keeps_a_margin_and_runs_out_of_memory_unharmed(monkeypatch):
    gpu = {"free": 60, "used": 20, "peak": 0}
    for name, value in {
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device: gpu.update(peak=0),
        "mem_get_info": lambda device: (gpu["free"], 100),
        "memory_reserved": lambda device: gpu["used"],
        "max_memory_reserved": lambda device: gpu["peak"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def train(images):
        gpu["peak"] = 10 * images
        if images > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    fits = partial(fits_gpu, torch.device("cuda:0"), train)
    assert find_largest(64, ONE_RANK, fits) == 4  # 8 images take all 80, of which 72 may be taken
    gpu["free"] = 70
    assert find_largest(64, ONE_RANK, fits) == 8  # 80 of 81, and 16 raise

    def fail(images):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        fits_gpu(torch.device("cuda:0"), fail, 1)


@pytest.fixture
def memory(monkeypatch):
    """Sets the machine's memory, of which a step of the quickstart keeps 100 bytes an image."""
    found = SimpleNamespace(activation_bytes=100)
    monkeypatch.setattr(micro_batch, "dry_run", lambda model, size_px: found)
    return lambda number: monkeypatch.setattr(micro_batch, "memory_bytes", lambda: number)


def test_a_run_keeps_the_number_on_another_machine(tmp_path, memory, capsys):
    memory(500)  # half of it is room for two
    argv = quickstart(tmp_path, training=AUTO)
    assert training.main([*argv, "--name=run", "training.steps=2"]) == 0
    assert f"training.micro_batch_size: 2, {ORIGIN}\n" in capsys.readouterr().out
    run = tmp_path / "run"
    assert f"micro_batch_size: 2  # {ORIGIN}\n" in (run / "config.yaml").read_text()

    def check():
        content = load_checkpoint(run / "last.pt")
        assert content["config"]["training"]["micro_batch_size"] == 2
        assert content["micro_batch_size"] == 2

    check()
    memory(10**9)
    resume = ["--resume", str(run), "--gpu=cpu", "training.steps=4"]
    assert training.main(resume) == 0
    check()
    capsys.readouterr()
    assert training.main([*resume, "training.micro_batch_size=auto"]) == 1
    assert "training.micro_batch_size: 2 -> auto" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "size"), [(None, 4), (10**12, 4), (1, 1)])
def test_a_real_network_in_the_memory_of_a_cpu(number, size, tmp_path, monkeypatch):
    monkeypatch.setattr(micro_batch, "memory_bytes", lambda: number)
    resolved = config_of(quickstart(tmp_path, training=AUTO))
    sets = [build_dataset(resolved.config, split) for split in ("train", "val")]
    settled = micro_batch.settle_micro_batch(resolved, *sets, ONE_RANK)
    assert settled.config.training.micro_batch_size == size
    assert micro_batch.settle_micro_batch(settled, *sets, ONE_RANK) is settled


def config_of(argv, path="configs/quickstart.yaml"):
    overrides = [each for each in argv if not each.startswith("--")]
    return load_config(REPOSITORY_ROOT / path, overrides)


def test_what_is_tried_is_a_training_step_of_the_largest_size(tmp_path):
    """A part that is frozen at first is trained."""
    freeze = "{until: encoder, unfreeze_at: 3}"
    argv = quickstart(
        tmp_path,
        training={**AUTO, "steps": 5, "freeze": freeze, "schedule": "{type: one_cycle}"},
        data={"multi_scale": "{min: 32, max: 96}"},
    )
    classes = [f"data.{split}.root={tmp_path}" for split in ("train", "val")]
    for config, side_px in (
        (config_of(argv).config, 96),
        (config_of([*classes, *CLASSIFIER_SETTINGS], CLASSIFIER).config, 32),
    ):
        sets = [build_dataset(config, split) for split in ("train", "val")]
        parts = build_parts(config, *sets, ONE_RANK)
        learner, shapes = build_learner(config, parts, ONE_RANK), []
        learner.model.register_forward_pre_hook(
            lambda model, inputs, shapes=shapes: shapes.append(tuple(inputs[0].shape))
        )
        for images in (3, 1):  # one alone is what batch norm may refuse
            train_on_noise(config, learner, images)
        assert shapes == [(3, 3, side_px, side_px), (2, 3, side_px, side_px)]
        assert len(learner.optimizer.state) == len(list(learner.model.parameters()))


def test_a_classifier_and_the_pictures_of_a_batch(tmp_path, memory, capsys):
    memory(10**9)
    roots = [f"data.{split}.root={tmp_path}" for split in ("train", "val")]
    auto = [*roots, *CLASSIFIER_SETTINGS, "training.micro_batch_size=auto", "training.steps=1"]
    argv = ["--config", str(REPOSITORY_ROOT / CLASSIFIER), *auto]
    run = ["--gpu=cpu", f"logging.directory={tmp_path}", "evaluation.pictures=0"]
    assert pretrain_encoder.main([*argv, *run, "training.schedule.warmup_steps=0"]) == 0
    assert f"training.micro_batch_size: 8, {ORIGIN}\n" in capsys.readouterr().out
    assert visualize_batch.main([*argv, "--output", str(tmp_path / "batch")]) == 0
    assert "step 0: 8 images of 32 px in 1 part(s)" in capsys.readouterr().out
