"""What settings are made of: tasks, kinds of fields, durations, and sections that know no other keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from core.durations import LONGEST, parse_duration

Task = Literal["binary", "multiclass", "regression"]
Kind = Literal["number", "category", "bool", "text"]


AS_WRITTEN = {"as_written": True}
"""Validation context of what a person wrote: a duration needs its unit there."""

LARGEST_SEED = 2**32 - 1
"""What numpy and scikit-learn take."""


def _duration(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, int) or isinstance(value, bool):
        return parse_duration(value)
    if (info.context or {}).get("as_written"):
        raise ValueError(f"a duration needs a unit; write {abs(value)}d, {abs(value)}h or {abs(value)}s")
    return value


Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0, le=LONGEST)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, le=10.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Section(BaseModel):
    """A part of the project file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
