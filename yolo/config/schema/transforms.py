"""One training transform: a class of Albumentations or our own by name, with its arguments.

The names, types and ranges of the arguments stand in transforms.json, generated from
the classes by scripts/make_schema.py, so that checking a config imports no Albumentations.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from yolo.config.read import read_yaml
from yolo.config.schema.base import Fraction, Section, broken_rules
from yolo.config.wording import describe, one_of
from yolo.errors import did_you_mean

TRANSFORMS_FILE = Path(__file__).parents[1] / "transforms.json"
DEFAULTS_FILE = Path(__file__).parents[1] / "default_augment.yaml"


@cache
def transforms() -> dict[str, Any]:
    """Name of each allowed transform -> JSON schema of its arguments."""
    return dict(json.loads(TRANSFORMS_FILE.read_text(encoding="utf-8")))


@cache
def _argument_validator() -> Any:
    """The class that checks a value by its schema in transforms.json."""
    from jsonschema import Draft202012Validator, ValidationError  # --help can do without
    from jsonschema.validators import extend

    def nondecreasing(
        validator: Any, wanted: bool, value: object, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        """The keyword of ranges [from, to]."""
        if wanted and isinstance(value, list) and value != sorted(value):
            yield ValidationError("not in order")

    return extend(Draft202012Validator, {"nondecreasing": nondecreasing})


class Transform(Section):
    """A transform by `type`; its arguments are kept as further keys, in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The transform.")
    p: Fraction = Field(description="Probability of applying it to an image.")

    @model_validator(mode="before")
    @classmethod
    def _check_arguments(cls, given: Any) -> Any:
        """Reports every wrong argument and fills in the transform's own default of `p`."""
        if not isinstance(given, Mapping):
            return given
        if rules := list(_broken_arguments(given)):
            raise broken_rules(rules)
        return {"p": transforms()[given["type"]]["properties"]["p"]["default"], **given}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return transform_schema(transforms())


def default_augment(task: str) -> tuple[Transform, ...]:
    """The transforms of a config of this task that names none."""
    defaults: Any = read_yaml(DEFAULTS_FILE.read_text(encoding="utf-8"), DEFAULTS_FILE.name)
    return tuple(map(Transform.model_validate, defaults[task]))


def transform_schema(table: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of one entry of `data.augment`, from the schemas of all transforms."""
    return {"title": "Transform", "anyOf": list(table.values())}


def _broken_arguments(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (key, words) for each thing wrong with a transform."""
    name, known = given.get("type"), transforms()
    if not isinstance(name, str) or name not in known:
        missing = "" if "type" in given else "missing: "
        yield "type", f"{missing}must be {one_of(known)}{did_you_mean(name, known)}"
        return
    properties = known[name]["properties"]
    for key, value in given.items():
        if key not in properties:
            allowed = [key for key in properties if key != "type"]
            words = f"unknown argument of {name}, which takes {', '.join(allowed)}"
            yield key, words + did_you_mean(key, allowed)
        elif not _argument_validator()(properties[key]).is_valid(value):
            yield key, f"must be {describe(properties[key])}"
    for key in known[name]["required"]:
        if key not in given:
            yield key, f"missing: {name} needs {describe(properties[key])}"
