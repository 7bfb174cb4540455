"""The project file's features per key: what the stream knows of a key at the moment of a prediction."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from core.setting_types import Duration, Kind, Name, Section, Task

OfKey = Literal["count", "time_since", "last", "mean", "label_count", "label_mean", "label_last"]
_TAKES_OF = ("last", "mean")
_TAKES_HALF_LIFE = ("count", "mean", "label_count", "label_mean")


class PerKeySettings(Section):
    """A feature of what came before with the same key, known at the prediction and stored with the event."""

    name: Name = Field(description="its name")
    key: list[Name] = Field(
        min_length=1,
        description="the category field, or a list of them, whose values are the key; it must live in one partition: "
        "any where `topics.partitions` is 1, else one with `topics.key` in it",
    )
    kind: OfKey = Field(
        description="of the key's earlier events: count, time_since (seconds, or rows), last or mean (of what `of` "
        "names); of its labels that are known by then: label_count, label_mean (binary: the rate), label_last"
    )
    of: Name | None = Field(None, description="last and mean: the feature whose earlier values are meant")
    back: int = Field(1, ge=1, le=50, description="last: 1 is the value of the event before, 2 of the one before that")
    half_life: Duration | None = Field(
        None,
        ge=1,
        description="count, mean, label_count and label_mean: event time after which an event counts half; all count "
        "alike if left out",
    )
    outcome: bool | int | float | str | None = Field(
        None, description="label_mean of a multiclass task: the class whose share it is"
    )

    @field_validator("key", mode="before")
    @classmethod
    def _one_key(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"{self.name}: key names a field twice; name it once")
        if (self.of is not None) != (self.kind in _TAKES_OF):
            raise ValueError(
                f"{self.name}: {self.kind} " + ("is of nothing else; remove 'of'" if self.of else "needs 'of: FEATURE'")
            )
        if self.half_life is not None and self.kind not in _TAKES_HALF_LIFE:
            raise ValueError(f"{self.name}: {self.kind} has no half_life; remove it")
        if self.back != 1 and self.kind != "last":
            raise ValueError(f"{self.name}: only last goes back; remove 'back'")
        if self.outcome is not None and self.kind != "label_mean":
            raise ValueError(f"{self.name}: only label_mean is of an outcome; remove 'outcome'")
        return self

    def type_of(self, base: dict[str, Kind], task: Task) -> Kind:
        """Return its type; `base` are the features that `of` may name."""
        if self.kind == "last" and self.of is not None:
            return base.get(self.of, "number")
        return "category" if self.kind == "label_last" and task == "multiclass" else "number"
