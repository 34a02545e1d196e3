import io
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from yolo.apps.report.drawing import EvaluationPictures
from yolo.errors import UserError
from yolo.train.log import FolderLog


def figures(loss: float, **more: float) -> dict[str, float]:
    return {
        "loss": loss,
        "loss/xy": loss / 4,
        "loss/wh": loss * 3 / 4,
        "learning_rate": 0.001,
        "images_per_second": 12.3,
        "data_wait_share": 0.05,
        **more,
    }


def records(folder: Path) -> list[dict]:
    """As a strict reader sees them: NaN and Infinity are no JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder)).Reload()
    return [(event.step, round(event.value, 5)) for event in reader.Scalars(name)]


def test_outside_a_terminal_each_report_is_one_plain_line(tmp_path: Path, capfd) -> None:
    log = FolderLog(folder=tmp_path, steps=20)
    log.message("hello")
    for step in (10, 20):
        log.progress(step)
        log.training(step, figures(8.0), seconds_left=3600 * 26 - step)
    log.evaluation(20, {"AP": 0.5}, [])
    log.close()
    out, err = capfd.readouterr()
    assert err == ""
    assert all(c == "\n" or c.isprintable() for c in out)
    assert out.splitlines() == [
        "hello",
        "step 10/20  loss 8 (xy 2 wh 6)  lr 1.0e-3  12.3 images/s  25:59:50 left",
        "step 20/20  loss 8 (xy 2 wh 6)  lr 1.0e-3  12.3 images/s  25:59:40 left",
    ]


def test_a_report_has_at_most_120_columns(tmp_path: Path, capsys) -> None:
    """That of a YOLOv3 after many steps, with days to go."""
    terms = {"box": 4.987, "object": 3.524, "class": 1.268, "no_object": 1.135}
    loss = {f"loss/{name}": value for name, value in terms.items()}
    speed = {"images_per_second": 34.567, "learning_rate": 0.000148, "accuracy/object": 0.5}
    log = FolderLog(folder=tmp_path, steps=150_000)
    log.training(123_400, {"loss": 10.914, **loss, **speed}, seconds_left=359_999)
    log.close()
    line = capsys.readouterr().out.rstrip("\n")
    assert line.endswith("lr 1.5e-4  34.57 images/s  99:59:59 left") and len(line) <= 120


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_a_bar_moves_instead(tmp_path: Path, monkeypatch, capsys) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    log = FolderLog(folder=tmp_path, steps=8, start_step=2)
    for step in range(3, 9):
        log.training(step, figures(1.5), seconds_left=1.0)
        log.progress(step)
    log.message("a table")
    log.close()
    assert capsys.readouterr().out == "a table\n"
    assert "2/8" in screen.getvalue() and "8/8" in screen.getvalue()
    assert "loss=1.5" in screen.getvalue()


def test_metrics_and_tensorboard_hold_every_figure(tmp_path: Path) -> None:
    log = FolderLog(folder=tmp_path, steps=4)
    log.training(2, figures(8.0), seconds_left=1.0)
    log.training(4, figures(4.0, skipped_steps=1), seconds_left=0.0)
    log.evaluation(4, {"AP50": 0.25, "loss/xy": 1.5}, [])
    log.close()
    assert records(tmp_path) == [
        {"phase": "training", "step": 2, **figures(8.0)},
        {"phase": "training", "step": 4, **figures(4.0), "skipped_steps": 1},
        {"phase": "validation", "step": 4, "AP50": 0.25, "loss/xy": 1.5},
    ]
    assert scalars(tmp_path, "training/loss") == [(2, 8.0), (4, 4.0)]
    assert scalars(tmp_path, "training/loss/wh") == [(2, 6.0), (4, 3.0)]
    assert scalars(tmp_path, "validation/AP50") == [(4, 0.25)]


def test_a_report_without_a_finished_step_is_still_json(tmp_path: Path, capsys) -> None:
    log = FolderLog(folder=tmp_path, steps=4)
    log.training(1, figures(float("nan")), seconds_left=1.0)
    log.close()
    assert records(tmp_path)[0]["loss"] is None
    assert "loss nan" in capsys.readouterr().out


def test_pictures_are_one_file_and_one_picture_each_in_tensorboard(tmp_path: Path, capsys) -> None:
    red, blue = np.zeros((2, 20, 30, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    log = FolderLog(folder=tmp_path, steps=3, save_pictures=EvaluationPictures().save)
    log.evaluation(2, {"AP": 0.1}, [blue, red])
    assert capsys.readouterr().out == ""  # the last ones alone are named
    log.evaluation(3, {"AP": 0.1}, [red, blue])
    log.close()
    path = tmp_path / "pictures" / "step_000003.jpg"
    assert capsys.readouterr().out == f"pictures: {path}\n"
    sheet = cv2.imread(str(path))[..., ::-1]  # BGR -> RGB
    assert sheet.shape[0] == 20 and sheet.shape[1] >= 60
    assert sheet[10, 5, 0] > 200 and sheet[10, -5, 2] > 200

    reader = EventAccumulator(str(tmp_path)).Reload()
    for index, picture in enumerate((red, blue)):
        _, event = reader.Images(f"validation/{index}")
        encoded = np.frombuffer(event.encoded_image_string, np.uint8)
        shown = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
        assert event.step == 3 and (shown == picture).all()


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    first = FolderLog(folder=tmp_path, steps=6)
    for step in range(1, 6):
        first.training(step, figures(step), seconds_left=1.0)
    first.evaluation(2, {"AP": 0.2}, [])
    first.evaluation(5, {"AP": 0.5}, [])
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "training", "step": 1, "lo')  # a crash in the middle of a line

    resumed = FolderLog(folder=tmp_path, steps=6, start_step=3)
    resumed.training(4, figures(40), seconds_left=1.0)
    resumed.close()
    names = [path.name for path in tmp_path.iterdir() if "tfevents" not in path.name]
    assert names == ["metrics.jsonl"]
    found = [(r["phase"], r["step"], r.get("loss", r.get("AP"))) for r in records(tmp_path)]
    assert found == [
        *(("training", step, step) for step in (1, 2, 3)),
        ("validation", 2, 0.2),
        ("training", 4, 40),
    ]
    assert scalars(tmp_path, "training/loss") == [(1, 1), (2, 2), (3, 3), (4, 40)]
    assert scalars(tmp_path, "validation/AP") == [(2, 0.2)]


def test_an_evaluation_that_is_made_again_is_kept_once(tmp_path: Path) -> None:
    """A kill came after step 4 was evaluated and reported, before a checkpoint knew of it."""
    first = FolderLog(folder=tmp_path, steps=6)
    for step in (2, 4):
        first.training(step, figures(step), seconds_left=1.0)
        first.evaluation(step, {"AP": step / 10}, [])
    first.close()
    resumed = FolderLog(folder=tmp_path, steps=6, start_step=4, evaluated_step=2)
    resumed.evaluation(4, {"AP": 0.4}, [])
    resumed.training(6, figures(6), seconds_left=1.0)
    resumed.close()
    steps = [(record["phase"], record["step"]) for record in records(tmp_path)]
    of_validation = [("validation", 2), ("validation", 4)]
    assert sorted(steps) == [*(("training", step) for step in (2, 4, 6)), *of_validation]
    assert scalars(tmp_path, "validation/AP") == [(2, 0.2), (4, 0.4)]
    assert scalars(tmp_path, "training/loss") == [(2, 2), (4, 4), (6, 6)]


def test_a_log_that_was_spoiled_is_cut_to_what_can_be_read(tmp_path: Path) -> None:
    whole = json.dumps({"phase": "training", "step": 1, "loss": 2.0}).encode()
    lines = [b"3", b"[]", b'{"step": "1", "phase": "training"}', b"\xff\xfe", whole, whole[:-4]]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    FolderLog(folder=tmp_path, steps=4, start_step=1).close()
    assert records(tmp_path) == [{"phase": "training", "step": 1, "loss": 2.0}]


def test_a_full_disk_is_noticed_by_the_report_that_meets_it(tmp_path: Path) -> None:
    """TensorBoard's own writer would only have lost a thread."""
    log = FolderLog(folder=tmp_path, steps=4)
    threads = threading.active_count()
    log.training(1, figures(1.0), seconds_left=1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log._events.path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(UserError, match=r"events\.out\.tfevents\..*: cannot be written"):
            log.evaluation(1, {"AP": 0.1}, [np.zeros((8, 8, 3), np.uint8)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.close()
    assert threading.active_count() == threads
    assert scalars(tmp_path, "training/loss") == [(1, 1)]  # and what was written is whole


def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    run, others = tmp_path / "run", tmp_path / "others"
    run.mkdir()
    for target in (others, tmp_path / "nothing"):
        (run / "metrics.jsonl").symlink_to(target)
        with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written .it is a link"):
            FolderLog(folder=run, steps=4)
        (run / "metrics.jsonl").unlink()
        others.write_text("others")
    log = FolderLog(folder=run, steps=4, save_pictures=EvaluationPictures().save)
    (run / "metrics.jsonl").symlink_to(others)
    with pytest.raises(UserError, match="it is a link"):
        log.training(1, figures(1.0), seconds_left=1.0)
    (run / "metrics.jsonl").unlink()
    (run / "pictures").symlink_to(tmp_path)
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r"pictures: cannot be written .it is a link"):
        log.evaluation(1, {"AP": 0.1}, [picture])
    (run / "pictures").unlink()
    (run / "pictures").mkdir()
    (run / "pictures/step_000001.jpg").symlink_to(others)
    with pytest.raises(UserError, match=r"step_000001\.jpg: cannot be written .it is a link"):
        log.evaluation(1, {"AP": 0.1}, [picture])
    log.close()
    assert others.read_text() == "others"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "others"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    log = FolderLog(folder=tmp_path, steps=4)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written"):
        log.training(1, figures(1.0), seconds_left=1.0)
    log.close()


def test_a_terminal_that_is_gone_is_written_to_no_more() -> None:
    """As after nohup: what was not printed must not fail a later flush."""
    program = """
import errno, sys
from yolo.errors import stop_printing
print("ready", flush=True)
sys.stdin.readline()
try:
    print("lost" * 99, flush=True)
except OSError as error:
    assert error.errno == errno.EIO
    stop_printing()
    sys.stdout.flush()
    print("dropped", file=sys.stderr, flush=True)
    sys.exit(7)
"""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while b"\n" not in os.read(ours, 99):
        continue
    os.close(ours)
    process.communicate(b"go on\n")
    assert process.returncode == 7
