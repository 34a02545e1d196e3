"""Writes the generated JSON files of the config.

yolo/config/transforms.json  names, types and ranges of the arguments of the allowed transforms,
                             read from the checks of Albumentations and of our own
configs/schema.json          the config's schema for editors

    python scripts/make_schema.py            write both
    python scripts/make_schema.py --check    exit 1 where one is not current
"""

import argparse
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its newest version

import albumentations
from pydantic import AfterValidator

from yolo.config.schema import editor_schema
from yolo.config.schema.transforms import TRANSFORMS_FILE
from yolo.data.transforms.colour import OWN_TRANSFORMS
from yolo.data.transforms.transform_list import TRANSFORMS

SCHEMA_FILE = ROOT / "configs" / "schema.json"

# Detection has no masks; three channels, the network's size and strictness are the framework's.
NOT_FOR_USERS = {
    "": {"strict", "fill_mask", "mask_interpolation"},
    "ToGray": {"num_output_channels"},
    "Resize": {"height", "width"},
    "RandomResizedCrop": {"size"},
    "RandomSizedBBoxSafeCrop": {"height", "width", "interpolation"},
}
FRAMEWORK_DEFAULTS = {"fill": [124, 116, 104], "area_for_downscale": "image"}
SUMMARIES = {
    "Resize": "Stretch the image to data.image_size instead of letterboxing it.",
    "RandomSizedBBoxSafeCrop": "Cut a random part out of the image that holds all its boxes "
    "(ignored regions are none) and stretch it to data.image_size; erosion_rate above 0 may cut "
    "boxes, and is the most that an image without boxes loses of its height and width.",
}
BORDER_MODES = [0, 1]  # one colour, the edge's colours: the others repeat objects without boxes


def transform(name: str) -> dict[str, Any]:
    """Reads the arguments of one transform: our own, or by its InitSchema and its signature."""
    own = OWN_TRANSFORMS.get(name)
    cls: Any = own or getattr(albumentations, name)
    model = own or cls.InitSchema
    schema = model.model_json_schema()
    defaults = inspect.signature(cls if own else cls.__init__).parameters
    properties: dict[str, Any] = {"type": {"const": name, "description": summary(name, cls)}}
    required = ["type"]
    for argument, field in model.model_fields.items():
        if argument in NOT_FOR_USERS[""] | NOT_FOR_USERS.get(name, set()):
            continue
        properties[argument] = plain(schema["properties"][argument], bounds(field.metadata))
        if argument == "border_mode":
            properties[argument]["enum"] = BORDER_MODES
        default = FRAMEWORK_DEFAULTS.get(argument, defaults[argument].default)
        if default is inspect.Parameter.empty:
            required.append(argument)
        else:
            properties[argument]["default"] = default
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def summary(name: str, cls: type) -> str:
    """The first sentence of the class' docstring, on one line."""
    if name in SUMMARIES:
        return SUMMARIES[name]
    paragraph = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).split(". ")[0]


def bounds(metadata: list[Any]) -> dict[str, Any]:
    """Keywords for what Albumentations checks by closures of `check_range_bounds`, and order."""
    found: dict[str, Any] = {}
    for check in (item.func for item in metadata if isinstance(item, AfterValidator)):
        if check.__name__ == "nondecreasing":
            found["nondecreasing"] = True
        if "check_range_bounds" in check.__qualname__:
            limits = inspect.getclosurevars(check).nonlocals
            low = "minimum" if limits["min_inclusive"] else "exclusiveMinimum"
            high = "maximum" if limits.get("max_inclusive", True) else "exclusiveMaximum"
            found |= {low: limits["min_val"], high: limits["max_val"]}
    return {keyword: value for keyword, value in found.items() if value is not None}


def plain(schema: Any, limits: dict[str, Any]) -> Any:
    """Drops titles, writes [a, b] by `items`, which every editor knows, and puts limits in."""
    schema = {key: value for key, value in schema.items() if key != "title"}
    if "prefixItems" in schema:
        schema["items"] = schema.pop("prefixItems")[0]
    if "anyOf" in schema:
        schema["anyOf"] = distinct([plain(option, limits) for option in schema["anyOf"]])
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            schema[inner] = plain(schema[inner], limits)
    if schema.get("type") in ("number", "integer"):
        schema |= {key: value for key, value in limits.items() if key != "nondecreasing"}
    if schema.get("type") == "array" and "nondecreasing" in limits:
        schema["nondecreasing"] = True
    return schema


def distinct(options: list[Any]) -> list[Any]:
    """Leaves out an option of whole numbers beside the same option of any numbers."""
    wider = [json.loads(json.dumps(option).replace('"integer"', '"number"')) for option in options]
    return [
        option
        for option, wide in zip(options, wider, strict=True)
        if wide == option or wide not in options
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the generated JSON files of the config.")
    parser.add_argument("--check", action="store_true", help="only check whether they are current")
    check = parser.parse_args().check
    table = {name: transform(name) for name in sorted(TRANSFORMS)}
    stale = []
    for file, content in ((TRANSFORMS_FILE, table), (SCHEMA_FILE, editor_schema(table))):
        text = json.dumps(content, indent=1) + "\n"
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(file.relative_to(ROOT))
        if not check:
            file.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name} is not current: run 'make schema'" if check else f"{name} written")
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
