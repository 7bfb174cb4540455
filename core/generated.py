"""Features made from others by rule: parts of the event's time, and interactions. Pure; a function of one event.

=============  ========  ==================================
part           type      feature
=============  ========  ==================================
hour           category  ``event_hour``, 0 to 23
weekday        category  ``event_weekday``, mon to sun
day            number    ``event_day``, of the month
month          category  ``event_month``, 1 to 12
weekend        bool      ``event_weekend``
=============  ========  ==================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from core.predictions import MAX_MAGNITUDE, Features, FeatureValue
from core.setting_types import Kind

Part = Literal["hour", "weekday", "day", "month", "weekend"]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SATURDAY = 5
_PARTS: dict[str, tuple[Kind, Callable[[datetime], FeatureValue]]] = {
    "hour": ("category", lambda at: str(at.hour)),
    "weekday": ("category", lambda at: _DAYS[at.weekday()]),
    "day": ("number", lambda at: float(at.day)),
    "month": ("category", lambda at: str(at.month)),
    "weekend": ("bool", lambda at: at.weekday() >= _SATURDAY),
}


def calendar_kinds(parts: Sequence[str]) -> dict[str, Kind]:
    """Return the features that parts of the calendar make, and their types.

    Examples
    --------
    >>> calendar_kinds(["hour", "day"])
    {'event_hour': 'category', 'event_day': 'number'}
    """
    return {f"event_{part}": _PARTS[part][0] for part in parts}


def interaction_name(names: Sequence[str]) -> str:
    """Return the name of the interaction of some features."""
    return "_x_".join(names)


def interaction_kinds(interactions: Sequence[Sequence[str]], kinds: dict[str, Kind]) -> dict[str, Kind]:
    """Return the interactions and their types.

    Raises
    ------
    ValueError
        If one names an unknown feature or one twice, or mixes numbers and categories.

    Examples
    --------
    >>> interaction_kinds([["carrier", "night"]], {"carrier": "category", "night": "bool"})
    {'carrier_x_night': 'category'}
    """
    found: dict[str, Kind] = {}
    for names in interactions:
        if unknown := [name for name in names if name not in kinds]:
            raise ValueError(f"features.interactions names {unknown[0]!r}, which is no feature of the event")
        if len(set(names)) < len(names) or len(names) < 2:
            raise ValueError(f"features.interactions: {list(names)} needs two different features or more")
        types = {"category" if kinds[name] == "bool" else kinds[name] for name in names}
        if len(types) > 1 or "text" in types:
            raise ValueError(
                f"features.interactions: {list(names)} must be all numbers, or all categories and bools; "
                "turn one into the other in the feature function"
            )
        found[interaction_name(names)] = "number" if types == {"number"} else "category"
    return found


class Generator:
    """Adds calendar features and interactions to an event's features.

    Parameters
    ----------
    parts : sequence of str
        Parts of the calendar.
    zone : str
        Time zone in which they are read, of the IANA database.
    interactions : sequence of sequences of str
        Which features are combined: numbers are multiplied, categories joined; missing where one is missing.

    Examples
    --------
    >>> Generator(["hour", "weekend"], "Europe/Berlin", [["carrier", "event_hour"]])({"carrier": "AA"}, 0)
    {'carrier': 'AA', 'event_hour': '1', 'event_weekend': False, 'carrier_x_event_hour': 'AA|1'}
    """

    def __init__(self, parts: Sequence[str], zone: str, interactions: Sequence[Sequence[str]]) -> None:
        self._parts = [(f"event_{part}", _PARTS[part][1]) for part in parts]
        self._zone = ZoneInfo(zone)
        self._interactions = [(interaction_name(names), tuple(names)) for names in interactions]

    def __call__(self, features: Features, time: int) -> Features:
        """Return `features` and what is made of them; `time` is the event's, ms."""
        made = dict(features)
        if self._parts:
            at = datetime.fromtimestamp(time / 1000, self._zone)
            for name, part in self._parts:
                made[name] = part(at)
        for name, names in self._interactions:
            made[name] = _combined([made[one] for one in names])
        return made


def _combined(values: Sequence[FeatureValue]) -> FeatureValue:
    if any(value is None for value in values):
        return None
    if not isinstance(values[0], float):
        return "|".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    product = 1.0
    for value in values:
        product = min(max(product * float(value), -MAX_MAGNITUDE), MAX_MAGNITUDE)  # type: ignore[arg-type]
    return product
