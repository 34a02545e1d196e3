import json

import numpy as np

from scripts import report
from tests.apps.report.pages import HOSTILE, Page
from yolo.apps.report.drawing import save_image
from yolo.apps.report.run import RunFolder, write_report
from yolo.config import REPOSITORY_ROOT, load_config, resolved_yaml


def training(step, wait=0.01, **more):
    losses = {"loss": 30.0 / step, "loss/xy": 20.0 / step, "loss/object": 10.0 / step}
    speed = {
        "images_per_second": 50.0,
        "data_wait_share": wait,
        "skipped_steps": 0,
        "gradient_norm": 3.0,
    }
    figures = {**losses, **speed, "accuracy/class": 0.5, "learning_rate": 1e-3}
    return {"phase": "training", "step": step, **figures, **more}


def validation(step, ap50, **more):
    figures = {"AP": ap50 / 2, "AP50": ap50, "APs": -1.0, "loss": 40.0, "found_boxes": 1200.0}
    return {"phase": "validation", "step": step, **figures, **more}


def make_run(folder, records, config="quickstart.yaml", overrides=()):
    folder.mkdir(parents=True)
    resolved = load_config(REPOSITORY_ROOT / "configs" / config, list(overrides))
    (folder / "config.yaml").write_text(resolved_yaml(resolved))
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def read(folder):
    return Page(write_report(folder).read_text())


def test_a_finished_run(tmp_path):
    records = [training(step) for step in range(20, 401, 20)]
    records += [validation(200, 0.8), validation(300, 0.8), validation(400, 0.7)]
    steps = "training.steps=400"
    run = make_run(tmp_path / "first", records, overrides=[steps, f"data.val.root={HOSTILE[0]}"])
    for step, shade in ((200, 60), (300, 120), (400, 180)):
        save_image(run / f"pictures/step_{step:06d}.jpg", np.full((50, 80, 3), shade, np.uint8))
    page = read(run)
    assert "The best AP50 is 0.8000, at step 200." in page.text  # of equals the earlier
    assert "best, step 200" in page.texts and "last, step 400" in page.texts
    assert "step 400 of 400" in page.text and "detect · quickstart.yaml" in page.text
    assert "1,200" in page.texts and "the data keeps up" in page.text
    assert page.tags.count("svg") == 8
    assert [picture[0, 0, 0] for picture in page.pictures] == [180, 60]
    assert "command line" in page.texts and "default" in page.texts
    assert "configs/quickstart.yaml" in page.texts
    assert any(HOSTILE[0] in data for data in page.texts)
    assert "APs" not in page.text.partition("Average precision by size")[2]  # -1 all along


def test_a_run_whose_validation_set_has_no_truth_has_no_best(tmp_path):
    run = make_run(tmp_path / "a", [training(20), validation(20, -1.0), validation(40, -1.0)])
    assert RunFolder(run).best is None
    assert "The best AP50" not in read(run).text


def test_a_run_without_an_evaluation_and_with_half_a_line(tmp_path):
    waiting = [training(20, wait=0.9), training(40, wait=0.3, loss=None, skipped_steps=3)]
    run = make_run(tmp_path / "young", waiting)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "training", "step": 60, "lo')
    page = read(run)
    assert "no evaluation yet" in page.text and "step 40 of" in page.text
    assert "waited for data 30.0% of the time" in page.text and "bottleneck" in page.text
    assert "3 steps were skipped" in page.text and "drawn no picture" in page.text


def test_a_run_without_a_report_yet(tmp_path):
    run = make_run(tmp_path / "new", [])
    assert "no report" in read(run).text
    (run / "metrics.jsonl").unlink()
    assert "step 0 of" in read(run).text
    (run / "config.yaml").write_text("no: [config")
    hostile = '{"phase": "training", "step": 1e999}\n{"phase": "training", "step": 9'
    hostile += "9" * 400 + "}\n" + "[" * 100_000 + "\n"
    records = json.dumps(training(20, skipped_steps=float("inf"), images_per_second=10**400))
    (run / "metrics.jsonl").write_text("[]\n{}\n" + hostile + records)
    assert "step 20" in read(run).text


def test_a_classifier(tmp_path):
    figures = {"accuracy/top1": 0.4, "accuracy/top5": 0.9}
    records = [training(10, **figures), training(20, **figures)]
    records.append({"phase": "validation", "step": 20, "top1": 0.5, "top5": 1.0, "loss": 1.0})
    run = make_run(tmp_path / "c", records, config="pretrain/shapes_mobilenet_v3_small.yaml")
    page = read(run)
    assert "The best top1 is 0.5000, at step 20." in page.text
    assert "Right answers in training" in page.texts


def test_every_value_of_the_config_has_its_origin(tmp_path):
    overrides = ["data.augment=[{type: HorizontalFlip, p: 0.25}]", "logging.directory='a  # b'"]
    run = make_run(tmp_path / "r", [], overrides=overrides)
    settings = RunFolder(run).settings
    assert settings["logging.directory"].origin == "command line"
    assert "a  # b" in settings["logging.directory"].value
    assert settings["training.batch_size"].origin == "configs/quickstart.yaml"
    page = read(run)
    assert "[{type: HorizontalFlip, p: 0.25}]" in page.texts


def test_the_script(tmp_path, capsys, usage_error):
    run = make_run(tmp_path / "logs" / "only", [training(20), validation(20, 0.5)])
    assert report.main(["--logs", str(tmp_path / "logs")]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    other = tmp_path / "other.html"
    (run / "analysis.html").touch()
    assert report.main([str(run / "best.pt"), "--output", str(other)]) == 0
    assert "error analysis" not in Page(other.read_text()).text
    assert report.main([str(run)]) == 0
    assert "error analysis" in Page((run / "report.html").read_text()).text
    before = other.read_text()
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(other)  # in the folder of a stranger, who means harm
    assert report.main([str(run)]) == 0
    assert other.read_text() == before and not (run / "report.html").is_symlink()
    capsys.readouterr()
    assert report.main([str(tmp_path)]) == 1
    wanted = "not the folder of a run: it has neither config.yaml nor metrics.jsonl"
    assert wanted in capsys.readouterr().err
    assert report.main(["--logs", str(tmp_path / "none")]) == 1
    assert "must end in .html" in usage_error(report.main, str(run), "--output", "page.pdf")
