"""The JSON schema by which editors complete and check the YAML files of configs/."""

from collections.abc import Mapping
from typing import Any

from yolo.config.loading import REPOSITORY_ROOT
from yolo.config.schema import TASKS
from yolo.config.schema.transforms import transform_schema

SCHEMA_FILE = REPOSITORY_ROOT / "configs" / "schema.json"
EXTENDS = {
    "description": "YAML files to start from, relative to this file; later ones win.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def editor_schema(transforms: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the schema of one YAML file, which may be a part that others extend.

    So nothing but a transform's own arguments is required, and a component whose `type` stands in
    the extended file matches several members of its union.

    Args:
        transforms: the contents of transforms.json.
    """
    tasks = [_loosened(model.model_json_schema()) for model in TASKS.values()]
    definitions = {name: schema for task in tasks for name, schema in task.pop("$defs").items()}
    definitions["Transform"] = transform_schema(transforms)
    for task in tasks:
        task["properties"] = {"extends": EXTENDS, **task["properties"]}
    whole = tasks[0] if len(tasks) == 1 else {"anyOf": tasks}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "$defs": dict(sorted(definitions.items())),
    }


def _loosened(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {
        key: _loosened(value)
        for key, value in schema.items()
        if not (key == "required" and isinstance(value, list)) and key != "discriminator"
    }
    if "oneOf" in loose:
        loose["anyOf"] = loose.pop("oneOf")
    return loose
