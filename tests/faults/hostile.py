"""Files that want to do harm: nothing runs, nothing outside is read or written, one sentence."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import export
import main as training
import validation
from scripts import predict
from tests.faults.fuzz_annotations import FORMATS, IMAGES
from tests.faults.fuzz_trials import bounded, captured, error_of, one_sentence, write_coco_of
from tests.faults.tiny import QUICKSTART
from tests.faults.trial import Property
from yolo.data.formats.coco import CocoDataset
from yolo.train.checkpoint import _seal, load_checkpoint

PROPERTY = "12 Hostile files"
CANARY = "canary"
_SECRET = "s3cret"


# Pickles, written by hand where Python itself would not


class Payload:
    """What it is made of runs when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._made_of = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._made_of


def _payloads(canary: Path) -> dict[str, Any]:
    """Objects that would make the canary."""
    command = f"touch {canary}"
    return {
        "system": Payload(os.system, command),
        "eval": Payload(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Payload(exec, f"open({str(canary)!r}, 'w')"),
        "open": Payload(open, str(canary), "w"),
        "touch": Payload(Path.touch, canary),
        "getattr": Payload(getattr, Payload(__import__, "os"), "system"),
        "torch_save": Payload(torch.save, {}, str(canary)),
        "torch_load": Payload(torch.load, str(canary), None, None),
        "numpy_tofile": Payload(np.ndarray.tofile, np.zeros(3), str(canary)),
        "numpy_memmap": Payload(np.memmap, str(canary), "uint8", "w+", 0, (10,)),
        "from_file": Payload(torch.from_file, str(canary), True, 10),
    }


def _opcodes(canary: Path) -> dict[str, bytes]:
    """Streams of opcodes."""
    command = f"touch {canary}".encode()
    text = struct.pack("<I", len(command)) + command
    return {
        "inst": b"(S'" + command + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nX" + text + b"o.",
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93X" + text + b"\x85R.",
        "extension": b"\x80\x02\x82\x01X" + text + b"\x85R.",
        "build": b"cposix\nsystem\nX" + text + b"\x85R}b.",
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x12serialization.os.system\x93X" + text + b"\x85R.",
        "huge_memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "huge_bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b".",
        "huge_long": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\1.",
        "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "laughs": b"\x80\x02]q\0"
        + b"".join(b"](" + (b"h" + bytes([n])) * 10 + b"eq" + bytes([n + 1]) for n in range(30))
        + b".",
        "no_stop": b"\x80\x02}",
        "rebuild": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0(J\xff\xff\xff\x7ftR.",
    }


def zip_of(
    records: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    """The bytes of a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def _sealed(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A zip of records with our checksum, as an attacker would write it."""
    path.write_bytes(zip_of(records, compression))
    _seal(path)


def _records(pickled: bytes) -> dict[str, bytes]:
    return {"x/data.pkl": pickled, "x/byteorder": b"little", "x/version": b"3\n"}


def _whole(content: dict[str, Any]) -> dict[str, bytes]:
    """The records of what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def _with_larger(records: dict[str, bytes], what: str) -> dict[str, bytes]:
    """The pickle says that the storage, or the tensor, has a billion elements instead of four."""
    (name,) = (name for name in records if name.endswith(".pkl"))
    pickled = records[name]
    place = pickled.index(b"K\x04", pickled.index(b"cpu"))
    if what == "tensor":
        place = pickled.index(b"K\x04", place + 2)
    larger = pickled[:place] + b"J" + struct.pack("<i", 10**9) + pickled[place + 2 :]
    return {**records, name: larger}


def _zips(canary: Path, path: Path) -> dict[str, Callable[[], object]]:
    """Zips whose pickle is harmless, or whose size lies."""
    fine = _whole({"version": 1, "model": {"w": torch.arange(4.0)}})
    slips = {f"../../{CANARY}": b"x", str(canary): b"x", f"x/../../{CANARY}": b"x"}
    bomb = {n: bytes(1 << 28) if n.endswith("data/0") else c for n, c in fine.items()}
    return {
        "slips": lambda: _sealed(path, fine | slips),
        "larger_storage": lambda: _sealed(path, _with_larger(fine, "storage")),
        "larger_tensor": lambda: _sealed(path, _with_larger(fine, "tensor")),
        "bomb": lambda: _sealed(path, bomb, zipfile.ZIP_DEFLATED),
        "nested": lambda: _sealed(path, {"x/data.pkl": zip_of(fine), "x/version": b"3\n"}),
        "many_records": lambda: _sealed(path, fine | {f"x/data/{n}": b"" for n in range(5000)}),
        "comment": lambda: path.write_bytes(zip_of(fine, comment=b"sha256:" + b"0" * 65_000)),
        "only_a_version": lambda: _sealed(path, _whole({"version": 1})),
        "other_types": lambda: _sealed(
            path,
            _whole({"version": 1, "model": [], "config": "x", "class_names": 3, "progress": None}),
        ),
        "plain_pickle": lambda: path.write_bytes(pickle.dumps(_payloads(canary)["system"])),
        "link_to_a_secret": lambda: path.symlink_to(canary.parent / "secret"),
        "link_to_a_device": lambda: path.symlink_to("/dev/zero"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }


def hostile_files(path: Path, canary: Path) -> dict[str, Callable[[], object]]:
    """Kind -> what writes it at ``path``."""
    pickles = {
        name: pickle.dumps({"version": 1, "model": payload}, 2)
        for name, payload in _payloads(canary).items()
    }
    pickles |= _opcodes(canary)
    sealed = {name: partial(_sealed, path, _records(each)) for name, each in pickles.items()}
    return {**sealed, **_zips(canary, path)}


# What is done with them


@contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """Nothing changes in the folder, the canary does not appear, time and memory are bounded."""
    (folder / "secret").write_text(_SECRET)
    with bounded(folder):
        yield
    assert not (folder / CANARY).exists() and not Path(CANARY).exists(), "something was run"


def fails(command: Callable[[list[str]], int], *arguments: str | Path, naming: str | Path) -> None:
    """It ends with 1 or 2 and one sentence that tells nothing of a secret."""
    with captured() as written:
        try:
            code = command([*map(str, arguments)])
        except SystemExit as end:
            code = end.code
    text = written().rstrip("\n")
    lines = [line for line in text.splitlines() if not line.startswith("usage: ")]
    assert code in (1, 2), f"exit code {code}: {text[-500:]}"
    assert _SECRET not in text and "root:" not in text, "the secret is told"
    one_sentence("\n".join(lines), naming=str(naming))


def refused(work: Callable[[], object], naming: Path) -> None:
    """It ends with one sentence and nothing else."""
    error = error_of(work, naming)
    assert error, "it was taken"
    assert _SECRET not in error and "root:" not in error, "the secret is told"


def _data_settings(folder: Path) -> list[str]:
    """A few drawn images, the same for all trials."""
    shared = folder.parent / "shared"
    shared.mkdir(exist_ok=True)
    roots = [f"data.{split}.root={shared / 'hostile'}" for split in ("train", "val")]
    return [*roots, "data.train.images=4", "data.val.images=2"]


def hostile_checkpoint(seed: int, folder: Path) -> None:
    """As checkpoint of validation, export, prediction, --resume: nothing runs, nothing outside is
    read or written, one sentence, exit code 1 or 2.
    """
    run = folder / "run"
    run.mkdir()
    path = run / "last.pt"
    kinds = hostile_files(path, folder / CANARY)
    name = [*kinds][seed % len(kinds)]
    kinds[name]()
    (run / "config.yaml").write_text(f"extends: {QUICKSTART}\n")
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    loaded = name in ("slips", "many_records", "only_a_version", "other_types")
    with harmless(folder):
        if not loaded:
            refused(partial(load_checkpoint, path), path)
        fails(validation.main, path, "--gpu", "cpu", naming=path)
        fails(export.main, path, "--format", "onnx", "--output", run / "a.onnx", naming=path)
        prediction = ["--checkpoint", path, "--output", run / "out"]
        fails(predict.main, folder / "a.png", *prediction, naming=path)
        fails(training.main, "--resume", run, "--gpu", "cpu", naming=path)


def hostile_weights(seed: int, folder: Path) -> None:
    """As model.encoder.weights and model.init, PyTorch's and Darknet's: nothing runs, nothing
    outside is read or written, one sentence, exit code 1 or 2.
    """
    generator = random.Random(seed)
    darknet = seed % 2 == 1
    path = folder / ("a.weights" if darknet else "a.pt")
    if darknet:
        path.write_bytes(_darknet(generator))
    else:
        kinds = hostile_files(path, folder / CANARY)
        kinds[[*kinds][seed // 2 % len(kinds)]]()
    setting = generator.choice(["model.encoder.weights={}", "model.init={{weights: {}}}"])
    own = [setting.format(path), f"logging.directory={folder / 'logs'}"]
    data = _data_settings(folder)
    with harmless(folder):
        fails(training.main, "--gpu", "cpu", *own, *data, naming=path)


def _darknet(generator: random.Random) -> bytes:
    """Headers that lie, and lengths that fit nothing."""
    versions = [(0, 2, 0), (0, 1, 0), (999, 999, 999), (-1, 2, 0), (2**31 - 1, 0, 0), (1000, 1, 0)]
    header = struct.pack("<iii", *generator.choice(versions))
    seen = struct.pack("<q", generator.choice([0, -1, 2**63 - 1]))
    floats = generator.choice([b"", b"\0", bytes(4000), generator.randbytes(999)])
    return generator.choice([header + seen + floats, header[:5], header, b"<html>" * 100, b""])


def hostile_yaml(seed: int, folder: Path) -> None:
    """Tags, bombs, depth, circles, devices, /etc/passwd: nothing runs, nothing outside is read or
    written, one sentence, exit code 1 or 2.
    """
    base = f"extends: {QUICKSTART}\n"
    outside = os.path.relpath("/etc/passwd", folder)
    configs = {
        "tag": f"seed: !!python/object/apply:os.system ['touch {folder / CANARY}']",
        "tag_new": "seed: !!python/object/new:os.system [touch canary]",
        "tag_name": "seed: !!python/name:os.system",
        "tag_own": "seed: !x 3",
        "laughs": "\n".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]" for n in range(12)
        ),
        "merges": "\n".join(
            f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" if n else "a0: &a0 {x: 1}"
            for n in range(12)
        ),
        "alias_of_itself": "a: &a [*a]",
        "huge_number": "seed: " + "9" * 100_000,
        "huge_hex": f"{base}seed: 0x" + "f" * 100_000,
        "huge_exponent": f"{base}seed: 1e999999999",
        "deep": "seed: " + "[" * 20_000,
        "deep_mappings": "seed: " + "{a: " * 5000 + "1" + "}" * 5000,
        "deep_indent": "\n".join(" " * n + "a:" for n in range(900)),
        "circle": "extends: config.yaml",
        "outside": f"extends: {outside}",
        "absolute": "extends: /etc/passwd",
        "device": "extends: /dev/zero",
        "pipe": "extends: pipe",
        "terminal": "extends: /dev/stdin",
        "secret": "extends: secret",
        "folder": "extends: .",
        "many": "extends: [" + ", ".join(["other.yaml"] * 20_000) + "]",
        "nul": 'extends: "a\\0b"',
        "surrogate": 'seed: "\\ud800"',
        "new_line": 'extends: "a\\nb"',
        "escape": f'{base}seed: "\\e[31m"',
        "long": "extends: " + "a" * 100_000,
        "long_key": "a" * 100_000 + ": 1",
        "control": "seed: \x07",
        "bytes": "seed: \udcff",
        "directory": f"{base}logging: {{directory: /dev/null/logs}}",
        "empty": "",
    }
    name = [*configs][seed % len(configs)]
    path = folder / "config.yaml"
    path.write_bytes(configs[name].encode("utf-8", "surrogateescape"))
    os.mkfifo(folder / "pipe")
    (folder / "other.yaml").write_text("seed: [")
    data = _data_settings(folder) if name == "directory" else []
    with harmless(folder):
        fails(training.main, "--config", path, "--gpu", "cpu", *data, naming="")


def hostile_extends(seed: int, folder: Path) -> None:
    """Diamonds, chains and crowds of files, a folder in itself: nothing runs, nothing outside is
    read or written, one sentence, exit code 1 or 2.
    """
    kinds: list[Callable[[Path], str]] = [_diamonds, _chain, _crowd, _mirrors]
    naming = kinds[seed % len(kinds)](folder)
    path = folder / "config.yaml"
    with harmless(folder):
        fails(training.main, "--config", path, "--gpu", "cpu", naming=naming)


def _diamonds(folder: Path) -> str:
    """Two files on each of 40 levels extend both of the level below: 2^40 ways to the lowest."""
    for level in range(40):
        for side in "ab":
            below = f"[a{level - 1}.yaml, b{level - 1}.yaml]" if level else "[]"
            (folder / f"{side}{level}.yaml").write_text(f"extends: {below}\nnothing: 1\n")
    (folder / "config.yaml").write_text(f"extends: [{QUICKSTART}, a39.yaml, b39.yaml]\n")
    return "nothing"  # read to the end, and only then found to be unknown


def _chain(folder: Path) -> str:
    for number in range(3000):
        (folder / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (folder / "config.yaml").write_text("extends: 0.yaml\n")
    return "extends"


def _crowd(folder: Path) -> str:
    names = ", ".join(f"{number}.yaml" for number in range(20_000))
    (folder / "config.yaml").write_text(f"extends: [{names}]\n")
    return "extends"


def _mirrors(folder: Path) -> str:
    """A folder in itself, by which one file has names without end."""
    (folder / "again").symlink_to(".")
    (folder / "config.yaml").write_text("extends: again/config.yaml\n")
    return "extends"


def hostile_name(seed: int, folder: Path) -> None:
    """--name that leads elsewhere or cannot be written: nothing runs, nothing outside is read or
    written, one sentence, exit code 1 or 2.
    """
    names = [
        *("..", ".", "../x", "/tmp/x", "a/b", "a\\b", "", "  ", "a\nb", "a\0b", "\x1b[31m"),
        *("a" * 5000, "é" * 200, "..\\x", "~/x", "x/..", "\udcff"),
    ]
    name = names[seed % len(names)]
    with harmless(folder):
        settings = [f"logging.directory={folder / 'logs'}", "training.steps=1"]
        fails(training.main, "--gpu", "cpu", "--name", name, *settings, naming="name")


def hostile_paths(seed: int, folder: Path) -> None:
    """Names in annotations that leave the data set are refused; of a VOC file's <filename> the name
    alone counts.
    """
    (folder / "set/images/sub").mkdir(parents=True)
    for image in IMAGES:
        Image.new("RGB", (60, 40)).save(folder / "set/images" / image)
    Image.new("RGB", (60, 40)).save(folder / "outside.png")
    inside = folder / "set"
    up = ["../../outside", str(folder / "outside"), "sub/../../../outside", "/../outside"]
    word = up[seed // 5 % len(up)]
    form = [*FORMATS][seed % 5]
    write, _, open_dataset = FORMATS[form]
    write(inside)
    places = {
        "mutated_coco": ("coco.json", "2.png", f"{word}.png"),
        "mutated_voc": ("ImageSets/Main/train.txt", "2\n", f"{word}\n"),
        "mutated_yolo_text": ("names.yaml", "{0: cat, 1: dog}", f"!!python/name:{word}"),
        "mutated_csv_list": ("list.csv", "2.png", f"{word}.png"),
        "mutated_csv_boxes": ("boxes.csv", "2.png", f"{word}.png"),
    }
    name, old, new = places[form]
    if form == "mutated_voc" and seed % 2:
        name, old, new = "Annotations/1.xml", "1.png", f"{word}.png"
    path = inside / name
    path.write_text(path.read_text().replace(old, new, 1))
    with harmless(folder):
        if name.startswith("Annotations"):
            found = open_dataset(inside)
            assert all(found.image_path(i).is_relative_to(inside) for i in range(len(found)))
        else:
            refused(partial(open_dataset, inside), inside)


def links_are_followed(seed: int, folder: Path) -> None:
    """A link in a data set, and a root that is one, lead to images elsewhere."""
    (folder / "elsewhere").mkdir()
    (folder / "set").mkdir()
    Image.new("RGB", (60, 40), (9, 99, 199)).save(folder / "elsewhere/a.png")
    (folder / "set/a.png").symlink_to(folder / "elsewhere/a.png")
    (folder / "root").symlink_to(folder / ("set" if seed % 2 else "elsewhere"))
    path = write_coco_of(folder, ["a.png"], size_wh=(60, 40), box_xywh=[1, 2, 3, 4])
    with harmless(folder):
        sample = CocoDataset(annotations=path, images=folder / "root").load(0)
    assert sample.image[0, 0].tolist() == [9, 99, 199]


KINDS = len(hostile_files(Path("x"), Path("y")))
TRIALS = [
    Property(hostile_checkpoint, full=KINDS, quick=2),
    Property(hostile_weights, full=2 * KINDS, quick=2),
    Property(hostile_yaml, full=32, quick=4),
    Property(hostile_extends, full=4, quick=4),
    Property(hostile_name, full=17, quick=2),
    Property(hostile_paths, full=40, quick=5),
    Property(links_are_followed, full=2, quick=2),
]
