"""The folder of a hosted Space."""

import io
import os
import re
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.apps.demo.stand_ins import NAMES, started, write_trained
from yolo.apps.demo import show
from yolo.apps.demo.show import make_space
from yolo.apps.predict import Predictor
from yolo.errors import UserError
from yolo.models.torch_weights import evaluated_tensors
from yolo.train.checkpoint import load_checkpoint


@pytest.mark.parametrize("averaged", [True, False])
def test_layout_and_a_lean_model(averaged, tmp_path):
    checkpoint = write_trained(tmp_path / "best.pt", averaged=averaged)
    folder = tmp_path / "space"
    written = make_space(checkpoint, folder)
    names = {"app.py", "requirements.txt", "README.md", "LICENSE", "model.pt", "yolo"}
    assert {path.name for path in written} == {path.name for path in folder.iterdir()} == names
    front = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---")[1])
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert re.fullmatch(r"[\d.]+", front["sdk_version"])
    needed = (folder / "requirements.txt").read_text().split()
    assert {"gradio", "torchvision", "grad-cam>=1.5.7"} <= set(needed)
    assert (folder / "yolo" / "config" / "transforms.json").is_file()
    assert not list(folder.rglob("__pycache__"))

    before, after = load_checkpoint(checkpoint), load_checkpoint(folder / "model.pt")
    assert (folder / "model.pt").stat().st_size < checkpoint.stat().st_size - 4_000_000
    wanted, kept = evaluated_tensors(before), evaluated_tensors(after)
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
    assert len(kept) == len(wanted)
    assert before["config"]["data"]["val"]["images"] == "/nowhere"  # a folder of this machine
    assert after["config"]["data"]["val"]["images"] == "data/nowhere"
    assert Predictor.from_checkpoint(folder / "model.pt", device="cpu").class_names == list(NAMES)


def test_another_suffix_is_lean_too(tmp_path):
    make_space(write_trained(tmp_path / "best.pth"), tmp_path / "space")
    assert "optimizer" not in load_checkpoint(tmp_path / "space" / "model.pth")


def test_a_space_is_renewed_and_nothing_else_is_overwritten(tmp_path):
    checkpoint = write_trained(tmp_path / "best.pt")
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    make_space(checkpoint, clone)
    (clone / "yolo" / "gone_since.py").touch()
    (tmp_path / "others").write_text("others")
    for name in ("README.md", "LICENSE", "model.pt"):
        (clone / name).unlink()
        (clone / name).symlink_to(tmp_path / "others")
    make_space(checkpoint, clone)
    assert (tmp_path / "others").read_text() == "others"
    assert not any(path.is_symlink() for path in clone.iterdir())
    assert (clone / ".git").is_dir()
    assert not (clone / "yolo" / "gone_since.py").exists()
    with pytest.raises(UserError, match="holds other files"):
        make_space(checkpoint, tmp_path)
    with pytest.raises(UserError, match="a file; name a folder"):
        make_space(checkpoint, checkpoint)


def test_an_exported_model_brings_its_runtime(tmp_path):
    (tmp_path / "best.onnx").write_bytes(b"onnx")
    make_space(tmp_path / "best.onnx", tmp_path / "space")
    assert "onnxruntime" in (tmp_path / "space" / "requirements.txt").read_text().split()
    assert (tmp_path / "space" / "model.onnx").read_bytes() == b"onnx"
    assert 'HERE / "model.onnx"' in (tmp_path / "space" / "app.py").read_text()


def test_a_damaged_checkpoint_leaves_no_space(tmp_path):
    (tmp_path / "best.pt").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        make_space(tmp_path / "best.pt", tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_the_address_is_written_at_once(tmp_path, monkeypatch):
    """Also into a file, as under nohup, where lines wait for more of them."""
    written = io.BytesIO()

    def wait(_):
        assert b"best.pt: open http://127.0.0.1:" in written.getvalue()
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    monkeypatch.setattr(show, "time", SimpleNamespace(sleep=wait))
    monkeypatch.setattr(show.signal, "signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        show.show(write_trained(tmp_path / "best.pt"), device="cpu")


@pytest.mark.slow
def test_the_app_runs_from_its_folder(tmp_path):
    httpx = pytest.importorskip("httpx")
    folder = tmp_path / "space"
    make_space(write_trained(tmp_path / "best.pt"), folder)
    foreign = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    environment |= {"GRADIO_SERVER_PORT": "7899", "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    with started(["app.py"], cwd=folder, env=environment) as (process, line):
        assert line, "the app did not start"
        assert str(folder / "model.pt") in line
        assert httpx.get("http://127.0.0.1:7899/config").is_success
        cache = folder / "yolo" / "apps" / "demo" / "__pycache__"
        assert cache.is_dir(), "another yolo was imported"
    assert process.returncode == 128 + signal.SIGTERM
    assert not list((tmp_path / "temporary").glob("yolo-demo-*"))
