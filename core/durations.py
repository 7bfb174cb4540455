"""Durations as people write them (``28d``, ``90m``), times as milliseconds since the epoch.

Every time inside headrace is an ``int``: milliseconds since 1970-01-01 UTC. Text appears only at
the edges, through the functions of this module.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
ROW = SECOND
"""What a row of a recorded file without times counts for."""

EARLIEST, LATEST = 0, 253_402_300_799_000
"""The first and the last time that is accepted, ms: 1970 to 9999."""

LONGEST = 36_500 * DAY
"""The longest duration of the project file, ms: several of them after any event are still before `LATEST`."""

_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK, "row": ROW}
_UNITS |= {"hour": HOUR, "day": DAY, "week": WEEK}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(row|hour|day|week)s?|(ms|s|m|h|d|w))(?![a-z])")


def parse_duration(text: object) -> int:
    """Turn ``"28d"``, ``"1h30m"``, ``"250ms"`` or ``"500 rows"`` into milliseconds.

    Raises
    ------
    ValueError
        If `text` is not such a duration.

    Examples
    --------
    >>> parse_duration("1h30m")
    5400000
    """
    value = str(text).strip().lower()
    parts = _PATTERN.findall(value)
    if not parts or "".join(_PATTERN.sub("", value).split()):
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as 28d, 6h, 90m, 15s")
    duration = sum(float(number) * _UNITS[word or unit] for number, word, unit in parts)
    if duration > LATEST:
        raise ValueError(f"{text!r} is longer than 8000 years")
    return round(duration)


def about(milliseconds: int) -> str:
    """Write a duration for reading: in its largest unit, to one place.

    Examples
    --------
    >>> about(2_382_300_000)
    '27.6d'
    """
    unit = next((unit for unit in ("d", "h", "m", "s") if milliseconds >= _UNITS[unit]), "ms")
    return f"{milliseconds / _UNITS[unit]:.1f}".removesuffix(".0") + unit


def format_duration(milliseconds: int) -> str:
    """Write milliseconds as the shortest exact duration.

    Examples
    --------
    >>> format_duration(5_400_000)
    '90m'
    """
    for unit in ("w", "d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNITS[unit] == 0 and not (unit == "w" and milliseconds != WEEK):
            return f"{milliseconds // _UNITS[unit]}{unit}"
    return f"{milliseconds}ms"


def format_time(milliseconds: int) -> str:
    """Write a time as ISO 8601 in UTC; milliseconds only where there are some.

    Examples
    --------
    >>> format_time(1_356_998_400_000)
    '2013-01-01T00:00:00Z'
    """
    seconds, fraction = divmod(milliseconds, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:03d}Z" if fraction else f"{text}Z"


def parse_iso(text: str) -> int:
    """Turn an ISO 8601 time into milliseconds since the epoch; without a zone it is UTC.

    Raises
    ------
    ValueError
        If `text` is not such a time.

    Examples
    --------
    >>> parse_iso("2013-01-01T00:00:00+01:00")
    1356994800000
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
