"""scripts/predict.py and scripts/explain.py as a user runs them, in process."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from scripts import explain as explaining
from scripts import predict as predicting
from tests.apps.predict.test_sources import write_video
from tests.checkpoints import CONF, NAMES, make_predictor, write_checkpoint
from yolo.apps.predict.results import JsonFile, Pictures
from yolo.apps.predict.run import Tally, predict_sources
from yolo.apps.predict.sources import find_sources


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pt")


@pytest.fixture
def mixed(tmp_path):
    """A folder as one finds them."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "notes.txt").write_text("text")
    (folder / "empty.jpg").touch()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "rgb.png")
    Image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise[:50]).save(folder / "other.tif")
    write_video(folder / "film.avi", frames=10)
    return folder


CHECKPOINT_B = ("--checkpoint", "b.pt")


def predict(checkpoint, *argv) -> int:
    common = ["--checkpoint", checkpoint, "--gpu", "cpu", "--precision", "fp32", "--conf", CONF]
    return predicting.main(list(map(str, [*argv, *common])))


def test_a_mixed_folder(checkpoint, mixed, tmp_path, capsys):
    out, txt, found = tmp_path / "out", tmp_path / "txt", tmp_path / "found.json"
    argv = [mixed, "--output", out, "--json", found, "--save-txt", txt]
    assert predict(checkpoint, *argv) == 0
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 1 and "empty.jpg is an empty file" in printed
    assert "13 images, " in printed and ", 1 broken and skipped; " in printed
    names = ["cmyk.jpg", "film.mp4", "other.jpg", "rgb.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    film = cv2.VideoCapture(str(out / "film.mp4"))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FPS)) == (10, 10)
    assert cv2.imread(str(out / "other.jpg")).shape == (50, 90, 3)
    drawn, plain = cv2.imread(str(out / "rgb.png")), cv2.imread(str(mixed / "rgb.png"))
    assert drawn.shape == plain.shape and (drawn != plain).any()
    check_json(found, checkpoint, mixed)
    assert len(list(txt.iterdir())) == 13
    rows = [line.split() for line in (txt / "rgb.txt").read_text().splitlines()]
    assert {row[0] for row in rows} <= {name.replace(" ", "_") for name in NAMES}
    assert (txt / "film_000009.txt").exists()


def check_json(path, checkpoint, folder):
    """It is COCO's form, and holds what the predictor finds."""
    coco = COCO(str(path))
    entries = json.loads(path.read_text())["images"]
    assert [entry["file_name"] for entry in entries][:2] == ["cmyk.jpg", "film.avi"]
    assert [entry["frame"] for entry in entries if "frame" in entry] == list(range(10))
    (rgb,) = (entry["id"] for entry in entries if entry["file_name"] == "rgb.png")
    predictor = make_predictor(checkpoint, conf=CONF)
    (expected,) = predictor(folder / "rgb.png")
    boxes = coco.imgToAnns[rgb]
    assert [box["category_name"] for box in boxes] == expected.names != []
    corners = np.array([box["bbox"] for box in boxes])
    corners[:, 2:] += corners[:, :2]
    np.testing.assert_allclose(corners, expected.detections.boxes_xyxy_px, atol=1e-3)
    assert coco.loadCats(boxes[0]["category_id"])[0]["name"] == boxes[0]["category_name"]


def test_test_time_augmentation(checkpoint, mixed, tmp_path):
    found, image = tmp_path / "found.json", mixed / "rgb.png"
    assert predict(checkpoint, image, "--output", tmp_path, "--json", found, "--tta") == 0
    (expected,) = make_predictor(checkpoint, conf=CONF, tta=True)(image)
    boxes = json.loads(found.read_text())["annotations"]
    assert [box["score"] for box in boxes] == expected.detections.scores.tolist() != []
    assert expected.names != make_predictor(checkpoint, conf=CONF)(image)[0].names


def test_the_confidence_of_each_class(mixed, tmp_path, capsys):
    found, image = tmp_path / "found.json", mixed / "rgb.png"
    own = [0.3, 0.1, 0.5, 0.2, 1.0, 0.15]
    path = write_checkpoint(tmp_path / "best.pt", content={"class_conf": own})
    argv = [path, image, "--gpu", "cpu", "--precision", "fp32", "--conf", "auto"]
    argv += ["--output", tmp_path / "out", "--json", found]
    assert predicting.main(list(map(str, argv))) == 0
    boxes = json.loads(found.read_text())["annotations"]
    assert all(box["score"] >= own[NAMES.index(box["category_name"])] for box in boxes) and boxes
    path = write_checkpoint(path)
    assert predicting.main(list(map(str, argv))) == 1
    assert "has no confidences of its classes; validation.py" in capsys.readouterr().err


def test_all_real_validation_images(checkpoint, real_data, tmp_path, capsys):
    images = real_data / "coco-mini" / "val2017"
    assert predict(checkpoint, images, "--output", tmp_path) == 0
    assert "79 images, " in (printed := capsys.readouterr().out) and "skipped" not in printed
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in images.iterdir()}


def test_only_broken_ones(checkpoint, tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.mp4").write_text("text")
    assert predict(checkpoint, tmp_path, "--output", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert printed.err == "error: nothing could be read\n"
    assert printed.out.count("skipped: ") == 2 and "0 images, 0 boxes, 2 broken" in printed.out
    assert not (tmp_path / "out").exists()


def test_eigencam_beside_the_boxes(checkpoint, mixed, tmp_path):
    assert predict(checkpoint, mixed / "rgb.png", "--output", tmp_path, "--eigencam") == 0
    height, width, _ = cv2.imread(str(tmp_path / "rgb.png")).shape
    assert height > 2 * 60 and width > 2 * 90  # boxes and three scales


class Stops:
    """Ctrl-C at the fourth frame."""

    def __init__(self):
        self.frames = 0

    def add(self, frame, prediction):
        self.frames += 1
        if self.frames == 4:
            raise KeyboardInterrupt

    def close(self):
        self.frames = -1


def test_after_ctrl_c_all_files_are_whole(checkpoint, mixed, tmp_path):
    predictor = make_predictor(checkpoint)
    sources, _ = find_sources([str(mixed / "film.avi")])
    json_file = JsonFile(tmp_path / "a.json", predictor, checkpoint)
    results = [Pictures(tmp_path / "out", NAMES), json_file, stops := Stops()]
    tally = predict_sources(predictor, sources, results, log=print)
    assert tally.interrupted and stops.frames == -1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.mp4"]
    film = cv2.VideoCapture(str(tmp_path / "out/film.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert len(json.loads((tmp_path / "a.json").read_text())["images"]) == 4


def test_ctrl_c_before_the_first_frame_is_no_failure(checkpoint, mixed, monkeypatch, capsys):
    stopped = Tally(interrupted=True)
    monkeypatch.setattr("yolo.apps.predict.run.predict_sources", lambda *_, **__: stopped)
    assert predict(checkpoint, mixed / "film.avi") == 130
    assert capsys.readouterr().err == ""


def test_a_video_named_like_a_protocol_goes_to_the_working_folder(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "12:30:00.avi", frames=5)
    assert predict(checkpoint, "12:30:00.avi", "--output", ".") == 0
    film = cv2.VideoCapture(str(tmp_path / "12:30:00.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"12:30:00.avi", "12:30:00.mp4"}


def test_a_folder_whose_name_is_no_utf_8(checkpoint, mixed, tmp_path, capsys):
    for name, code in (("rgb.png", 0), ("film.avi", 1)):
        assert predict(checkpoint, mixed / name, "--output", tmp_path / "\udce9") == code
    assert "no name in UTF-8" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "\udce9").iterdir()] == ["rgb.png"]


@pytest.mark.parametrize("other", ["film.mp4", "film.partial.mp4"])
def test_no_source_is_overwritten_by_the_result_of_another(
    checkpoint, tmp_path, monkeypatch, capsys, other
):
    monkeypatch.chdir(tmp_path)
    films = {write_video(tmp_path / name).name for name in ("film.avi", other)}
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert predict(checkpoint, *sorted(films), "--output", ".") == 1
    message = f"{other}: would be overwritten by the result of film.avi; name another --output"
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("room", [0, 1, 3_000, 9_000])
def test_a_video_on_a_full_disk(checkpoint, mixed, tmp_path, capsys, room):
    """A real one, as far as a process can tell: the kernel refuses to write past a limit."""
    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        assert predict(checkpoint, mixed / "film.avi", "--output", out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out / 'film.mp4'}: the video cannot be written; check")
    assert list(out.iterdir()) == []


def test_json_into_a_device_or_through_a_link(checkpoint, mixed, tmp_path):
    places = {"null.json": "/dev/null", "link.json": "found.json"}
    for name, target in places.items():
        (tmp_path / name).symlink_to(target)
        argv = [mixed / "rgb.png", "--output", tmp_path / "out", "--json", tmp_path / name]
        assert predict(checkpoint, *argv) == 0
        assert (tmp_path / name).is_symlink()
    assert len(json.loads((tmp_path / "found.json").read_text())["images"]) == 1


def test_what_cannot_be_written(checkpoint, mixed, capsys):
    before = {path: path.read_bytes() for path in mixed.iterdir()}
    assert predict(checkpoint, mixed, "--output", mixed) == 1
    assert "cmyk.jpg: would be overwritten by its own result" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in mixed.iterdir()} == before
    assert predict(checkpoint, mixed / "rgb.png", "--output", "/proc/none") == 1  # a full disk
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "required: source"),
        (["a.jpg", "--conf", "2"], "must be a number from 0 to 1"),
        (["a.jpg", "--gpu", "0,1"], "prediction uses one device"),
        (["a.jpg", "--json", "/nowhere/a.json"], "there is no folder /nowhere"),
        (["a.jpg", "--output", __file__], "must be a folder, but is a file"),
    ],
)
def test_bad_usage(argv, text, usage_error):
    error = usage_error(predicting.main, *argv)
    assert text in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("script", [predicting, explaining])
def test_a_checkpoint_may_stand_among_the_images(script, tmp_path, usage_error):
    """Known by its name, a run's folder by its files; a folder of images is none."""
    run, photos = tmp_path / "run", tmp_path / "photos"
    for folder, names in ((run, ("config.yaml", "last.pt")), (photos, ("config.yaml", "1.jpg"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    images = "source" if script is predicting else "image"
    for named in (run, Path("a.onnx"), Path("no/best.pt")):
        for argv in ([named, photos], [photos, named], [photos, "--checkpoint", named]):
            given = script.parse(list(map(str, argv)))
            assert given.checkpoint == named
            assert list(map(str, getattr(given, images))) == [str(photos)]
    assert script.parse(["a.jpg"]).checkpoint is None
    assert "a.pt and b.pt: name one" in usage_error(script.main, "a.pt", "b.pt", "c.jpg")
    assert "a.pt and b.pt: name one" in usage_error(script.main, "a.pt", "c.jpg", *CHECKPOINT_B)
    assert "name" in usage_error(script.main, "a.pt")


def test_what_is_not_there_is_named_before_the_network_is_loaded(tmp_path, capsys):
    assert predict(tmp_path / "none.pt", "none.jpg") == 1
    assert capsys.readouterr().err == "error: none.jpg: there is no such file or folder\n"


def test_explain_writes_a_picture_for_each_scale_or_layer(
    checkpoint, mixed, tmp_path, capsys, usage_error
):
    common = [str(checkpoint), "--gpu", "cpu", "--output", str(tmp_path / "maps")]
    image = str(mixed / "rgb.png")
    assert explaining.main([image, *common]) == 0
    names = ["rgb_stride16.png", "rgb_stride32.png", "rgb_stride8.png"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == names
    assert cv2.imread(str(tmp_path / "maps" / names[0])).shape == (60, 90, 3)
    assert explaining.main(["--list", *common]) == 0
    layers = capsys.readouterr().out.splitlines()[3:]
    assert "neck.stride8" in layers and "head.stride8.conv" in layers
    assert explaining.main([*common, image, "--layer", "neck.stride8"]) == 0
    assert (tmp_path / "maps" / "rgb_neck.stride8.png").exists()
    assert explaining.main([*common, image, "--layer", "neck.stride9"]) == 1
    assert "no layer 'neck.stride9' (did you mean 'neck.stride8'?)" in capsys.readouterr().err
    assert "name an image" in usage_error(explaining.main)
