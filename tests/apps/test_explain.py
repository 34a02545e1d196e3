"""EigenCAM of every generation."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.checkpoints import make_predictor, write_checkpoint
from yolo.apps.explain import eigencam, layers, scale_names, trained_network
from yolo.errors import UserError
from yolo.evaluate.exported import ExportedModel

pytest.importorskip("pytorch_grad_cam")

SCALES = {
    "yolov3": ["stride8", "stride16", "stride32"],
    "yolov3_spp": ["stride8", "stride16", "stride32"],
    "yolov3_tiny": ["stride16", "stride32"],
    "yolov2": ["stride32"],
    "yolov1": ["stride64"],
}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("model") / "best.pt", image_size=128)
    return make_predictor(path)


def a_bright_square():
    """Grey 60 x 120, with a noisy square at rows 20 to 40, columns 80 to 100."""
    image = np.full((60, 120, 3), 90, np.uint8)
    image[20:40, 80:100] = np.random.default_rng(0).integers(150, 256, (20, 20, 3))
    return image


@pytest.mark.parametrize("neck", SCALES)
def test_a_picture_for_each_scale(neck, tmp_path):
    path = write_checkpoint(tmp_path / "best.pt", neck=neck, image_size=128)
    predictor = make_predictor(path)
    overlays = eigencam(predictor, a_bright_square())
    assert scale_names(predictor) == SCALES[neck]
    assert [overlay.shape for overlay in overlays] == [(60, 120, 3)] * len(SCALES[neck])
    assert all(overlay.dtype == np.uint8 for overlay in overlays)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_map_lies_over_what_stands_out(precision, tmp_path):
    """Of an early layer: the square is warm (red over blue), wherever the letterbox puts it."""
    path = write_checkpoint(tmp_path / "best.pt", image_size=64)
    predictor = make_predictor(path, precision=precision)
    assert "encoder.convs.1.conv" in layers(trained_network(predictor).detector)
    for turns in range(4):
        image = np.rot90(a_bright_square(), turns).copy()
        (overlay,) = eigencam(predictor, image, layer_names=["encoder.convs.1.conv"])
        warmth = overlay[..., 0].astype(int) - overlay[..., 2]
        square = image[..., 0] > 140
        assert warmth[square].mean() > 0 > warmth[~square].mean()


def test_layers_are_shown_in_the_order_asked_for(predictor):
    """The neck runs its coarsest scale first."""
    image = a_bright_square()
    names = ["neck.stride8", "neck.stride16", "neck.stride32"]
    named = eigencam(predictor, image, layer_names=names)
    for one, other in zip(eigencam(predictor, image), named, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2


def test_threads_do_not_disturb_each_other(predictor):
    images = [np.roll(a_bright_square(), 25 * i, axis=1) for i in range(4)]
    one_by_one = [eigencam(predictor, image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: eigencam(predictor, image), images))
    for one, other in zip(one_by_one, together, strict=True):
        difference = np.abs(np.stack(one).astype(int) - np.stack(other))
        assert difference.max() <= 2
    hooks = [len(m._forward_hooks) for m in trained_network(predictor).detector.modules()]
    assert sum(hooks) == 0


def test_layers_that_cannot_be_shown(predictor):
    image = a_bright_square()
    with pytest.raises(UserError, match=r"no layer 'neck\.stride99'"):
        eigencam(predictor, image, layer_names=["neck.stride99"])
    for name, problem in (
        ("encoder.convs", "does not run by itself"),
        ("head.stride8", r"returns numbers of shape \(1, 3, 16, 16, 11\)"),
    ):
        with pytest.raises(UserError, match=f"one map, and {name} {problem}; choose one inside it"):
            eigencam(predictor, image, layer_names=["neck.stride8", name])
    exported = replace(predictor, network=ExportedModel.__new__(ExportedModel))
    with pytest.raises(UserError, match="EigenCAM needs the checkpoint"):
        eigencam(exported, image)


def test_without_the_package_there_is_a_sentence(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[explain\]'"):
        eigencam(predictor, a_bright_square())
