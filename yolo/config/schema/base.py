"""What all sections of the config share: strictness, keys, ranges, and rules between fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticUndefined

FilePath = Annotated[Path, WithJsonSchema({"type": "string", "format": "path"})]
"""A path: `load_config` makes it absolute, from the place where it was written."""

AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]

ByType = Field(discriminator="type")
"""Of a union of sections: `type` chooses the member."""


class Section(BaseModel):
    """A mapping of the config: immutable, without unknown keys, without silent conversions.

    Pydantic builds what checks it when it is first needed: ``--help`` needs none, a config one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )


def key(
    description: str,
    default: Any = PydanticUndefined,
    *,
    default_factory: Callable[[], Any] | None = None,
) -> Any:
    """A section's key as editors describe it; required where it has no default."""
    return Field(default, default_factory=default_factory, description=description)  # type: ignore[call-overload]


def broken_rules(rules: list[tuple[str, str]]) -> PydanticCustomError:
    """The error of a validator that checks more than one field's type and range.

    Each rule is the dotted key, relative to the validated field or model and "" for itself, and
    the words that follow the value in the message.
    """
    context: dict[str, Any] = {"rules": rules}
    return PydanticCustomError("rule", "a rule between fields is broken", context)


def broken_rule(text: str, key: str = "") -> PydanticCustomError:
    """`broken_rules` for a single rule."""
    return broken_rules([(key, text)])
