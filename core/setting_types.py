"""What settings are made of: tasks, kinds of fields, durations, and sections that know no other keys."""

from __future__ import annotations

import re
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


def _period(value: object, info: ValidationInfo) -> object:
    """Read ``1 per 90d``: the time between two, ms."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _duration(value, info)
    found = _PER.fullmatch(str(value).strip().lower())
    if found is None or float(found[1]) <= 0.0:
        raise ValueError(f"{value!r} is not how often; write a number per duration, such as 1 per 90d")
    return round(parse_duration(found[2]) / float(found[1]))


_PER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:per|/)\s*(.+)")

Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0, le=LONGEST)]
HowOften = Annotated[int, BeforeValidator(_period), Field(ge=1, le=LONGEST)]
"""Written ``1 per 90d``, held as the milliseconds between two."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, le=10.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Section(BaseModel):
    """A part of the project file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
