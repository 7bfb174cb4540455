"""What follows from a record: rows for the tables, and messages. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.predictions import FeatureValue, Outcome, Prediction
from core.records import BadRecord, Label
from streaming.join import Predicted
from streaming.transport import RawRecord


@dataclass(frozen=True, slots=True)
class Example:
    """A prediction and its outcome; `label_time` and `label_clock` in ms.

    `successor` is what the champion predicts that has come in between, None where there is none; `anew` what the online
    experts say by now, None where they are not asked again.
    """

    step: int
    predicted: Predicted
    outcome: Outcome
    label_time: int
    label_clock: int
    implied: bool
    successor: Prediction | None = None
    anew: Mapping[str, Prediction] | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """A second, different label."""

    step: int
    label: Label
    label_clock: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The fields of an event as the feature function got them; `time` in ms."""

    step: int
    id: str
    time: int
    partition: int
    fields: dict[str, FeatureValue]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, without what is personal; `masked` are the headers that say so."""

    record: RawRecord
    bad: BadRecord
    masked: Mapping[str, str] = field(default_factory=dict)


Output = Predicted | Example | Correction | Kept | DeadLetter
