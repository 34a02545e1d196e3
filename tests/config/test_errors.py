"""Every way to get a config wrong, with the exact words that the user reads."""

from pathlib import Path
from string import Template

import pytest

from tests.config.conftest import QUICKSTART
from yolo.config import ConfigError, config_from_dict, load_config
from yolo.config.schema.training import TrainingConfig
from yolo.config.schema.transforms import transforms
from yolo.models.encoders import ENCODERS


def joined(names) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"


def wrong_values() -> dict[str, str]:
    """Override -> what is printed of it: each two lines of wrong_values.txt."""
    text = Template(Path(__file__).with_name("wrong_values.txt").read_text("utf-8")).substitute(
        ENCODERS=f"one of {joined(sorted(ENCODERS))}",
        TRANSFORMS=joined(transforms()),
        TRAINING_KEYS=", ".join(TrainingConfig.model_fields),
        SECTIONS="task, seed, model, loss, data, training, evaluation, logging",
    )
    lines = text.splitlines()
    return dict(zip(lines[::2], map(str.strip, lines[1::2]), strict=True))


WRONG_VALUES = wrong_values()


def test_some_wrong_values_were_found():
    assert len(WRONG_VALUES) == 69


@pytest.mark.parametrize("override", WRONG_VALUES)
def test_wrong_value(override, problems, write):
    assert problems(write(""), override) == [f"command line: {WRONG_VALUES[override]}"]


def test_all_problems_are_printed_at_once_with_their_files(problems, write):
    write("training: {steps: none}\nlogging: {evry: 3}", name="base/base.yaml")
    file = write("extends: base/base.yaml\nseed: 0.5\n", whole=True)
    assert problems(file, "data.workers=-1") == [
        "test.yaml: seed: 0.5: must be a whole number of at least 0 and below 4294967296",
        "command line: data.workers: -1: must be a whole number from 0 to 512 or 'auto'",
        "base/base.yaml: training.steps: 'none': must be a whole number of at least 1",
        "base/base.yaml: logging.evry: 3: unknown key, allowed are every, directory "
        "(did you mean 'every'?)",
    ]


def test_missing_keys(problems, write):
    lines = problems(write("seed: 1", whole=True))
    assert [line.split(": ")[1:3] for line in lines] == [
        [section, "missing"] for section in ("model", "loss", "data", "training", "evaluation")
    ]


def test_neighbouring_cells_need_centres_that_leave_their_cell(problems, write):
    ratio, far = "loss.assignment=ratio", "model.head.scale_xy=2"
    assert problems(write(""), ratio, "model.head.scale_xy=1.9") == [
        "command line: loss.assignment: 'ratio': needs model.head.scale_xy 2 or more: "
        "neighbouring cells learn the centre too"
    ]
    load_config(write(""), [ratio, far])


SMALLEST = {"null": 256, "{min: 96, max: 320}": 96, "{min: 320, max: 608, until_step: 9}": 256}


@pytest.mark.parametrize("multi_scale", SMALLEST)
def test_a_cut_that_would_not_fit_the_smallest_image(problems, write, multi_scale):
    crop = "{type: RandomCrop, height: 300, width: 64}"
    hole = "{type: CoarseDropout, hole_height_range: [290, 310], hole_width_range: [0.5, 0.6]}"
    padded = "{type: RandomCrop, height: 700, width: 64, pad_if_needed: true}"
    never = "{type: RandomCrop, height: 700, width: 64, p: 0}"
    found = problems(
        write(f"data: {{image_size: 256, multi_scale: {multi_scale}}}"),
        f"data.augment=[{crop}, {hole}, {padded}, {never}]",
    )
    rule = f"must be at most {SMALLEST[multi_scale]}, the smallest side of the training images"
    assert found == [
        f"command line: data.augment[0].height: 300: {rule}",
        f"command line: data.augment[1].hole_height_range: [290, 310]: {rule}",
    ]


def test_a_cut_may_be_larger_than_a_size_that_no_step_has(write):
    config = write("data: {image_size: 256, multi_scale: {min: 320, max: 608}}")
    load_config(config, ["data.augment=[{type: RandomCrop, height: 320, width: 300}]"])


def test_missing_keys_are_those_of_the_file_that_chose_the_component(problems, write):
    assert problems(write(""), "data.val.type=coco") == [
        "command line: data.val.annotations: missing: must be a path",
        "command line: data.val.images: missing: must be a path; 200 from configs/quickstart.yaml "
        "is not taken over from the type 'shapes'",
    ]


@pytest.mark.parametrize("name", ["x" * 300 + "/a.yaml", "x" * 300, "a\0b/c.yaml", "a\0b"])
def test_a_name_that_no_file_can_have(name, problems, tmp_path):
    (line,) = problems(tmp_path / name)
    assert line.endswith(": no such file") and line.startswith(name[:1])


@pytest.mark.parametrize(
    "words", [("training.steps", "10"), ("training.steps", "=", "10"), ("training.steps:", "10")]
)
def test_a_setting_in_several_words_is_one_mistake(words, problems, write):
    (line,) = problems(write(""), *words)
    usage = "an override is written key=value, for example training.steps=10"
    assert line == f"command line: {words[0]!r}: {usage}"


def test_a_word_that_no_file_can_be_called(problems, write):
    (line,) = problems(write(""), "x" * 300)
    assert line.endswith(
        "...: an override is written key=value, for example training.batch_size=16"
    )


@pytest.mark.parametrize("rest", ["data: x", "data: {train: 3}", "data: null", "x: 1"])
@pytest.mark.parametrize("batch", ["null", "0", "true", "1" + "0" * 400, "64"])
def test_epochs_are_explained_in_any_config(rest, batch, problems, write):
    file = write(f"training: {{epochs: 5, batch_size: {batch}}}\n{rest}", whole=True)
    (line,) = [line for line in problems(file) if "training.epochs" in line]
    assert line.endswith("1,000 images at training.batch_size 64 are 79)")


def test_a_config_of_another_folder_is_proposed(problems, tmp_path):
    (line,) = problems(tmp_path / "darknet53_coco.yaml")
    proposed = "configs/yolov3/darknet53_coco.yaml"
    assert line == f"darknet53_coco.yaml: no such file (did you mean {proposed!r}?)"


def test_missing_base(problems, write):
    file = write("extends: bases/nothing.yaml", whole=True)
    assert problems(file) == ["bases/nothing.yaml: no such file (extended by test.yaml)"]


def test_circle_of_bases(problems, write):
    write("extends: ../test.yaml", name="sub/b.yaml", whole=True)
    file = write("extends: sub/b.yaml", whole=True)
    assert problems(file) == [
        "sub/b.yaml: extends: makes a circle: test.yaml -> sub/b.yaml -> test.yaml"
    ]


WRONG_TEXTS = {
    "broken YAML": (
        "seed: 1\ntraining: {steps: 1\nmodel:\n",
        "line 3, column 6: is not YAML: expected ',' or '}', but got ':'",
    ),
    "tab": (
        "training:\n\tsteps: 1\n",
        "line 2: is not YAML: it has a tab, where YAML takes blanks alone: indent with blanks",
    ),
    "tab behind blanks": (
        "training:\n  steps: 1\n  \tbatch_size: 2\nseed: 1\n",
        "line 3: is not YAML: it has a tab, where YAML takes blanks alone: indent with blanks",
    ),
    "tab behind a key": (
        "seed: 1\ntraining:\t{steps: 1}\n",
        "line 2: is not YAML: it has a tab, where YAML takes blanks alone: indent with blanks",
    ),
    "no tab at fault": (
        'seed: "a\tb"\ntraining: {steps: 1\n',
        "line 3, column 1: is not YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "two documents": (
        "seed: 1\n---\nseed: 2\n",
        "line 2, column 1: is not YAML: but found another document",
    ),
    "empty": ("", "is empty, but must be a mapping such as 'training: {...}'"),
    "list": ("- 1\n- 2\n", "holds no mapping, but must be a mapping such as 'training: {...}'"),
    "extends of a wrong type": (
        "extends: {a: b}",
        "extends: {a: 'b'}: must be a path or a list of paths",
    ),
    "Python tag": (
        "seed: !!python/object/apply:os.getcwd []\n",
        "line 1, column 7: the tag !!python/object/apply:os.getcwd is not allowed in a config",
    ),
    "timestamp tag": (
        "seed: !!timestamp 2020-01-01\n",
        "line 1, column 7: the tag !!timestamp is not allowed in a config",
    ),
    "wrong tag": (
        "seed: !!int abc\n",
        "is not YAML: invalid literal for int() with base 10: 'abc'",
    ),
    "repeated key": (
        "training:\n  steps: 1\n  batch_size: 2\n  steps: 3\n",
        "steps: stands twice in one mapping, in lines 2 and 4: keep one",
    ),
    "compound key": ("? [a, b]\n: 1\n", "line 1, column 3: a key must be text"),
    "alias of itself": ("a: &a\n  b: *a\n", "line 1, column 4: holds an alias of itself"),
    "unknown alias": ("a: *b\n", "line 1, column 4: is not YAML: found undefined alias 'b'"),
    "aliases of aliases": (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
        "its aliases stand for more than 100,000 values",
    ),
    "nested without end": ("a: " + "[" * 5000, "is nested too deeply"),
    "control character": (
        "seed: \x01\n",
        "is not YAML: unacceptable character #x0001: special characters are not allowed",
    ),
    "beyond Unicode": (
        f'data: {{class_names: ["\\ud800"]}}\nextends: {QUICKSTART}',
        "holds text that is not Unicode",
    ),
    "too large": ("#" * 1_000_001, "is too large for a config (over 1 MB)"),
    "a missing key": (
        f"training: {{optimizer: {{type: adamw}}}}\nextends: {QUICKSTART}",
        "training.optimizer.learning_rate: missing: must be a number above 0; 0.002 from "
        "configs/quickstart.yaml is not taken over from the type 'adam'",
    ),
    "a missing argument of a transform": (
        f"data: {{augment: [{{type: RandomCrop, height: 64}}]}}\nextends: {QUICKSTART}",
        "data.augment[0].width: missing: RandomCrop needs a whole number of at least 1",
    ),
}


@pytest.mark.parametrize("case", WRONG_TEXTS)
def test_wrong_text(case, problems, write):
    text, expected = WRONG_TEXTS[case]
    assert problems(write(text, whole=True)) == [f"test.yaml: {expected}"]


def test_places_that_are_no_yaml_file(problems, write, tmp_path: Path):
    write("")
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04\xff\xfe\x80")
    (tmp_path / "configs").mkdir()
    for name, expected in {
        "best.pt": "is not text (UTF-8)",
        "configs": "is a folder, not a YAML file",
        "tset.yaml": "no such file (did you mean 'test.yaml'?)",
    }.items():
        assert problems(tmp_path / name) == [f"{name}: {expected}"]


def test_overrides_and_files_are_printed_at_once(problems, write):
    assert len(problems(write("a: [", whole=True), "a", "b=]")) == 3


def test_wrong_data_of_a_checkpoint():
    with pytest.raises(ConfigError, match=r"^config: seed: 'x': must be a whole number"):
        config_from_dict({"seed": "x"})


def test_no_words_of_pydantic(problems, write):
    everything = "\n".join(problems(write(""), *list(WRONG_VALUES)[:25]))
    for word in ("Input", "valid", "pydantic", "http", "value_error", "Extra", "discriminator"):
        assert word not in everything
