"""How an injection is written: ``KIND[:FIELD[:CHANGE]]@START[/DURATION[/every:PERIOD]]``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from core.durations import EARLIEST, LATEST, ROW, parse_duration, parse_iso
from core.errors import UsageError
from core.recorded import FIRST_ROW, ROW_TIME
from core.settings import Settings
from core.stream_settings import FieldSettings
from streaming.injected_changes import UNITS, Change, Converted, Moved, Permuted, Removed, Replaced

_OF_A_FIELD = ("shift", "gradual", "incremental", "unit", "missing")
_OF_RECORDS = ("flip", "outage", "outage:labels")
_RAMPS = ("gradual", "incremental")

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_AMOUNT = re.compile(rf"([+-]?{_NUMBER})\s*(sd)?")
_LINEAR = re.compile(rf"(-?{_NUMBER})x([+-]{_NUMBER})?")
_ROWS = re.compile(r"(\d+)\s*rows?")


@dataclass(frozen=True)
class When:
    """When an injection is at work, by event time.

    Attributes
    ----------
    start : int
        From this time on, ms.
    length : int or None
        For how long, ms; None to the end of the stream.
    every : int or None
        After this time it comes again, ms.
    ramp : bool
        Whether it comes little by little during `length`, and stays.
    """

    start: int
    length: int | None = None
    every: int | None = None
    ramp: bool = False

    def share(self, time: int) -> float:
        """Return how much of the injection is at work at `time`, ms: from 0, not at all, to 1.

        Examples
        --------
        >>> [When(10, 5, every=10).share(time) for time in (9, 10, 14, 15, 20)]
        [0.0, 1.0, 1.0, 0.0, 1.0]
        >>> [When(10, 4, ramp=True).share(time) for time in (9, 10, 11, 14, 99)]
        [0.0, 0.0, 0.25, 1.0, 1.0]
        """
        since = time - self.start
        if since < 0:
            return 0.0
        if self.length is None:
            return 1.0
        if self.ramp:
            return min(since / self.length, 1.0)
        return float((since % self.every if self.every else since) < self.length)


@dataclass(frozen=True)
class Injection:
    """An injection as it was asked for.

    Attributes
    ----------
    spec : str
        As it was written.
    kind : str
        shift, gradual, incremental, unit, missing, flip, outage or outage:labels.
    when : When
        When it is at work.
    field : str
        The field it changes, by its name in the project file; empty for flip and outage.
    change : callable or None
        Makes what changes that field's values.
    """

    spec: str
    kind: str
    when: When
    field: str = ""
    change: Callable[[], Change] | None = None


def parse_injection(text: str, settings: Settings) -> Injection:
    """Read an injection.

    Raises
    ------
    UsageError
        If it is none, or none that fits the project file.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> settings = parse_settings("{name: a, id: id, time: at, fields: {x: number}, label: y}")
    >>> found = parse_injection("shift:x:+2sd@2013-06-03/7d", settings)
    >>> found.kind, found.field, found.when.length
    ('shift', 'x', 604800000)
    """
    try:
        return _parsed(text, settings)
    except ValueError as error:
        raise UsageError(f"--inject {text}: {error}") from error


def _parsed(text: str, settings: Settings) -> Injection:
    what, at, when = (part.strip() for part in text.rpartition("@"))
    if not at:
        raise ValueError("names no start; write it behind an @, such as missing:FIELD@2013-06-03/7d")
    if what in _OF_RECORDS:
        return Injection(text, what, _when(when, what, settings))
    kind, _, rest = what.partition(":")
    if kind not in _OF_A_FIELD:
        raise ValueError(f"{what!r} is no kind of injection; there are {', '.join((*_OF_A_FIELD, *_OF_RECORDS))}")
    name, _, change = rest.partition(":")
    if name not in settings.fields:
        raise ValueError(f"{name!r} is no field of headrace.yaml; it has {', '.join(settings.fields)}")
    made = _change(kind, name, settings.fields[name], change)
    return Injection(text, kind, _when(when, kind, settings), name, made)


def _change(kind: str, name: str, field: FieldSettings, text: str) -> Callable[[], Change]:
    if kind == "missing":
        if text:
            raise ValueError(f"missing needs a field only; leave {text!r} out")
        return Removed
    if field.type == "text" or (field.type != "number" and kind in ("unit", "incremental")):
        raise ValueError(f"{name} is a {field.type} field, which {kind} cannot change")
    if kind == "unit":
        return _unit(text)
    return _amount(name, text) if field.type == "number" else _categories(name, field, text)


def _unit(text: str) -> Callable[[], Change]:
    if text in UNITS:
        return partial(Converted, *UNITS[text])
    found = _LINEAR.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no change of unit; write 1.8x+32, or one of {', '.join(UNITS)}")
    return partial(Converted, _finite(found[1]), _finite(found[2] or "0"))


def _amount(name: str, text: str) -> Callable[[], Change]:
    found = _AMOUNT.fullmatch(text)
    amount = _finite(found[1]) if found else 0.0
    if not found or not amount:
        raise ValueError(
            f"{text!r} does not shift {name}, a number; write +2sd (standard deviations) or an amount such as -5"
        )
    return partial(Moved, amount, deviations=found[2] is not None)


def _categories(name: str, field: FieldSettings, text: str) -> Callable[[], Change]:
    if text == "permute":
        return partial(Permuted, field.max_categories)
    old, equals, new = text.partition("=")
    if field.type == "category" and equals and old and new and old != new:
        return partial(Replaced, old, new)
    ways = "permute" if field.type == "bool" else "permute, or OLD=NEW to replace one value by another"
    raise ValueError(f"{text!r} does not shift {name}, a {field.type}; write {ways}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _when(text: str, kind: str, settings: Settings) -> When:
    start, *rest = (part.strip() for part in text.split("/"))
    durations = [_duration(part.removeprefix("every:"), settings) for part in rest]
    if len(rest) > 2 or any(part.startswith("every:") != bool(place) for place, part in enumerate(rest)):
        raise ValueError(f"{text!r} is no time; write START, START/DURATION or START/DURATION/every:PERIOD")
    length, every = (*durations, None, None)[:2]
    if length is None and kind in (*_RAMPS, "outage"):
        raise ValueError(f"{kind} needs to know how long it takes; write it behind the start, such as /7d")
    if every is not None and kind in _RAMPS:
        raise ValueError(f"{kind} comes once and stays; leave /{rest[1]} out")
    if every is not None and length is not None and every <= length:
        raise ValueError(f"{rest[1]} is not longer than {rest[0]}, so that it would never end in between")
    return When(_start(start, settings), length, every, ramp=kind in _RAMPS)


def _start(text: str, settings: Settings) -> int:
    """Return a time in ms; a row is one where there are no times."""
    rows = _ROWS.fullmatch(text)
    if settings.time == ROW_TIME:
        if not rows:
            raise ValueError(f"{text!r} is no row, and the recorded file has no times; write such as 20000rows")
        return FIRST_ROW + int(rows[1]) * ROW
    try:
        time = parse_iso(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time; write 2013-06-03 or 2013-06-03T12:00 (UTC)") from error
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"{text!r} is not between the years 1970 and 9999")
    return time


def _duration(text: str, settings: Settings) -> int:
    duration = parse_duration(text)
    if "row" in text.lower() and settings.time != ROW_TIME:
        raise ValueError(f"{text!r} counts rows, and the recorded stream has times; write a unit of time")
    if not duration:
        raise ValueError(f"{text!r} is no time at all")
    return duration
