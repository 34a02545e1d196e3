import errno
import hashlib
import itertools
import math
import os
import pickle
import pkgutil
import resource
import zipfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
import torch

from yolo.errors import UserError
from yolo.train import checkpoint
from yolo.train.checkpoint import link_checkpoint, load_checkpoint, save_checkpoint

SEAL_BYTES = len("sha256:") + 64


def content(step: int = 1) -> dict:
    return {
        "model": {"weight": torch.arange(12.0).view(3, 4) * step, "half": torch.ones(3).bfloat16()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "ema": None,
        "progress": {"step": step, "best_figure": -math.inf, "figures": {"AP": 0.25}},
        "class_names": ["Katze", "犬"],
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "last.pt", content())
    return tmp_path / "last.pt"


def test_what_is_saved_comes_back(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    torch.testing.assert_close(loaded["model"], content()["model"], rtol=0, atol=0)
    assert loaded["model"]["half"].dtype == torch.bfloat16
    for key in ("ema", "progress", "class_names"):
        assert loaded[key] == content()[key]
    assert names(saved.parent) == ["last.pt"]


def test_the_file_is_a_zip_that_others_read(saved: Path) -> None:
    data = saved.read_bytes()
    digest = hashlib.sha256(data[:-SEAL_BYTES]).hexdigest()
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None and archive.comment == f"sha256:{digest}".encode()
    loaded = torch.load(saved, weights_only=True)
    assert loaded["progress"]["step"] == 1 and loaded["model"]["weight"][2, 3] == 11


def test_every_flipped_bit_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(len(data), (200,), generator=generator).tolist()
    positions += [0, len(data) - SEAL_BYTES - 1, len(data) - SEAL_BYTES, len(data) - 1]
    for number, position in enumerate(positions):
        damaged = bytearray(data)
        damaged[position] ^= 1 << number % 8
        saved.write_bytes(damaged)
        assert_refused(saved, r"damaged|not a checkpoint of this project")
    saved.write_bytes(data)
    assert load_checkpoint(saved)["progress"]["step"] == 1


def test_a_file_too_short_or_too_long_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    cuts = [0, 1, SEAL_BYTES, SEAL_BYTES + 1, len(data) // 2, len(data) - SEAL_BYTES, len(data) - 1]
    for damaged in [*(data[:cut] for cut in cuts), data + b"\0", data + data]:
        saved.write_bytes(damaged)
        assert_refused(saved, r"last\.pt: (not a checkpoint|the checkpoint is damaged)")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_payload_is_refused_and_never_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "best.pt", tmp_path / "trace"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert_refused(path, "not a checkpoint of this project")
    torch.save({"version": 1, "model": Payload(trace)}, path)
    checkpoint._seal(path)  # as an attacker would
    with pytest.raises(UserError, match="not a checkpoint of this project") as refused:
        load_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have worked


def test_what_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    assert_refused(path, "there is no such checkpoint file")
    assert_refused(tmp_path, "there is no such checkpoint file")
    torch.save(content(), path)  # a plain one
    assert_refused(path, "not a checkpoint of this project, or its end is missing")
    checkpoint._seal(path)
    assert_refused(path, "it has no version")
    save_checkpoint(path, {**content(), "version": 99})
    assert_refused(path, "checkpoint version 99; this code reads version 1")
    save_checkpoint(path, {**content(), "version": torch.ones(3)})
    assert_refused(path, "checkpoint version tensor")


def shared_lists(depth: int) -> dict:
    """A few lists that stand for 10^(depth + 1) values."""
    values: list = [0] * 10
    for _ in range(depth):
        values = [values] * 10
    return {"values": values}


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"model": []}, "its 'model' is of a wrong kind"),
        ({"model": {"weight": "text"}}, "its 'model' is of a wrong kind"),
        ({"ema": {"module.weight": 3}}, "its 'ema' is of a wrong kind"),
        ({"ema": 3}, "its 'ema' is of a wrong kind"),
        ({"ema": torch.ones(3)}, "its 'ema' is of a wrong kind"),
        ({"model": torch.ones(3)}, "its 'model' is of a wrong kind"),
        ({"data": "x"}, "its 'data' is of a wrong kind"),
        ({"data": {"val": {"images": torch.ones(3)}}}, "its 'data' is of a wrong kind"),
        ({"config": {"model": torch.ones(3)}}, "its 'config' is of a wrong kind"),
        ({"config": shared_lists(9)}, "its 'config' is of a wrong kind"),
        ({"class_names": "cat"}, "its 'class_names' is of a wrong kind"),
        ({"class_names": ["cat", 3]}, "its 'class_names' is of a wrong kind"),
        ({"category_ids": [1, 1]}, "its 'category_ids' is of a wrong kind"),
        ({"category_ids": [1.5, 2]}, "its 'category_ids' is of a wrong kind"),
        ({"category_ids": [1, True]}, "its 'category_ids' is of a wrong kind"),
        ({"category_ids": ["a", "a"]}, "its 'category_ids' is of a wrong kind"),
        ({"class_conf": [1, 0]}, "its 'class_conf' is of a wrong kind"),
        ({"class_conf": [0.5, 1.5]}, "its 'class_conf' is of a wrong kind"),
        ({"class_conf": [0.5, math.nan]}, "its 'class_conf' is of a wrong kind"),
        ({"class_conf": torch.ones(2)}, "its 'class_conf' is of a wrong kind"),
        ({"class_conf": [0.5]}, "it has not as many class_names as category_ids as class_conf"),
        ({"class_names": ["a"] * 9}, "it has not as many class_names as category_ids"),
        ({"precision": {"name": "fp37"}}, r"its precision is damaged \(name: "),
        ({"precision": {"name": "fp32", "reason": 3}}, r"its precision is damaged \(reason: "),
        ({"precision": {"reason": "why"}}, r"its precision is damaged \(name: "),
        ({"precision": {}}, r"its precision is damaged \(name: "),
        ({"progress": {}}, "its progress has no step"),
        ({"precision": {"name": "fp32", "more": 3}}, "its precision .* not known: 'more'"),
        ({"progress": {"step": "seven"}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": "7"}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": -7}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": 10**30}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": 1.5}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": True}}, r"its progress is damaged \(step: "),
        ({"progress": {"step": torch.ones(1)}}, "its 'progress' is of a wrong kind"),
        ({"progress": {"best_figure": "best"}}, r"its progress is damaged \(best_figure: "),
        ({"progress": {"figures": {"AP": []}}}, r"its progress is damaged \(figures\.AP: "),
    ],
)
def test_entries_of_a_wrong_kind_or_range_are_one_sentence(tmp_path, entries, what) -> None:
    """Whoever can write a file can seal it."""
    path = tmp_path / "x.pt"
    whole = {**content(), "category_ids": [1, "2"], "precision": {"name": "bf16", "reason": ""}}
    save_checkpoint(path, whole)
    assert load_checkpoint(path)["category_ids"] == [1, "2"]
    save_checkpoint(path, whole | entries)
    with pytest.raises(UserError, match=f"x.pt: not a checkpoint of this project: {what}") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_records_that_share_their_bytes_are_refused(saved: Path) -> None:
    """A directory of a thousand entries on one megabyte would be a gigabyte in memory."""
    with zipfile.ZipFile(saved, "a") as archive:
        archive.comment = b""
        first = max(archive.infolist(), key=lambda record: record.file_size)
        for number in range(200):
            again = zipfile.ZipInfo(f"{first.filename}{number}")
            for name in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(again, name, getattr(first, name))
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    checkpoint._seal(saved)
    assert_refused(saved, "its data overlap|not a checkpoint")


def test_a_disk_that_is_full_leaves_the_old_checkpoint(saved: Path) -> None:
    """A real one, as far as a process can tell: the kernel refuses to write past a limit."""
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"last\.pt: the checkpoint cannot be written"):
            save_checkpoint(saved, {**content(2), "much": torch.rand(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["last.pt"]


UNWRITABLE = (OSError(5, "Input/output error"), UserError, "cannot be written.*Input/output error")
LOST = (RuntimeError("DataLoader worker (pid 5) is killed"), RuntimeError, "^DataLoader worker")
"""PyTorch raises a lost worker's error wherever the process is; the disk is not to blame."""


@pytest.mark.parametrize(
    ("what", "error", "kind", "message"),
    [(name, *UNWRITABLE) for name in ("os.replace", "os.fsync", "torch.save")]
    + [("os.fsync", *LOST)],
)
def test_a_write_that_fails_leaves_the_old_checkpoint(saved, what, error, kind, message) -> None:
    with patch(what, side_effect=error), pytest.raises(kind, match=message):
        save_checkpoint(saved, content(2))
    assert load_checkpoint(saved)["progress"]["step"] == 1
    assert names(saved.parent) == ["last.pt"]
    save_checkpoint(saved, content(2))
    assert load_checkpoint(saved)["progress"]["step"] == 2


OPERATIONS = ("io.open", "os.fsync", "os.open", "os.replace", "os.link", "os.unlink")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_aborted_at_any_file_operation_both_names_stay_whole(tmp_path, code) -> None:
    """The n-th operation of saving and naming fails, for every n, and every one after it."""
    last, best = tmp_path / "last.pt", tmp_path / "best.pt"
    for number in itertools.count():
        save_checkpoint(last, content(1))
        link_checkpoint(last, best)
        calls = itertools.count()
        with ExitStack() as patches:
            for name in OPERATIONS:
                real = pkgutil.resolve_name(name)

                def perhaps(*arguments, real=real, calls=calls, number=number, **keywords):
                    if next(calls) >= number:
                        raise OSError(code, os.strerror(code))
                    return real(*arguments, **keywords)

                patches.enter_context(patch(name, perhaps))
            message = None
            try:
                save_checkpoint(last, content(2))
                link_checkpoint(last, best)
            except UserError as error:
                message = str(error)
        steps = [load_checkpoint(path)["progress"]["step"] for path in (last, best)]
        assert steps in ([1, 1], [2, 1], [2, 2])
        if message is None:
            break
        assert os.strerror(code) in message
    assert number > 8 and steps == [2, 2]
    assert names(tmp_path) == ["best.pt", "last.pt"]  # what could not be removed was used again


def test_every_version_stays_readable() -> None:
    """Files that were written before; ``data/make_checkpoint.py`` says how."""
    paths = sorted((Path(__file__).parent / "data").glob("checkpoint_version_*.pt"))
    assert [path.stem for path in paths] == [
        f"checkpoint_version_{number}" for number in range(1, checkpoint.VERSION + 1)
    ]
    for path in paths:
        saved = load_checkpoint(path)
        assert saved["progress"]["step"] == 6 and saved["model"]["out.weight"].shape == (4, 6)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / "gone" / "last.pt", content())


def test_a_file_that_cannot_be_read(saved: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert_refused(saved, r"cannot be read.*Permission denied")


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_second_name_keeps_its_content(saved: Path, monkeypatch, hard_links: bool) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(1, "Operation not permitted")))
    best = saved.with_name("best.pt")
    for step in (1, 2, 3):
        save_checkpoint(saved, content(step))
        if step < 3:
            link_checkpoint(saved, best)
            link_checkpoint(saved, best)  # as a resumed run does again
            assert best.samefile(saved) == hard_links
    assert load_checkpoint(best)["progress"]["step"] == 2
    assert load_checkpoint(saved)["progress"]["step"] == 3
    assert names(saved.parent) == ["best.pt", "last.pt"]


def test_naming_the_best_fails_without_harm(saved: Path, monkeypatch) -> None:
    best = saved.with_name("best.pt")
    link_checkpoint(saved, best)
    save_checkpoint(saved, content(2))
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"best\.pt: the checkpoint cannot be written.*No space"):
        link_checkpoint(saved, best)
    assert load_checkpoint(best)["progress"]["step"] == 1
    assert names(saved.parent) == ["best.pt", "last.pt"]
