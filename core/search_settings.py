"""The project file's candidates: which model families the search tries, and in which spaces."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator

from core.setting_types import Name, Section

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
_Part = Annotated[float, Field(gt=0.0, le=1.0)]

_PARAMETERS: dict[str, dict[str, Any]] = {
    "gradient_boosting": {
        "learning_rate": _Positive,
        "max_iter": _Count,
        "max_leaf_nodes": Annotated[int, Field(ge=2)] | None,
        "max_depth": _Count | None,
        "min_samples_leaf": _Count,
        "l2_regularization": Annotated[float, Field(ge=0.0, allow_inf_nan=False)],
        "max_features": _Part,
    },
    "linear": {"strength": _Positive, "min_frequency": _Count},
    "forest": {
        "n_estimators": _Count,
        "max_depth": _Count | None,
        "min_samples_leaf": _Count,
        "max_features": _Part | Literal["sqrt", "log2"] | None,
    },
}
"""What can be set of each family. Of `linear`, `strength` is the inverse of the penalty."""

FAMILIES = tuple(_PARAMETERS)
_LISTED = "; ".join(f"{family}: {', '.join(names)}" for family, names in _PARAMETERS.items())


class SpaceSettings(Section):
    """Where one parameter is searched: from `low` to `high`, or among `choices`; a list is short for choices.

    Examples
    --------
    >>> SpaceSettings(low=10, high=200, log=True).nearest(300)
    200
    >>> SpaceSettings(choices=["sqrt", 0.5]).nearest(0.3)
    'sqrt'
    """

    low: int | float | None = Field(None, description="the smallest value; whole numbers only, if both are written so")
    high: int | float | None = Field(None, description="the largest value")
    log: bool = Field(False, description="whether equal ratios count alike, instead of equal differences")
    choices: list[JsonValue] | None = Field(None, min_length=1, description="the values, instead of low and high")

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.log or not self.low is self.high is None:
                raise ValueError("has choices and a range; keep one: a list of values, or low and high")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs both ends; write {low: 1, high: 100}, or a list of values")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite; write numbers")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0 (got {self.low}); raise low or leave log out")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def nearest(self, value: Any) -> Any:
        """Return the value itself where the space holds it, else the nearest end of the range or the first choice.

        ``None`` stands for no wish: the middle of the range (of the ratios, with `log`), or the first choice.
        """
        if self.choices is not None:
            return value if any(_same(value, choice) for choice in self.choices) else self.choices[0]
        assert self.low is not None and self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        kept = min(max(value, self.low), self.high)
        return round(kept) if self.whole else float(kept)

    def as_number(self) -> SpaceSettings:
        """Return the same range, of any numbers."""
        if self.low is None or self.high is None:
            return self
        return self.model_copy(update={"low": float(self.low), "high": float(self.high)})

    def values(self) -> list[tuple[str, Any]]:
        """Return what is written, each with its key."""
        if self.choices is not None:
            return [(f"[{index}]", value) for index, value in enumerate(self.choices)]
        return [(".low", self.low), (".high", self.high)]


class CandidateSettings(Section):
    """A model family to try; its name alone is short for its default space."""

    family: str = Field(description="gradient_boosting, linear, forest; or file.py:function")
    space: dict[Name, SpaceSettings] = Field(
        {}, description=f"where its parameters are searched, in place of their default spaces; {_LISTED}"
    )
    params: dict[Name, JsonValue] = Field(
        {}, description="parameters that are fixed; a function gets them, and those of its space, as keyword arguments"
    )

    @field_validator("space", mode="before")
    @classmethod
    def _short_choices(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if single := [name for name, entry in value.items() if not isinstance(entry, list | dict | SpaceSettings)]:
            raise ValueError(
                f"{single[0]} is one value; fix it under params, or write {{low: 1, high: 100}} or a list of values"
            )
        return {name: {"choices": entry} if isinstance(entry, list) else entry for name, entry in value.items()}

    @field_validator("space")
    @classmethod
    def _numbers(cls, value: dict[str, SpaceSettings], info: ValidationInfo) -> dict[str, SpaceSettings]:
        """From 0 to 1 is more than two values, where the parameter is any number."""
        known = _PARAMETERS.get(info.data.get("family", ""), {})
        return {
            name: space.as_number() if name in known and not _is_count(info.data["family"], name) else space
            for name, space in value.items()
        }

    @model_validator(mode="after")
    def _known(self) -> Self:
        if both := sorted(self.space.keys() & self.params.keys()):
            raise ValueError(f"{both[0]} is in space and in params; keep one of the two")
        if ":" in self.family:
            return self
        if self.family not in _PARAMETERS:
            raise ValueError(f"family {self.family!r} is not known; write {', '.join(FAMILIES)} or file.py:function")
        for name, space in self.space.items():
            for place, value in space.values():
                self._check(f"space.{name}", name, value, place)
        for name, value in self.params.items():
            self._check(f"params.{name}", name, value)
        return self

    def _check(self, key: str, name: str, value: Any, place: str = "") -> None:
        known = _PARAMETERS[self.family]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
            raise ValueError(f"{key}: {self.family} has no {name!r}; {fix}")
        try:
            _checker(self.family, name).validate_python(value, strict=True)
        except ValidationError as error:
            said = [item["msg"][:1].lower() + item["msg"][1:] for item in error.errors()]
            fix = f"; YAML takes it for text, write {float(value)}" if _is_numeric(value) else ""
            raise ValueError(f"{key}{place}: {', or '.join(said)} (got {value!r}){fix}") from error


def as_candidates(value: object) -> object:
    """Return a list of candidates in which a family's name alone is written out.

    Raises
    ------
    ValueError
        If an entry is neither a name nor a mapping.
    """
    if isinstance(value, list):
        if wrong := [entry for entry in value if not isinstance(entry, str | dict | CandidateSettings)]:
            raise ValueError(f"{wrong[0]!r} is no family; write a family's name, or {{family: NAME, space: {{...}}}}")
        return [{"family": entry} if isinstance(entry, str) else entry for entry in value]
    return value


def check_candidates(found: list[CandidateSettings]) -> None:
    """Refuse a family that is there twice.

    Raises
    ------
    ValueError
        With the family and what to do.
    """
    names = [entry.family for entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]!r} is there twice; put both spaces into one entry")


def _is_count(family: str, name: str) -> bool:
    schema: Mapping[str, Any] = _checker(family, name).json_schema()
    return any(part.get("type") == "integer" for part in (schema, *schema.get("anyOf", ())))


@cache
def _checker(family: str, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_PARAMETERS[family][name])


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same to a person: True is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_numeric(value: Any) -> bool:
    """Tell whether a text is a number to a person: YAML reads 1e-3 as text."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
