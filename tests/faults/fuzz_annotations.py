"""Annotations that are damaged or hostile: valid arrays, or one sentence about a file."""

from __future__ import annotations

import codecs
import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.voc_files import voc_object, voc_xml
from tests.faults.fuzz_trials import blank, bounded, error_of, flip_bits, one_sentence
from tests.faults.trial import Property
from yolo.data.formats.coco import CocoDataset
from yolo.data.formats.csv_boxes import CsvBoxesDataset
from yolo.data.formats.detection import DetectionDataset, is_inside
from yolo.data.formats.voc import VocDataset
from yolo.data.formats.yolo_text import YoloTextDataset
from yolo.data.transforms.augment import letterbox_sample
from yolo.errors import UserError
from yolo.evaluate.metrics.coco import CocoMetric
from yolo.evaluate.metrics.metric import DetectedBoxes

PROPERTY = "11 Image and label fuzz"
WIDTH, HEIGHT = 60, 40
IMAGES = ("1.png", "2.png", "sub/3.png")
CLASSES = ["cat", "dog"]


# What may stand where a value should

NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1e-320", "1e999", "0x10", "1_0")
WORDS = (
    *("", " ", "x", "true", "None", "../../etc/passwd", "/etc/passwd", "a\\b", "1.png/", "%s{}"),
    *("\0", "\u202e", "\x1b[31m", "a\nb", "\r", "é" * 300, "a" * 100_000, "9" * 400, "9" * 5000),
    *("&amp;", "<x>", '"', "'", ",", ";", "=cmd()", "..", ".", "\ufeff", "\ud800"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3.5, 1e308, -1e308, math.nan, math.inf, -math.inf, 5e-324),
    *(2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, [], {}, [[1]], {"id": 1}, [1, 2, 3, 4]),
    *WORDS,
)


# Mutations of a file's bytes, whatever its format


def damage(generator: random.Random, content: bytes) -> bytes:
    """Cut, flip, blank, repeat or encode anew."""
    return generator.choice(BYTES)(generator, content)


def _cut(generator: random.Random, content: bytes) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def _repeat(generator: random.Random, content: bytes) -> bytes:
    start, end = sorted(generator.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * generator.choice([1, 2, 50]) + content[end:]


def _remove(generator: random.Random, content: bytes) -> bytes:
    start = generator.randrange(len(content))
    return content[:start] + content[start + generator.randint(1, 20) :]


def _insert(generator: random.Random, content: bytes) -> bytes:
    start = generator.randrange(len(content) + 1)
    word = generator.choice([*WORDS, *NUMBERS]).encode("utf-8", "surrogatepass")
    return content[:start] + word + content[start:]


def _reencode(generator: random.Random, content: bytes) -> bytes:
    text = content.decode()
    return generator.choice(
        [
            text.encode("utf-16"),
            text.encode("utf-16-le"),
            text.encode("utf-32"),
            codecs.BOM_UTF8 + content,
            codecs.BOM_UTF8 * 2 + content,
            content.replace(b"cat", b"c\xe4t"),  # Latin-1
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\n", b"\r"),
            content + b"\0" * 100,
            content + content,
            b"",
            b"\n\n",
            b"\x1f\x8b\x08" + content,
        ]
    )


BYTES = (_cut, flip_bits, flip_bits, blank, _repeat, _remove, _insert, _insert, _reencode)


# COCO


def write_coco(folder: Path) -> Path:
    """A sound json."""
    box = {"category_id": 1, "iscrowd": 0, "area": 300}
    data = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(IMAGES, start=1)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": [5, 6, 20, 15], **box},
            {"id": 2, "image_id": 1, "bbox": [30.5, 20, 8, 4.25], **box},
            {"id": 3, "image_id": 3, "bbox": [0, 0, 60, 40], **box, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(data, indent=1))
    return path


def mutate_coco(generator: random.Random, folder: Path) -> None:
    path = folder / "coco.json"
    kind = generator.random()
    if kind < 0.3:
        path.write_bytes(damage(generator, path.read_bytes()))
    elif kind < 0.35:
        path.write_bytes(generator.choice(DEEP))
    else:
        data = json.loads(path.read_text())
        for _ in range(generator.choice([1, 1, 1, 2, 4])):
            mutate_tree(generator, data)
        path.write_text(_with_double_keys(generator, json.dumps(data)))


DEEP = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"images": ' + b"[" * 5000 + b"]" * 5000 + b', "annotations": [], "categories": []}',
    b'{"images": [], "annotations": [], "categories": []}',
    b"9" * 5000,
    b'"' + b"\\u0000" * 10,
    b"null",
    b"[]",
    b"NaN",
    b"{}//",
)


def mutate_tree(generator: random.Random, tree: Any) -> None:
    """Replace, remove, repeat, exchange or move one of a json's values."""
    places = list(_places(tree))
    if not places:
        return
    owner, key = generator.choice(places)
    act = generator.randrange(5)
    if act <= 1:
        owner[key] = copy.deepcopy(generator.choice(VALUES))
    elif act == 2:
        del owner[key]
    elif act == 3 and isinstance(owner, list):
        owner.insert(generator.randrange(len(owner) + 1), copy.deepcopy(owner[key]))
    else:
        other, place = generator.choice(places)
        if place in other if isinstance(other, dict) else place < len(other):
            owner[key] = copy.deepcopy(other[place])


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _with_double_keys(generator: random.Random, text: str) -> str:
    if generator.random() > 0.1:
        return text
    return text.replace('{"id"', '{"id": 1, "image_id": 9, "id"', generator.choice([1, 9]))


# Pascal VOC


def write_voc_xml(folder: Path) -> None:
    """Three XML files and their list."""
    for place, name in enumerate(("1", "2", "sub/3")):
        objects = [voc_object("cat", (5, 6, 20, 30)), voc_object("dog", (1, 1, 60, 40), 1)]
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc_xml(*objects[place:], file_name=f"{Path(name).name}.png"))
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("1\n2\nsub/3\n")
    (folder / "JPEGImages").symlink_to(folder / "images")


def mutate_voc(generator: random.Random, folder: Path) -> None:
    kind = generator.random()
    xml, listed = folder / "Annotations/1.xml", folder / "ImageSets/Main/train.txt"
    if kind < 0.15:
        listed.write_bytes(damage(generator, listed.read_bytes()))
    elif kind < 0.4:
        xml.write_bytes(damage(generator, xml.read_bytes()))
    elif kind < 0.55:
        xml.write_bytes(generator.choice(XML))
    else:
        xml.write_bytes(_with_other_values(generator, xml.read_text()))


def _with_other_values(generator: random.Random, text: str) -> bytes:
    """Other text in some elements, or elements renamed, repeated or nested."""
    for _ in range(generator.choice([1, 1, 2, 5])):
        tag = generator.choice(
            ["xmin", "ymin", "xmax", "ymax", "name", "difficult", "width", "height", "filename"]
        )
        start = text.find(f"<{tag}>") + len(tag) + 2
        end = text.find(f"</{tag}>")
        word = generator.choice([*WORDS, *NUMBERS, *NUMBERS])
        if start <= end:
            text = text[:start] + word + text[end:]
        if generator.random() < 0.2:
            text = text.replace("bndbox", generator.choice(["bbox", "object", ""]), 2)
    return text.encode("utf-8", "surrogatepass")


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))
XML = tuple(
    text.encode()
    for text in (
        f"<!DOCTYPE x [{_LAUGHS}]><annotation>&l11;</annotation>",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>',
        '<!DOCTYPE x SYSTEM "http://localhost:9/x.dtd"><annotation/>',
        '<!DOCTYPE x [<!ENTITY % e SYSTEM "file:///etc/passwd"> %e;]><annotation/>',
        f'<!DOCTYPE x [<!ENTITY e "{"x" * 50_000}">]><annotation>{"&e;" * 2000}</annotation>',
        '<annotation xmlns:i="http://www.w3.org/2001/XInclude"><i:include href="/etc/passwd"/>'
        "</annotation>",
        '<?xml-stylesheet href="http://localhost:9"?><annotation/>',
        *(
            f'<?xml version="1.0" encoding="{name}"?><annotation/>'
            for name in ("utf-7", "rot13", "zlib", "unicode_escape", "nothing", "ebcdic-cp-us")
        ),
        "<a>" * 100_000,
        "<annotation>" + "<object>" * 50_000 + "</object>" * 50_000 + "</annotation>",
        "<annotation " + " ".join(f'a{n}="1"' for n in range(20_000)) + "/>",
        "<annotation><![CDATA[</annotation>",
        "<annotation/><annotation/>",
        "",
    )
)


# Text files and tables


def write_texts(folder: Path) -> None:
    """Text files with their names and list."""
    (folder / "labels/sub").mkdir(parents=True)
    (folder / "labels/1.txt").write_text("0 0.5 0.5 1 1\n1 0.25 0.5 0.1 0.25\n")
    (folder / "labels/2.txt").write_text("")
    (folder / "labels/sub/3.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "names.yaml").write_text("names: {0: cat, 1: dog}\n")
    lines = (f"{name},{Path(name).with_suffix('.txt')}\n" for name in IMAGES)
    (folder / "list.csv").write_text("image,annotation\n" + "".join(lines))


def write_table(folder: Path) -> None:
    """One table of boxes."""
    (folder / "boxes.csv").write_text(
        "image,xmin,ymin,xmax,ymax,class\n1.png,5,6,20,30,cat\n1.png,0,0,60,40,dog\n2.png,,,,,\n"
        "sub/3.png,1.5,2,30,30,cat\n"
    )


def mutate_text(generator: random.Random, folder: Path, *, names: tuple[str, ...]) -> None:
    """Damage one of the files, or put other words into it."""
    path = folder / generator.choice(names)
    if generator.random() < 0.4:
        path.write_bytes(damage(generator, path.read_bytes()))
        return
    lines = path.read_text().split("\n")
    for _ in range(generator.choice([1, 1, 3])):
        number = generator.randrange(len(lines))
        between = "," if path.suffix == ".csv" else " "
        words = lines[number].split(between)
        act = generator.randrange(6)
        if act <= 2:
            words[generator.randrange(len(words))] = generator.choice([*NUMBERS, *NUMBERS, *WORDS])
        elif act == 3:
            words.append(generator.choice(NUMBERS))
        elif act == 4:
            generator.shuffle(words)
        else:
            lines.append(lines[number])
        lines[number] = between.join(words)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


YAML = (
    "names: !!python/object/apply:os.system ['touch canary']",
    "names: &a [*a]",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: *c",
    "names: " + "[" * 20_000,
    "names: {1: a, 0: b, 2.5: c}",
    "names: {0: 1, 1: 2}",
    "names: [cat, cat]",
    "names: {0: cat, true: dog}",
    "names:",
    "- cat",
    "\t",
    "names: [cat, 'a\\nb']",
    'names: [cat, "\\0"]',
    'names: [cat, "\\ud800"]',
)


def mutate_yolo_text(generator: random.Random, folder: Path) -> None:
    if generator.random() < 0.1:
        (folder / "names.yaml").write_text(generator.choice(YAML))
    else:
        mutate_text(generator, folder, names=("labels/1.txt", "labels/1.txt", "names.yaml"))


# The trials

Open = Callable[[Path], DetectionDataset]

FORMATS: dict[str, tuple[Callable[[Path], object], Callable[..., None], Open]] = {
    "mutated_coco": (
        write_coco,
        mutate_coco,
        lambda folder: CocoDataset(annotations=folder / "coco.json", images=folder / "images"),
    ),
    "mutated_voc": (
        write_voc_xml,
        mutate_voc,
        lambda folder: VocDataset(root=folder, image_sets=["train"]),
    ),
    "mutated_yolo_text": (
        write_texts,
        mutate_yolo_text,
        lambda folder: YoloTextDataset(
            images=folder / "images", labels=folder / "labels", names=folder / "names.yaml"
        ),
    ),
    "mutated_csv_list": (
        write_texts,
        partial(mutate_text, names=("list.csv",)),
        lambda folder: YoloTextDataset(
            list=folder / "list.csv",
            images=folder / "images",
            labels=folder / "labels",
            class_names=CLASSES,
        ),
    ),
    "mutated_csv_boxes": (
        write_table,
        partial(mutate_text, names=("boxes.csv",)),
        lambda folder: CsvBoxesDataset(boxes=folder / "boxes.csv", images=folder / "images"),
    ),
}
"""Trial -> what writes a sound data set, damages it, and opens it."""


def mutated_annotations(seed: int, folder: Path, *, name: str) -> None:
    """Write a data set, damage its annotations, open it."""
    generator = random.Random(f"{name} {seed}")
    write, mutate, open_dataset = FORMATS[name]
    for image in IMAGES:
        (folder / "images" / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(folder / "images" / image)
    write(folder)
    mutate(generator, folder)

    def work() -> None:
        dataset = open_dataset(folder)
        check_valid(dataset)
        check_scored(dataset)

    with bounded(folder, 20):
        error_of(work, folder)


def check_valid(dataset: DetectionDataset) -> None:
    """Every array as `Annotations` promises."""
    packed = dataset.annotations
    assert len(packed) > 0 and packed.image_ids.dtype == np.int64
    assert len(np.unique(packed.image_ids)) == len(packed)
    assert np.abs(packed.image_ids).max() < 2**53
    assert (packed.sizes_hw >= 1).all() and packed.sizes_hw.shape == (len(packed), 2)
    assert packed.boxes_xyxy_px.dtype == np.float32 and np.isfinite(packed.boxes_xyxy_px).all()
    low, high = packed.boxes_xyxy_px[:, :2], packed.boxes_xyxy_px[:, 2:]
    assert (low >= 0).all() and (high > low).all()
    sizes_wh = packed.sizes_hw[packed.image_index(), ::-1]
    assert (high <= sizes_wh.astype(np.float32)).all()
    assert ((packed.labels >= 0) & (packed.labels < len(dataset.class_names))).all()
    assert packed.ignored.dtype == bool and len(packed.ignored) == len(packed.labels)
    assert packed.offsets[-1] == len(packed.labels)
    assert all(isinstance(name, str) and name.isprintable() for name in dataset.class_names)
    names = [packed.file_name(index) for index in range(len(packed))]
    assert all(is_inside(name) for name in names)
    for text in dataset.findings.texts:
        assert text.isprintable(), f"{text!r} breaks the terminal"


def check_scored(dataset: DetectionDataset) -> None:
    """Images load or tell why not, and the truth found again scores as all of it."""
    packed = dataset.annotations
    for index in range(len(packed)):
        try:
            sample = dataset.load(index)
        except UserError as told:
            one_sentence(str(told), naming=str(dataset.image_path(index).parent))
            continue
        square = letterbox_sample(sample, 32)
        assert np.isfinite(square.boxes_xyxy_px).all()
    metric = CocoMetric(ground_truth=dataset.ground_truth())
    found = metric.evaluate(
        DetectedBoxes(
            packed.image_ids[packed.image_index()],
            packed.labels,
            packed.boxes_xyxy_px,
            np.ones(len(packed.labels)),
        )
    )
    assert all(math.isfinite(value) for value in found.stats.values()), found.stats


TRIALS = [
    Property(
        partial(mutated_annotations, name=name),
        name=name,
        checked="valid arrays, which load and can be scored, or one sentence that names the file; "
        "memory within 1.5 times, no byte changed",
        full=400,
        quick=5,
    )
    for name in FORMATS
]
