"""Step 1: raw bytes become an event, a label or a bad record. Pure; nothing here raises for bad input.

The decoder is built from the project file: JSON and types are checked by :mod:`core.strict_json` in one pass,
and the few checks that it cannot make (bounds, time, id) follow here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.durations import EARLIEST, LATEST, parse_iso
from core.errors import SettingsError
from core.outcomes import outcome_reader, outcomes_told
from core.predictions import MAX_CATEGORY_LENGTH, MAX_MAGNITUDE, FeatureValue, Outcome
from core.pseudonyms import Pseudonyms
from core.reasons import UNREADABLE_HEADER, Reason
from core.setting_types import Kind
from core.settings import Settings
from core.stream_settings import FieldSettings
from core.strict_json import StrictJson, shorten

MAX_ID_LENGTH = 512
_BATCH_REASONS: dict[Reason, str] = {
    "oversized_batch": "it came in a compressed batch that unpacks to more than 64 MiB",
    "unreadable_batch": "it came in a batch that does not unpack or parse, though its checksum holds",
}
_MS_PER_UNIT = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be predicted; `time` in ms; `unknown` tells that it carried fields not in the settings."""

    id: str
    time: int
    fields: dict[str, FeatureValue]
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """An outcome, joined to its event by id; `time` in ms."""

    id: str
    time: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Why a record cannot be used; `kind` tells in which book it is counted."""

    kind: Literal["event", "label"]
    reason: Reason
    detail: str


Decode = Callable[[bytes | None, int], "Event | Label | BadRecord"]


class Decoder:
    """Decodes the values of both input topics of one project.

    What is personal is hashed or dropped here, as the first thing after decoding: nobody behind sees it in clear.

    Parameters
    ----------
    settings : Settings
        The project file.
    pseudonyms : Pseudonyms, optional
        Needed where something is to be hashed.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> settings = parse_settings(
    ...     "{name: a, id: id, time: at, fields: {x: number}, label: {path: y, positive: 1, negative: 0}}"
    ... )
    >>> decoder = Decoder(settings)
    >>> decoder.event(b'{"id": "e1", "at": 5, "x": 1.5}', 5)
    Event(id='e1', time=5, fields={'x': 1.5}, unknown=False)
    >>> decoder.label(b'{"id": "e1", "y": 1}', 9)
    Label(id='e1', time=9, outcome=1)
    >>> decoder.event(b'{"id": "e1", "at": 5, "x": NaN}', 5).reason
    'malformed'
    """

    def __init__(self, settings: Settings, pseudonyms: Pseudonyms | None = None) -> None:
        self._settings = settings
        self._hide = _hider(settings, pseudonyms)
        kind = settings.topics.kind
        event_paths = [(settings.id, str | int), (settings.time, str | int | float)]
        event_paths += [(field.path or name, _json_type(field)) for name, field in settings.fields.items()]
        event_paths += [(kind.path, str)] if kind else []
        self._event_json = StrictJson(event_paths, settings.topics.max_bytes)
        self._label_id = settings.label.id or settings.id
        label_paths = [(self._label_id, str | int), (settings.label.path, Any)]
        label_paths += [(settings.label.time, str | int | float)] if settings.label.time else []
        self._label_json = StrictJson(label_paths, settings.topics.max_bytes)
        self._id = _getter(settings.id)
        self._time = _getter(settings.time)
        self._label_getters = [
            _getter(path) for path in (self._label_id, settings.label.path, settings.label.time or self._label_id)
        ]
        self._fields = [
            (name, _getter(field.path or name), _field_check(name, field, pseudonyms))
            for name, field in settings.kept_fields.items()
        ]
        self._outcome = outcome_reader(settings)
        self._kind = kind
        self._kind_json = StrictJson([(kind.path, str)], settings.topics.max_bytes) if kind else None
        self._kind_of = _getter(kind.path) if kind else None

    def read(
        self, topic: str, value: bytes | None, timestamp: int, headers: Sequence[tuple[str, bytes]]
    ) -> Event | Label | BadRecord:
        """Decode a record of `topic`; one that stands for what cannot be had of its batch is bad (`core.reasons`)."""
        if value is None and headers:
            marked = dict(headers).get(UNREADABLE_HEADER)
            for reason, detail in _BATCH_REASONS.items():
                if marked == reason.encode():
                    kind: Literal["event", "label"] = "event" if topic == self._settings.events_topic else "label"
                    return BadRecord(kind, reason, detail)
        return self.for_topic(topic)(value, timestamp)

    def event(self, value: bytes | None, timestamp: int) -> Event | BadRecord:
        """Decode an event; `timestamp` is its record's, ms."""
        content, unknown = self._event_json.decode(value, timestamp)
        if isinstance(content, tuple):
            return BadRecord("event", *content)
        identifier = _read_id(self._id(content))
        if identifier is None:
            return BadRecord("event", "bad_id", f"{self._settings.id}: an id has 1 to {MAX_ID_LENGTH} characters")
        time = read_time(self._time(content), self._settings.time_unit)
        if time is None:
            return BadRecord(
                "event", "bad_time", f"{self._settings.time}: {shorten(self._time(content))} is not a time"
            )
        if time > timestamp + self._settings.order.max_ahead:
            return BadRecord(
                "event",
                "time_ahead",
                f"{self._settings.time}: later than the record by more than order.max_ahead",
            )
        fields: dict[str, FeatureValue] = {}
        for name, getter, check in self._fields:
            found, problem = check(getter(content))
            if problem is not None:
                return BadRecord("event", problem[0], f"{name}: {problem[1]}")
            fields[name] = found
        return Event(self._hide(identifier), time, fields, unknown)

    def label(self, value: bytes | None, timestamp: int) -> Label | BadRecord:
        """Decode a label; without a time of its own it has its record's `timestamp`, ms."""
        content, _ = self._label_json.decode(value, timestamp)
        if isinstance(content, tuple):
            return BadRecord("label", *content)
        get_id, get_outcome, get_time = self._label_getters
        identifier = _read_id(get_id(content))
        if identifier is None:
            return BadRecord("label", "bad_id", f"{self._label_id}: an id has 1 to {MAX_ID_LENGTH} characters")
        outcome = self._outcome(get_outcome(content))
        if outcome is None:
            found = get_outcome(content)
            wanted = outcomes_told(self._settings, found)
            detail = f"{self._settings.label.path}: {shorten(found)} is no outcome of this task, {wanted}"
            return BadRecord("label", "bad_label", detail)
        time: int | None = timestamp
        if self._settings.label.time:
            time = read_time(get_time(content), self._settings.time_unit)
        if time is None:
            return BadRecord("label", "bad_time", f"{self._settings.label.time}: is not a time")
        if time > timestamp + self._settings.order.max_ahead:
            return BadRecord(
                "label",
                "time_ahead",
                f"{self._settings.label.time}: later than the record by more than order.max_ahead",
            )
        return Label(self._hide(identifier), time, outcome)

    def either(self, value: bytes | None, timestamp: int) -> Event | Label | BadRecord:
        """Decode a record of a topic that carries both events and labels."""
        assert self._kind and self._kind_json and self._kind_of
        content, _ = self._kind_json.decode(value, timestamp)
        if isinstance(content, tuple):
            return BadRecord("event", *content)
        kind = self._kind_of(content)
        if kind == self._kind.event:
            return self.event(value, timestamp)
        if kind == self._kind.label:
            return self.label(value, timestamp)
        return BadRecord("event", "unknown_kind", f"{self._kind.path}: {shorten(kind)} is neither event nor label")

    def for_topic(self, topic: str) -> Decode:
        """Return the method that decodes `topic`."""
        if self._kind is not None and self._settings.events_topic == self._settings.labels_topic:
            return self.either
        return self.event if topic == self._settings.events_topic else self.label


def _getter(path: str) -> Callable[[Any], Any]:
    """Return a function that reads `path` from a decoded record, None where a parent is missing."""
    parts = path.split(".")

    def get(content: Any) -> Any:
        for part in parts:
            if content is None:
                return None
            content = getattr(content, f"f{type(content).NAMES.index(part)}")
        return content

    return get


def _json_type(field: FieldSettings) -> Any:
    if field.pii == "drop":
        return Any
    return {"number": float, "category": str | int | bool, "bool": bool, "text": str}[field.type]


def _read_id(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return text if 0 < len(text) <= MAX_ID_LENGTH else None


def read_time(value: Any, unit: str) -> int | None:
    """Return a time as ms: ISO 8601, or a number of this unit since the epoch; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        time = parse_iso(value) if isinstance(value, str) else round(value * _MS_PER_UNIT[unit])
    except (ValueError, TypeError, OverflowError):
        return None
    return time if EARLIEST <= time <= LATEST else None


_Checked = tuple[FeatureValue, tuple[Reason, str] | None]


def _hider(settings: Settings, pseudonyms: Pseudonyms | None) -> Callable[[str], str]:
    """Return what is done with every id."""
    if settings.privacy.id is None:
        return lambda identifier: identifier
    return _given(pseudonyms).of_id


def _given(pseudonyms: Pseudonyms | None) -> Pseudonyms:
    if pseudonyms is None:
        raise SettingsError("pii: hash needs a secret key; see core.pseudonyms.load_pseudonyms")
    return pseudonyms


def _field_check(name: str, field: FieldSettings, pseudonyms: Pseudonyms | None) -> Callable[[Any], _Checked]:
    check = _plain_check(field)
    if field.pii is None:
        return check
    hashes = _given(pseudonyms)

    def hashed(value: Any) -> _Checked:
        found, problem = check(value)
        if problem is not None:
            return None, (problem[0], "is personal and not shown")
        return None if found is None else hashes.of_field(name, str(found)), None

    return hashed


def _plain_check(field: FieldSettings) -> Callable[[Any], _Checked]:
    check = {"number": _number_check(field), "category": _category, "bool": _flag, "text": _text}[field.type]
    nullable = field.nullable

    def checked(value: Any) -> _Checked:
        if value is None:
            return (None, None) if nullable else (None, ("missing_field", "is required and is missing or null"))
        return check(value)

    return checked


def _number_check(field: FieldSettings) -> Callable[[Any], _Checked]:
    low = -MAX_MAGNITUDE if field.minimum is None else field.minimum
    high = MAX_MAGNITUDE if field.maximum is None else field.maximum

    def check(value: Any) -> _Checked:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return _no("number", value)
        if not low <= value <= high or abs(value) > MAX_MAGNITUDE:
            return None, ("out_of_bounds", f"{shorten(value)} is not between {low:g} and {high:g}")
        return float(value), None

    return check


def _category(value: Any) -> _Checked:
    if not isinstance(value, (str, int)):
        return _no("category", value)
    text = str(value)
    if len(text) > MAX_CATEGORY_LENGTH:
        return None, ("out_of_bounds", f"a category has at most {MAX_CATEGORY_LENGTH} characters")
    return text, None


def _flag(value: Any) -> _Checked:
    return (value, None) if isinstance(value, bool) else _no("bool", value)


def _text(value: Any) -> _Checked:
    return (value, None) if isinstance(value, str) else _no("text", value)


def _no(kind: Kind, value: Any) -> _Checked:
    return None, ("wrong_type", f"{shorten(value)} is no {kind}")
