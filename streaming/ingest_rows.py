"""A row of the past becomes an event and its label, through the decoder that the stream goes through. Pure.

The row is written as the JSON that a producer would have sent and decoded by :class:`core.records.Decoder`: what the
stream refuses is refused here, for the same reason, and what is personal is hashed or dropped in the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from core.durations import EARLIEST, LATEST, format_time
from core.history_settings import HistorySettings
from core.pseudonyms import Pseudonyms
from core.records import BadRecord, Decoder, Event, Label, read_time
from core.setting_types import Kind
from core.settings import Settings
from streaming.recorded_file import nested

_NOTHING = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
MISSING_TEXTS = frozenset(["", *_NOTHING.split("|")])
"""Cells of a CSV file that hold nothing: those of a recorded file, which pandas reads."""

_BOOLS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_encoder = msgspec.json.Encoder()
Cell = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be used as it is: the file or database it is of, and nothing of its content."""

    detail: str


Row = Mapping[str, Any] | Refused
"""A row's cells by column."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row says.

    Attributes
    ----------
    event : Event or BadRecord
        A bad event takes its label with it.
    label : Label, BadRecord or None
        None where no outcome is known.
    """

    event: Event | BadRecord
    label: Label | BadRecord | None = None


def wanted_columns(settings: Settings, source: HistorySettings) -> list[str]:
    """Return the columns that are read: never one of which nothing is kept."""
    fields = [field.path or name for name, field in settings.kept_fields.items()]
    times = [source.label_time] if source.label_time else []
    return list(dict.fromkeys([settings.id, settings.time, *fields, settings.label.path, *times]))


class RowReader:
    """Reads the rows of one source.

    Parameters
    ----------
    settings : Settings
        The project file.
    source : HistorySettings
        The source.
    now : int
        Wall clock, ms: what lies further ahead than ``order.max_ahead`` is refused.
    texts : bool
        Whether cells are text, as of a CSV file, and mean what their column is declared as; times that are numbers
        are numbers then, too.
    pseudonyms : Pseudonyms, optional
        Needed where something is to be hashed.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> settings = parse_settings(
    ...     "{name: a, id: id, time: at, time_unit: s, fields: {x: number}, "
    ...     "label: {path: y, positive: 1, negative: 0}, history: {file: past.csv, label_delay: 1h}}"
    ... )
    >>> reader = RowReader(settings, settings.history["history"], now=10**12, texts=True)
    >>> reading = reader.read({"id": "e1", "at": 60, "x": "0.1", "y": "1"})
    >>> reading.event
    Event(id='e1', time=60000, fields={'x': 0.1}, unknown=False)
    >>> reading.label
    Label(id='e1', time=3660000, outcome=1)
    >>> reader.read({"id": "e2", "at": 60, "x": "a lot", "y": "1"}).event.reason
    'wrong_type'
    """

    def __init__(
        self,
        settings: Settings,
        source: HistorySettings,
        *,
        now: int,
        texts: bool,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self._settings, self._source, self._now = settings, source, now
        self._decoder = Decoder(settings, pseudonyms)
        self._latest = now + settings.order.max_ahead
        kinds = {field.path or name: field.type for name, field in settings.kept_fields.items()}
        of_text, of_value = (_text_cell, _value_cell) if texts else (None, _value_cell)
        self._cells: dict[str, Cell] = {settings.id: _identifier, settings.time: _time_text if texts else _plain}
        self._cells |= {path: (of_text or of_value)(kind) for path, kind in kinds.items()}
        self._outcome = _outcome_cell(settings, texts=texts)
        self._label_time = _time_text if texts else _plain

    def read(self, row: Row) -> Reading:
        """Return the event and the label of a row."""
        if isinstance(row, Refused):
            return Reading(BadRecord("event", "malformed", row.detail))
        value = _encoded({path: convert(cell(row, path)) for path, convert in self._cells.items()})
        if value is None:
            return Reading(BadRecord("event", "malformed", "a cell holds text that is not UTF-8, or no JSON value"))
        event = self._decoder.event(value, self._now)
        if isinstance(event, BadRecord):
            return Reading(event)
        outcome = self._outcome(cell(row, self._settings.label.path))
        return Reading(event, None if outcome is None else self._label(row, event, outcome))

    def _label(self, row: Mapping[str, Any], event: Event, outcome: Any) -> Label | BadRecord:
        settings, column = self._settings, self._source.label_time
        time: int | None = event.time + self._source.label_delay
        if column is not None:
            time = read_time(self._label_time(cell(row, column)), settings.time_unit)
        if time is None or not EARLIEST <= time <= LATEST:
            return BadRecord("label", "bad_time", f"{column or settings.time}: says no time of the label")
        if time > self._latest:
            return BadRecord("label", "time_ahead", "the label is known later than now by more than order.max_ahead")
        label = settings.label
        content = {label.id or settings.id: _identifier(cell(row, settings.id)), label.path: outcome}
        value = _encoded(content if label.time is None else {**content, label.time: format_time(time)})
        if value is None:
            return BadRecord("label", "bad_label", f"{label.path}: holds text that is not UTF-8, or no JSON value")
        return self._decoder.label(value, time)


def cell(row: Mapping[str, Any], path: str) -> Any:
    """Return what a row holds at a path: in the column ``a.b``, or at ``b`` in the column ``a``.

    Examples
    --------
    >>> cell({"a.b": 1}, "a.b"), cell({"a": {"b": 2}}, "a.b"), cell({}, "a.b")
    (1, 2, None)
    """
    if path in row or "." not in path:
        return row.get(path)
    found: Any = row
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def column_of(path: str, columns: Collection[str]) -> str | None:
    """Return the column that holds a path: of its name, or of its first part; None if there is none."""
    return next((name for name in (path, path.partition(".")[0]) if name in columns), None)


def numeric_times(cells: Iterable[str]) -> bool:
    """Tell whether the times of a CSV column are numbers: most of those that are there."""
    known = [text for text in cells if text not in MISSING_TEXTS]
    return 2 * sum(as_number(text) is not None for text in known) > len(known)


def _encoded(columns: Mapping[str, Any]) -> bytes | None:
    try:
        return _encoder.encode(nested(dict(columns)))
    except (TypeError, ValueError, OverflowError, RecursionError):  # ValueError: half a surrogate pair, among others
        return None


def _plain(value: Any) -> Any:  # noqa: PLR0911
    """Return what a database or a Parquet file holds as a JSON value; None where it holds nothing."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None if value.is_nan() else str(value)
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "surrogateescape")
    return value


def _identifier(value: Any) -> Any:
    """Return an id as text; a whole number that became a float for a gap in its column is that whole number."""
    plain = _plain(value)
    if plain is None or isinstance(plain, bool):
        return plain
    return str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)


def _value_cell(kind: Kind) -> Cell:
    def convert(value: Any) -> Any:
        plain = _plain(value)
        if plain is None:
            return None
        if kind == "number":
            is_whole = isinstance(plain, int) and not isinstance(plain, bool)
            return float(plain) if is_whole and abs(plain) < 2**1000 else plain
        if kind == "bool":
            return bool(plain) if plain in (0, 1) else plain
        if isinstance(plain, float) and plain.is_integer():
            plain = int(plain)
        return plain if isinstance(plain, (dict, list)) else str(plain)

    return convert


def _text_cell(kind: Kind) -> Cell:
    """Return what reads a cell of a CSV file; one of a column of times may be a number already."""
    other = _value_cell(kind)

    def convert(text: Any) -> Any:
        if not isinstance(text, str):
            return other(text)
        if text in MISSING_TEXTS:
            return None
        if kind == "number":
            number = as_number(text)
            return text if number is None else number
        return _BOOLS.get(text.strip().lower(), text) if kind == "bool" else text

    return convert


def _time_text(text: Any) -> Any:
    """Return the time of a CSV file: what its reader has told to be a number is one."""
    return None if text in MISSING_TEXTS else text


def _outcome_cell(settings: Settings, *, texts: bool) -> Cell:
    label = settings.label
    named = {value for value in (label.positive, label.negative) if isinstance(value, str)}
    if settings.task == "multiclass":
        return (_text_cell if texts else _value_cell)("category")
    if settings.task == "regression" or not texts:
        return _text_cell("number") if texts else _plain

    def convert(text: Any) -> Any:
        if text in named or not isinstance(text, str):
            return text
        if text in MISSING_TEXTS:
            return None
        number = as_number(text)
        return number if number is not None else _BOOLS.get(text.strip().lower(), text)

    return convert


def as_number(text: str) -> float | None:
    """Return a finite number, None for other text: also for what only Python takes for a number (``1_000``)."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
