"""Every way to get a config wrong, with the exact words that the user reads."""

from pathlib import Path
from typing import get_args

import pytest

from yolo.config import ConfigError, config_from_dict, load_config
from yolo.config.schema.encoders import Encoder
from yolo.config.schema.training import TrainingConfig
from yolo.config.schema.transforms import transforms

SECTIONS = get_args(get_args(Encoder)[0])
TYPES = sorted(n for s in SECTIONS for n in get_args(s.model_fields["type"].annotation))
ENCODERS = f"one of {', '.join(map(repr, TYPES[:-1]))} or {TYPES[-1]!r}"
NAMES = list(transforms())
TRANSFORMS = ", ".join(map(repr, NAMES[:-1])) + f" or {NAMES[-1]!r}"
TRAINING_KEYS = ", ".join(TrainingConfig.model_fields)
SECTIONS = "task, seed, model, loss, data, training, evaluation, logging"
STEP = "{type: step, milestones: %s, factors: %s}"
AUGMENT = "data.augment"

WRONG_VALUES = {
    "unknown key": (
        "training.batchsize=16",
        "training.batchsize: 16: unknown key, allowed are "
        f"{TRAINING_KEYS} (did you mean 'batch_size'?)",
    ),
    "unknown section": (
        "trainin.steps=3",
        f"trainin: {{steps: 3}}: unknown key, allowed are {SECTIONS} (did you mean 'training'?)",
    ),
    "key of another section": (
        "learning_rate=0.1",
        f"learning_rate: 0.1: unknown key, allowed are {SECTIONS} "
        "(did you mean 'training.optimizer.learning_rate'?)",
    ),
    "unknown key of a component": (
        "model.encoder.widht=1",
        "model.encoder.widht: 1: unknown key, allowed are type, width, weights "
        "(did you mean 'width'?)",
    ),
    "key below a value": (
        "training.steps.many=1",
        "training.steps: {many: 1}: must be a whole number of at least 1",
    ),
    "text for an integer": (
        "training.steps=abc",
        "training.steps: 'abc': must be a whole number of at least 1",
    ),
    "quoted integer": (
        "training.steps='12'",
        "training.steps: '12': must be a whole number of at least 1",
    ),
    "boolean for an integer": (
        "training.steps=true",
        "training.steps: true: must be a whole number of at least 1",
    ),
    "fraction for an integer": (
        "training.steps=1.5",
        "training.steps: 1.5: must be a whole number of at least 1",
    ),
    "boolean for a number": (
        "training.gradient_clip=true",
        "training.gradient_clip: true: must be a number above 0 or null",
    ),
    "infinite number": (
        "training.optimizer.learning_rate=.inf",
        "training.optimizer.learning_rate: .inf: must be a number above 0",
    ),
    "text for a boolean": (
        "training.compile=yes",
        "training.compile: 'yes': must be true or false",
    ),
    "number for a path": ("logging.directory=5", "logging.directory: 5: must be a path"),
    "value for a mapping": (
        "training.ema=1",
        "training.ema: 1: must be a mapping with the keys decay or null",
    ),
    "null for a mapping": (
        "model=null",
        "model: null: must be a mapping with the keys encoder, neck, head, init, preprocessing",
    ),
    "value for a component": (
        "data.train=data/coco",
        "data.train: 'data/coco': must be a mapping with the type 'coco', 'shapes', 'voc', "
        "'yolo_text', 'csv_list' or 'csv_boxes'",
    ),
    "below the range": (
        "seed=-1",
        "seed: -1: must be a whole number of at least 0 and below 4294967296",
    ),
    "above the range": (
        "evaluation.conf=1.5",
        "evaluation.conf: 1.5: must be a number from 0 to 1",
    ),
    "open range": (
        "data.train_share=0",
        "data.train_share: 0: must be a number above 0 and at most 1",
    ),
    "image size": (
        "data.image_size=100",
        "data.image_size: 100: must be a whole number from 32 to 2048 that is a multiple of 32",
    ),
    "one of several words": (
        "training.precision=fp61",
        "training.precision: 'fp61': must be one of 'auto', 'fp32', 'bf16' or 'fp16' "
        "(did you mean 'fp16'?)",
    ),
    "word or number": (
        "model.neck.width=papr",
        "model.neck.width: 'papr': must be 'paper' or 'scaled' or a number above 0 "
        "(did you mean 'paper'?)",
    ),
    "number or list": (
        "data.limit=[1, -2]",
        "data.limit: [1, -2]: must be a whole number of at least 1, a list (each a whole number "
        "of at least 0) or null",
    ),
    "type of a component": (
        "model.encoder.type=darknet35",
        f"model.encoder.type: 'darknet35': must be {ENCODERS} (did you mean 'darknet53'?)",
    ),
    "loss of another generation": (
        "loss.type=yolov1",
        "loss.type: 'yolov1': must be 'yolov3' for the head 'yolov3'",
    ),
    "head of another generation": (
        "model.head.type=yolov3_tiny",
        "model.head.type: 'yolov3_tiny': must be 'yolov3' behind the neck 'yolov3'",
    ),
    "figure of another metric": (
        "evaluation.monitor=mAP",
        "evaluation.monitor: 'mAP': must be a figure of the coco metric: AP, AP50, AP75, APs, APm, "
        "APl, AR1, AR10, AR100, ARs, ARm, ARl",
    ),
    "task": (
        "task=detection",
        "task: 'detection': must be 'detect' or 'classify' (did you mean 'detect'?)",
    ),
    "micro batch": (
        "training.micro_batch_size=5",
        "training.micro_batch_size: 5: must divide training.batch_size (16), for example 4, or be "
        "at least as large",
    ),
    "order of milestones": (
        "training.schedule=" + STEP % ([20, 10], [1, 0.5, 0.1]),
        "training.schedule.milestones: [20, 10]: must increase from each to the next",
    ),
    "number of factors": (
        "training.schedule=" + STEP % ([10, 20], [1, 0.5]),
        "training.schedule.factors: [1, 0.5]: must be 3 numbers for 2 milestones (one before the "
        "first, then one after each), not 2",
    ),
    "momentum of nesterov": (
        "training.optimizer={type: sgd, learning_rate: 1, momentum: 0, nesterov: true}",
        "training.optimizer.nesterov: true: must be false where momentum is 0",
    ),
    "number of anchors": (
        "model.head.anchors=[[1, 2]]",
        "model.head.anchors: [[1, 2]]: must be 'auto' or a list of 9 (each a list of 2 (each a "
        "number above 0))",
    ),
    "order of anchors": (
        "model.head.anchors=[[9,9],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1],[1,1]]",
        "model.head.anchors: [[9, 9], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1], ...: "
        "must be ordered from small to large by area, and anchor 2 is smaller than anchor 1",
    ),
    "class weight": (
        "loss.class_weights={cat: -1}",
        "loss.class_weights.cat: -1: must be a number above 0",
    ),
    "member of a list": (
        "data.class_names=[[]]",
        "data.class_names[0]: []: must be text",
    ),
    "repeated class": (
        "data.class_names=[cat, dog, cat]",
        "data.class_names: ['cat', 'dog', 'cat']: must not repeat a class: cat",
    ),
    "transform": (
        f"{AUGMENT}=[{{type: HorizontlFlip}}]",
        f"{AUGMENT}[0].type: 'HorizontlFlip': must be one of {TRANSFORMS} "
        "(did you mean 'HorizontalFlip'?)",
    ),
    "transform without type": (
        f"{AUGMENT}=[{{p: 1}}]",
        f"{AUGMENT}[0].type: missing: must be one of {TRANSFORMS}",
    ),
    "no transform": (
        f"{AUGMENT}=[ToGray]",
        f"{AUGMENT}[0]: 'ToGray': must be a mapping with the type {TRANSFORMS}",
    ),
    "argument of a transform": (
        f"{AUGMENT}=[{{type: ToGray}}, {{type: Blur, blur_limt: 3}}]",
        f"{AUGMENT}[1].blur_limt: 3: unknown argument of Blur, which takes p, blur_limit "
        "(did you mean 'blur_limit'?)",
    ),
    "type of an argument": (
        f"{AUGMENT}=[{{type: Affine, rotate: far}}]",
        f"{AUGMENT}[0].rotate: 'far': must be a number or a list of 2 (each a number)",
    ),
    "range of an argument": (
        f"{AUGMENT}=[{{type: ToGray, p: 2}}]",
        f"{AUGMENT}[0].p: 2: must be a number from 0 to 1",
    ),
    "order of a range": (
        f"{AUGMENT}=[{{type: GaussNoise, std_range: [0.5, 0.1]}}]",
        f"{AUGMENT}[0].std_range: [0.5, 0.1]: must be a list of 2 (each a number from 0 to 1, in "
        "ascending order)",
    ),
    "transform of our own": (
        f"{AUGMENT}=[{{type: Haze, strenght: [0.1, 0.2]}}]",
        f"{AUGMENT}[0].strenght: [0.1, 0.2]: unknown argument of Haze, which takes p, strength, "
        "brightness, depth (did you mean 'strength'?)",
    ),
    "range of one of our own": (
        f"{AUGMENT}=[{{type: Haze, strength: [0.5, 0.1]}}]",
        f"{AUGMENT}[0].strength: [0.5, 0.1]: must be a list of 2 (each a number from 0 to 1, in "
        "ascending order)",
    ),
    "bound of one of our own": (
        f"{AUGMENT}=[{{type: HSVJitter, saturation: 0.5}}]",
        f"{AUGMENT}[0].saturation: 0.5: must be a number from 1 to 10",
    ),
    "size of Resize": (
        f"{AUGMENT}=[{{type: Resize, height: 64}}]",
        f"{AUGMENT}[0].height: 64: unknown argument of Resize, which takes p, "
        "area_for_downscale, interpolation",
    ),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_value(case, problems, write):
    override, expected = WRONG_VALUES[case]
    assert problems(write(""), override) == [f"command line: {expected}"]


def test_all_problems_are_told_at_once_with_their_files(problems, write):
    write("training: {steps: none}\nlogging: {evry: 3}", name="base/base.yaml")
    file = write("extends: base/base.yaml\nseed: 0.5\n", whole=True)
    assert problems(file, "data.workers=-1") == [
        "test.yaml: seed: 0.5: must be a whole number of at least 0 and below 4294967296",
        "command line: data.workers: -1: must be a whole number of at least 0 or 'auto'",
        "base/base.yaml: training.steps: 'none': must be a whole number of at least 1",
        "base/base.yaml: logging.evry: 3: unknown key, allowed are every, directory "
        "(did you mean 'every'?)",
    ]


def test_missing_keys(problems, write):
    lines = problems(write("training: {optimizer: {type: adamw}}"))
    missing = "training.optimizer.learning_rate: missing: must be a number above 0"
    assert lines == [f"test.yaml: {missing}"]
    lines = problems(write("seed: 1", whole=True))
    assert [line.split(": ")[1:3] for line in lines] == [
        [section, "missing"] for section in ("model", "loss", "data", "training", "evaluation")
    ]


def test_missing_argument_of_a_transform(problems, write):
    assert problems(write("data: {augment: [{type: RandomCrop, height: 64}]}")) == [
        "test.yaml: data.augment[0].width: missing: RandomCrop needs a whole number of at least 1"
    ]


@pytest.mark.parametrize(
    ("multi_scale", "smallest"),
    [
        ("null", 256),
        ("{min: 96, max: 320}", 96),
        ("{min: 320, max: 608, until_step: 9}", 256),
    ],
)
def test_a_cut_that_would_not_fit_the_smallest_image(problems, write, multi_scale, smallest):
    crop = "{type: RandomCrop, height: 300, width: 64}"
    hole = "{type: CoarseDropout, hole_height_range: [290, 310], hole_width_range: [0.5, 0.6]}"
    padded = "{type: RandomCrop, height: 700, width: 64, pad_if_needed: true}"
    never = "{type: RandomCrop, height: 700, width: 64, p: 0}"
    found = problems(
        write(f"data: {{image_size: 256, multi_scale: {multi_scale}}}"),
        f"data.augment=[{crop}, {hole}, {padded}, {never}]",
    )
    rule = f"must be at most {smallest}, the smallest side of the training images"
    assert found == [
        f"command line: data.augment[0].height: 300: {rule}",
        f"command line: data.augment[1].hole_height_range: [290, 310]: {rule}",
    ]


def test_a_cut_may_be_larger_than_a_size_that_no_step_has(write):
    config = write("data: {image_size: 256, multi_scale: {min: 320, max: 608}}")
    load_config(config, ["data.augment=[{type: RandomCrop, height: 320, width: 300}]"])


def test_missing_keys_are_told_by_who_chose_the_component(problems, write):
    assert problems(write(""), "data.val.type=coco") == [
        "command line: data.val.annotations: missing: must be a path",
        "command line: data.val.images: missing: must be a path",
    ]


def test_missing_file(problems, tmp_path, write):
    write("")
    assert problems(tmp_path / "tset.yaml") == [
        "tset.yaml: no such file (did you mean 'test.yaml'?)"
    ]


def test_folder(problems, tmp_path):
    (tmp_path / "configs").mkdir()
    assert problems(tmp_path / "configs") == ["configs: is a folder, not a YAML file"]


def test_missing_base(problems, write):
    file = write("extends: bases/nothing.yaml", whole=True)
    assert problems(file) == ["bases/nothing.yaml: no such file (extended by test.yaml)"]


def test_circle_of_bases(problems, write):
    write("extends: ../test.yaml", name="sub/b.yaml", whole=True)
    file = write("extends: sub/b.yaml", whole=True)
    assert problems(file) == [
        "sub/b.yaml: extends: makes a circle: test.yaml -> sub/b.yaml -> test.yaml"
    ]


def test_extends_of_a_wrong_type(problems, write):
    assert problems(write("extends: {a: b}", whole=True)) == [
        "test.yaml: extends: {a: 'b'}: must be a path or a list of paths"
    ]


WRONG_TEXTS = {
    "broken YAML": (
        "seed: 1\ntraining: {steps: 1\nmodel:\n",
        "test.yaml: line 3, column 6: is not YAML: expected ',' or '}', but got ':'",
    ),
    "tab": (
        "training:\n\tsteps: 1\n",
        "test.yaml: line 2, column 1: is not YAML: found character '\\t' that cannot start any "
        "token",
    ),
    "two documents": (
        "seed: 1\n---\nseed: 2\n",
        "test.yaml: line 2, column 1: is not YAML: but found another document",
    ),
    "empty": ("", "test.yaml: is empty, but must be a mapping such as 'training: {...}'"),
    "list": (
        "- 1\n- 2\n",
        "test.yaml: holds no mapping, but must be a mapping such as 'training: {...}'",
    ),
    "Python tag": (
        "seed: !!python/object/apply:os.getcwd []\n",
        "test.yaml: line 1, column 7: the tag !!python/object/apply:os.getcwd is not allowed in a "
        "config",
    ),
    "timestamp tag": (
        "seed: !!timestamp 2020-01-01\n",
        "test.yaml: line 1, column 7: the tag !!timestamp is not allowed in a config",
    ),
    "wrong tag": (
        "seed: !!int abc\n",
        "test.yaml: is not YAML: invalid literal for int() with base 10: 'abc'",
    ),
    "repeated key": (
        "training:\n  steps: 1\n  batch_size: 2\n  steps: 3\n",
        "test.yaml: steps: stands twice in one mapping, in lines 2 and 4: keep one",
    ),
    "compound key": (
        "? [a, b]\n: 1\n",
        "test.yaml: line 1, column 3: a key must be text",
    ),
    "alias of itself": (
        "a: &a\n  b: *a\n",
        "test.yaml: line 1, column 4: holds an alias of itself",
    ),
    "unknown alias": (
        "a: *b\n",
        "test.yaml: line 1, column 4: is not YAML: found undefined alias 'b'",
    ),
    "aliases of aliases": (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
        "test.yaml: its aliases stand for more than 100,000 values",
    ),
    "nested without end": ("a: " + "[" * 5000, "test.yaml: is nested too deeply"),
    "control character": (
        "seed: \x01\n",
        "test.yaml: is not YAML: unacceptable character #x0001: special characters are not allowed",
    ),
    "too large": ("#" * 1_000_001, "test.yaml: is too large for a config (over 1 MB)"),
}


@pytest.mark.parametrize("case", WRONG_TEXTS)
def test_wrong_text(case, problems, write):
    text, expected = WRONG_TEXTS[case]
    assert problems(write(text, whole=True)) == [expected]


def test_binary_file(problems, tmp_path: Path):
    file = tmp_path / "best.pt"
    file.write_bytes(b"PK\x03\x04\xff\xfe\x80")
    assert problems(file) == ["best.pt: is not text (UTF-8)"]


WRONG_OVERRIDES = {
    "training.steps": "command line: 'training.steps': an override is written key=value, for "
    "example training.batch_size=16",
    "training..steps=3": "command line: 'training..steps=3': an override is written key=value, "
    "for example training.batch_size=16",
    "extends=other.yaml": "command line: extends: can only stand in a file",
    "data.limit=[1, 2": "command line: data.limit: line 1, column 6: is not YAML: expected ',' or "
    "']', but got '<stream end>'",
}


@pytest.mark.parametrize("override", WRONG_OVERRIDES)
def test_wrong_override(override, problems, write):
    assert problems(write(""), override) == [WRONG_OVERRIDES[override]]


def test_overrides_and_files_are_told_at_once(problems, write):
    assert len(problems(write("a: [", whole=True), "a", "b=]")) == 3


def test_text_beyond_unicode(problems, write):
    file = write('data: {class_names: ["\\ud800"]}')
    assert problems(file) == ["test.yaml: holds text that is not Unicode"]


def test_wrong_data_of_a_checkpoint():
    with pytest.raises(ConfigError, match=r"^config: seed: 'x': must be a whole number"):
        config_from_dict({"seed": "x"})


def test_no_words_of_pydantic(problems, write):
    everything = "\n".join(
        problems(write(""), *(override for override, _ in list(WRONG_VALUES.values())[:25]))
    )
    for word in ("Input", "valid", "pydantic", "http", "value_error", "Extra", "discriminator"):
        assert word not in everything
