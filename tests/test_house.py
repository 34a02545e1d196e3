"""The house rules that a machine can check: who may import whom, sizes, names, what is never run.

The rules are read from the source by AST; the last tests break each rule in a made-up repository.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lower first: a room may import what stands in a line above its own, and itself.
LEVELS = (
    ("errors",),
    ("boxes", "files", "letterbox", "records"),
    ("darknet", "data", "detection", "models"),
    ("train",),
    ("evaluate",),
    ("factory",),
    ("apps/report",),
    ("apps/predict",),
    ("apps/explain", "apps/export", "apps/preflight", "apps/download", "apps/convert"),
    ("apps/demo",),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
NEIGHBOURS = {"models": {"darknet"}}
TO_BE_MOVED: dict[str, tuple[str, ...]] = {}
"""Imports that go once the rooms' own work is done."""
LAZY = {"yolo.apps.predict.Predictor", "yolo.config.load_config"}
"""What ``import yolo`` offers and imports at its first use."""
CONFIG_IS_SEEN_FROM = LEVEL_OF["factory"]
TORCH_AND_ITS_USERS = {"torch", "torchvision", "albumentations", "hotcoco", "tensorboard"}

ENTRY_POINTS = ("main.py", "validation.py", "export.py")
MOST_LINES = {"main.py": 80, "scripts": 150}
ROOMS_WITHOUT_A_NAME = {"util", "utils", "misc", "common", "helper", "helpers"}
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_METHODS = {
    "import_module",
    "exec_module",
    "run_path",
    "run_module",
    "unsafe_load",
    "full_load",
}
UNSAFE_LOADERS = {"Loader", "UnsafeLoader", "FullLoader"}
"""Of yaml: they make objects of any class."""
IMPORTS_BY_NAME = {"yolo/evaluate/exported.py"}
"""One of three packages that only exporting needs."""
EXPLICIT = {"torch.load": "weights_only", "np.load": "allow_pickle"}
"""What a loader may do is written where it is called, whatever its default."""
UNSAFE_ARGUMENTS = {("allow_pickle", True), ("weights_only", False)}


def modules_imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, anywhere in a file of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def room_of(dotted: str) -> str | None:
    """yolo.data.loader -> data, yolo.apps.demo.page -> apps/demo, yolo -> "", numpy -> None."""
    first, *rest = dotted.split(".")
    if first != "yolo":
        return None
    return "/".join(rest[:2]) if rest[:1] == ["apps"] else "".join(rest[:1])


def complaint_about_import(room: str, dotted: str) -> str | None:
    """Why a room (None of LEVELS: config, or yolo/__init__ as "") may not import a module."""
    wanted = room_of(dotted)
    if room in ("config", "") and dotted.partition(".")[0] in TORCH_AND_ITS_USERS:
        return f"imports {dotted}, which costs seconds before a config error is printed"
    if dotted.partition(".")[0] in ("main", "validation", "scripts"):
        return f"imports the entry point {dotted}"
    if wanted is None or wanted == room or wanted.startswith("__"):
        return None
    if room in ("config", ""):
        allowed = wanted == "errors" if room == "config" else dotted in LAZY
        return None if allowed else f"imports {dotted}, but imports nothing of the project"
    if wanted == "config":
        allowed = LEVEL_OF[room] >= CONFIG_IS_SEEN_FROM
    else:
        allowed = LEVEL_OF.get(wanted, len(LEVELS)) < LEVEL_OF[room]
    if dotted.startswith(TO_BE_MOVED.get(room, "-")):
        return None
    if allowed or wanted in NEIGHBOURS.get(room, ()):
        return None
    return f"imports {dotted}, which does not stand below {room}"


def broken_import_rules(root: Path) -> list[str]:
    broken = []
    for path in sorted((root / "yolo").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        room = room_of(".".join(part for part in parts if part != "__init__"))
        if room not in (*LEVEL_OF, "config", "apps", ""):
            broken.append(f"{path.relative_to(root)}: {room} has no level in tests/test_house.py")
            continue
        for line, dotted in modules_imported(ast.parse(path.read_text("utf-8")), parts[:-1]):
            if complaint := complaint_about_import(room, dotted):
                broken.append(f"{path.relative_to(root)}:{line} {complaint}")
    return broken + broken_entry_imports(root)


def broken_entry_imports(root: Path) -> list[str]:
    """Entry points stand above every room, but not above each other."""
    stems = {path.stem for path in entry_points(root)}
    return [
        f"{path.relative_to(root)}:{line} imports the entry point {dotted}"
        for path in entry_points(root)
        for line, dotted in modules_imported(ast.parse(path.read_text("utf-8")), ())
        if dotted.partition(".")[0] in stems | {"scripts"}
    ]


def entry_points(root: Path) -> list[Path]:
    named = [root / name for name in ENTRY_POINTS if (root / name).exists()]
    return named + sorted((root / "scripts").rglob("*.py"))


def too_long(root: Path) -> list[str]:
    broken = []
    for path in entry_points(root):
        most = MOST_LINES.get(path.relative_to(root).parts[0])
        lines = path.read_text("utf-8").count("\n")
        if most is not None and lines > most:
            broken.append(f"{path.relative_to(root)} has {lines} lines, at most {most} are allowed")
    return broken


def rooms_without_a_name(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for folder in ("yolo", "scripts", "tests", "configs")
        for path in sorted((root / folder).rglob("*"))
        if path.stem.lower() in ROOMS_WITHOUT_A_NAME
    ]


def unsafe_code(root: Path) -> list[str]:
    """Whatever could run code that came in a file."""
    broken = []
    for path in [*sorted((root / "yolo").rglob("*.py")), *entry_points(root)]:
        tree = ast.parse(path.read_text("utf-8"))
        found = [
            (line, dotted)
            for line, dotted in modules_imported(tree, ("yolo",))
            if dotted.partition(".")[0] in UNSAFE_MODULES
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found += [(node.lineno, what) for what in unsafe_parts(node)]
            if isinstance(node, ast.Attribute) and node.attr in UNSAFE_LOADERS:
                found.append((node.lineno, ast.unparse(node)))
        if str(path.relative_to(root)) in IMPORTS_BY_NAME:
            found = [(line, what) for line, what in found if what != "import_module()"]
        broken += [f"{path.relative_to(root)}:{line} {what}" for line, what in found]
    return broken


def unsafe_parts(call: ast.Call) -> Iterator[str]:
    if isinstance(call.func, ast.Name) and call.func.id in UNSAFE_CALLS:
        yield f"{call.func.id}()"
    if isinstance(call.func, ast.Attribute) and call.func.attr in UNSAFE_METHODS:
        yield f"{call.func.attr}()"
    needed = EXPLICIT.get(ast.unparse(call.func))
    if needed is not None and needed not in {keyword.arg for keyword in call.keywords}:
        yield f"{ast.unparse(call.func)} without {needed}"
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in UNSAFE_ARGUMENTS:
            yield f"{keyword.arg}={value}"


@pytest.mark.parametrize("rule", [broken_import_rules, too_long, rooms_without_a_name, unsafe_code])
def test_the_house_is_in_order(rule) -> None:
    assert list((ROOT / "yolo").rglob("*.py")), "no source was found"
    assert rule(ROOT) == []


def test_the_config_loads_no_torch_and_builds_no_schema_before_one_is_read() -> None:
    """What AST cannot see: an import hidden behind another package's. ``--help`` is quick."""
    program = (
        "import sys, yolo.config.command_line\n"
        "from yolo.config.schema import Config\n"
        "print(Config.__pydantic_complete__, *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    complete, *modules = result.stdout.split()
    assert {"torch", "torchvision", "albumentations", "jsonschema"}.isdisjoint(modules)
    assert complete == "False"


def test_the_public_names_are_imported_at_their_first_use() -> None:
    program = (
        "import sys, yolo\n"
        "assert {name for name in sys.modules if name.startswith('yolo.')} == set()\n"
        "assert yolo.load_config.__module__ == 'yolo.config.load'\n"
        "assert 'torch' not in sys.modules\n"
        "from yolo import Predictor\n"
        "assert Predictor.__name__ == 'Predictor' and 'torch' in sys.modules\n"
        "assert not hasattr(yolo, 'Detector')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


ALLOWED = {
    "yolo/__init__.py": "__version__ = '1'",
    "yolo/detection/losses/v3.py": "import yolo.detection.assign\nfrom ..anchors import PRIORS",
    "yolo/models/neck.py": "from yolo import boxes, darknet\nmodel.eval()",
    "yolo/data/loader.py": "from .images import decode\nimport numpy",
    "yolo/factory.py": "from yolo.config import load\nfrom yolo.train.trainer import Trainer",
    "yolo/config/load.py": "import yaml\nfrom yolo.errors import one_line\nfrom .schema import C",
    "main.py": "from yolo.config import load_config\n" + "\n" * 79,
    "scripts/draw.py": "from yolo import factory, __version__\nfrom yolo.apps import predict",
}
FORBIDDEN = [
    ("yolo/boxes.py", "import yolo.records", broken_import_rules),
    ("yolo/models/head.py", "from yolo import detection", broken_import_rules),
    ("yolo/models/head.py", "from ..detection.losses.v3 import Loss", broken_import_rules),
    ("yolo/data/loader.py", "def f():\n    from yolo.models.neck import Neck", broken_import_rules),
    ("yolo/darknet/weights.py", "from yolo.models.neck import Neck", broken_import_rules),
    ("yolo/train/log.py", "from yolo.apps.report import page", broken_import_rules),
    ("yolo/apps/export/graph.py", "from yolo.apps.demo import page", broken_import_rules),
    ("yolo/detection/nms.py", "from yolo.config.schema import Config", broken_import_rules),
    ("yolo/train/trainer.py", "import main", broken_import_rules),
    ("yolo/config/load.py", "from yolo.files import atomic_write", broken_import_rules),
    ("yolo/config/load.py", "import torch.cuda", broken_import_rules),
    ("yolo/__init__.py", "from .boxes import area", broken_import_rules),
    ("yolo/attic/old.py", "", broken_import_rules),
    ("validation.py", "import main", broken_import_rules),
    ("main.py", "\n" * 81, too_long),
    ("scripts/draw.py", "\n" * 151, too_long),
    ("yolo/data/utils.py", "", rooms_without_a_name),
    ("tests/common/test_a.py", "", rooms_without_a_name),
    ("yolo/boxes.py", "from pickle import loads", unsafe_code),
    ("yolo/boxes.py", "eval('1')", unsafe_code),
    ("yolo/boxes.py", "np.load(path, allow_pickle=True)", unsafe_code),
    ("scripts/draw.py", "torch.load(path, weights_only=False)", unsafe_code),
    ("scripts/draw.py", "torch.load(path)", unsafe_code),
    ("yolo/boxes.py", "np.load(path)", unsafe_code),
    ("yolo/boxes.py", "importlib.import_module(name)", unsafe_code),
    ("yolo/boxes.py", "__import__(name)", unsafe_code),
    ("yolo/boxes.py", "yaml.load(text, yaml.UnsafeLoader)", unsafe_code),
    ("main.py", "yaml.unsafe_load(text)", unsafe_code),
]


def made_up_repository(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("rule", [broken_import_rules, too_long, rooms_without_a_name, unsafe_code])
def test_a_tidy_repository_passes(rule, tmp_path: Path) -> None:
    assert rule(made_up_repository(tmp_path, ALLOWED)) == []


@pytest.mark.parametrize(("name", "text", "rule"), FORBIDDEN)
def test_each_breach_is_found(name: str, text: str, rule, tmp_path: Path) -> None:
    found = rule(made_up_repository(tmp_path, ALLOWED | {name: text}))
    assert len(found) == 1, found
    assert found[0].startswith(name.removesuffix("/test_a.py"))
