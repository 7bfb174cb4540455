"""The project file's sections about what comes in: fields, label, topics, their order, features, a recorded stream."""

from __future__ import annotations

from math import isnan
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from core.durations import DAY
from core.generated import Part, calendar_kinds, interaction_name
from core.keyed_settings import PerKeySettings
from core.privacy_settings import Mark
from core.setting_types import Duration, Kind, Name, Section


class _Bounded(Section):
    """What has a smallest and a largest value."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _bounds_leave_something(self) -> Self:
        if any(bound is not None and isnan(bound) for bound in (self.minimum, self.maximum)):
            raise ValueError("minimum or maximum is not a number, so that nothing would be refused; write a number")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is larger than maximum; swap them")
        return self


class FieldSettings(_Bounded):
    """One field of the event."""

    type: Kind = Field(description="number, category, bool or text")
    path: str | None = Field(None, description="where it is in the JSON, as a.b.c; its own name if left out")
    nullable: bool = Field(True, description="whether it may be missing or null")
    minimum: float | None = Field(None, description="the smallest number accepted")
    maximum: float | None = Field(None, description="the largest number accepted")
    max_categories: PositiveInt = Field(200, description="distinct categories kept; every later one is read as <other>")
    pii: Mark | None = Field(
        None,
        description="a personal value: hash keeps a keyed hash instead (category and text), drop keeps nothing of it, "
        "and neither is seen by the feature function in clear",
    )

    @model_validator(mode="after")
    def _hash_of_text(self) -> Self:
        if self.pii == "hash" and self.type not in ("category", "text"):
            raise ValueError(f"pii: hash makes text of a {self.type}; make the field a category, or write pii: drop")
        return self


class LabelSettings(_Bounded):
    """The outcome, and how long it may take."""

    path: str = Field("label", description="where the outcome is in the label's JSON")
    id: str | None = Field(None, description="where the event's id is in the label's JSON; as in the event if left out")
    time: str | None = Field(None, description="where the label's time is; the record's own time stamp if left out")
    horizon: Duration = Field(7 * DAY, ge=1, description="how long after the event a label may come")
    missing: bool | int | float | str | None = Field(
        None, description="the outcome an event gets when no label came by the horizon; none if left out"
    )
    positive: bool | int | float | str = Field(True, description="binary: the outcome that counts as 1")
    negative: bool | int | float | str = Field(False, description="binary: the outcome that counts as 0")
    classes: list[str] = Field([], description="multiclass: all the classes there are; learned from labels if left out")
    max_classes: int = Field(
        200,
        ge=2,
        description="multiclass without classes: distinct ones learned; a label of a later one is dead-lettered",
    )
    minimum: float | None = Field(None, description="regression: the smallest outcome accepted")
    maximum: float | None = Field(None, description="regression: the largest outcome accepted")

    @field_validator("classes")
    @classmethod
    def _classes_to_tell_apart(cls, value: list[str]) -> list[str]:
        if len(value) == 1 or len(set(value)) < len(value):
            raise ValueError("needs two classes or more, each once; leave it out to have them learned from labels")
        return value


class OneTopicSettings(Section):
    """How to tell events and labels apart when both are in one topic."""

    path: str = Field(description="the field that says what a record is")
    event: str = Field("event", description="its value for an event")
    label: str = Field("label", description="its value for a label")


class TopicSettings(Section):
    """The topics, all partitioned by the event's id, or by one of its fields."""

    events: str | None = Field(None, description="the events topic; <name>.events if left out")
    labels: str | None = Field(None, description="the labels topic; <name>.labels if left out")
    predictions: str | None = Field(None, description="served predictions; <name>.predictions if left out")
    dead_letters: str | None = Field(None, description="bad records; <name>.dead-letters if left out")
    journal: str | None = Field(None, description="the order that was decided; <name>.journal if left out")
    kind: OneTopicSettings | None = Field(None, description="for events and labels in one topic")
    key: str | None = Field(
        None,
        description="the category field whose value is the key of both topics' records, in place of the event's id: "
        "all events of one value are then in one partition; labels must have the same key",
    )
    partitions: PositiveInt = Field(1, description="partitions of topics that headrace creates")
    create: bool = Field(True, description="whether missing topics are created")
    max_bytes: PositiveInt = Field(1_000_000, description="the largest record value that is decoded, in bytes")


class OrderSettings(Section):
    """How the two input topics become one order."""

    max_wait: Duration = Field(200, description="how long a record waits for the other, silent topic")
    max_ahead: Duration = Field(DAY, description="how far an event's time may lie ahead of its record's time stamp")


class FeatureSettings(Section):
    """The project's feature function, without which the fields are the features; and what is made besides."""

    function: str | None = Field(None, description="file.py:function, in the project folder")
    outputs: dict[Name, Kind] = Field({}, description="each feature that the function returns, and its type")
    max_categories: PositiveInt = Field(
        200,
        description="distinct values kept of each category that it returns, and of each interaction; every later one "
        "becomes <other>",
    )
    calendar: list[Part] = Field(
        [], description="features of the event's time, named event_<part>: hour, weekday, day, month, weekend"
    )
    time_zone: str = Field("UTC", description="in which the calendar is read, such as America/New_York")
    interactions: list[list[Name]] = Field(
        [],
        description="features combined, named <a>_x_<b>: numbers are multiplied, categories and bools joined",
    )
    per_key: list[PerKeySettings] = Field([], description="features of a key's past, computed by the stream")
    max_keys: PositiveInt = Field(
        50_000,
        description="values of one key that a partition remembers; beyond it the one seen longest ago is forgotten",
    )
    online_only: list[Name] = Field(
        [],
        description="features whose values do not come back, such as a calendar day: "
        "for the online experts only, neither trained on in batch nor watched for drift",
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("is no time zone; write one such as UTC or Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _function_and_outputs(self) -> Self:
        if (self.function is None) != (not self.outputs):
            raise ValueError("a function needs outputs, and outputs a function; give both, or neither")
        if len(set(self.calendar)) < len(self.calendar):
            raise ValueError("calendar names a part twice; name it once")
        made = [*calendar_kinds(self.calendar), *map(interaction_name, self.interactions)]
        known = {*self.outputs, *made, *(one.name for one in self.per_key)}
        unknown = [name for name in self.online_only if name not in known]
        if self.function is not None and unknown:
            raise ValueError(f"online_only names {unknown[0]!r}, which is not among the outputs, nor made besides")
        return self


class ReplaySettings(Section):
    """The recorded stream of ``headrace replay`` and ``headrace demo``."""

    source: str | None = Field(
        None, description="file.py:function that yields (time_ms, topic kind, id, payload) in time order"
    )
    file: str | None = Field(
        None,
        description="instead of source: a CSV or Parquet file (gzip too), one row an event with its outcome; without "
        "a column for id or time, rows count as both, and durations may be written as 500 rows",
    )
    label_delay: Duration = Field(0, description="file: how long after its event a label is known")
    label_time: str | None = Field(None, description="file: the column that says when the label was known, instead")

    @model_validator(mode="after")
    def _one_stream(self) -> Self:
        if (self.source is None) == (self.file is None):
            raise ValueError("give either source or file")
        if self.label_time is not None and self.label_delay:
            raise ValueError("give either label_time or label_delay")
        return self
