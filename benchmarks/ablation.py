"""The YAML of an ablation: one config, trained with other settings and several seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from yolo.config.errors import ConfigError, explain
from yolo.config.load import leaf_values, load_config
from yolo.config.read import read_yaml_file
from yolo.config.schema.base import Section, Seed, key
from yolo.config.wording import dotted

Settings = tuple[str, ...]
"""`dotted.key=value` each, as on main.py's command line."""


class AblationConfig(Section):
    config: str = key("The YAML that all variants begin with; relative to this file.")
    settings: Settings = key("Settings of all variants.", ())
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = key("Each variant's seeds.", (0,))
    split: Literal["val", "test"] = key("Images that each run's best.pt is scored on.", "val")
    variants: Annotated[dict[str, Settings], Field(min_length=1)] = key(
        "Settings of each variant, by the name of its runs."
    )


@dataclass(frozen=True)
class PlannedRun:
    """One training of an ablation."""

    variant: str
    name: str  # of its folder: the variant's and the seed
    overrides: Settings
    settings: dict[str, Any]  # all of its config by dotted key


def read_ablation(
    path: Path, overrides: Sequence[str] = ()
) -> tuple[AblationConfig, list[PlannedRun]]:
    """An ablation with all its runs, seed by seed, so that a table is whole as early as possible.

    The overrides are further settings of all variants.

    Raises:
        ConfigError: with every problem of the file and of the variants.
    """
    data = read_yaml_file(path, str(path))
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: holds no settings; name config and variants"])
    try:
        ablation = AblationConfig.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise explain(error, AblationConfig, data, lambda _: str(path), lambda _: "") from error
    problems: list[str] = []
    runs = list(_plan(path, ablation, tuple(overrides), problems))
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return ablation, runs


def _plan(
    path: Path, ablation: AblationConfig, more: Settings, problems: list[str]
) -> Iterator[PlannedRun]:
    for variant in ablation.variants:
        if re.fullmatch(r"[\w.+-]+", variant) is None:
            rule = "must be letters, digits and -_+. alone, for its runs' folders have its name"
            problems.append(f"{path}: variants: {variant!r}: {rule}")
    for seed in ablation.seeds:
        for variant, settings in ablation.variants.items():
            overrides = (*ablation.settings, *settings, *more, f"seed={seed}")
            try:
                resolved = load_config(path.parent / ablation.config, overrides)
            except ConfigError as error:
                problems += [f"{path}: variant {variant}: {text}" for text in error.problems]
            else:
                every = {dotted(k): value for k, value in leaf_values(resolved.data)}
                yield PlannedRun(variant, f"{variant}-seed{seed}", overrides, every)
