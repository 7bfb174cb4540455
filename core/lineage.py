"""Where each feature comes from: which fields, by what, and who uses it. Pure; it follows from the project file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.durations import format_duration
from core.generated import interaction_name
from core.keyed_settings import PerKeySettings
from core.setting_types import Kind
from core.settings import Settings

GENERATED = ("calendar", "interaction", "key")
"""What makes features beside the fields and the project's own function."""


@dataclass(frozen=True)
class Origin:
    """Where a feature comes from.

    Attributes
    ----------
    name : str
        The feature.
    kind : str
        number, category, bool or text.
    made_by : str
        field, function, calendar, interaction or key.
    of : sequence of str
        The fields or features that it is made of; of a feature function all fields, as it may read any.
    how : str
        What is done with them, in words.
    used_by : str
        Which models see it: "batch and online", "online" or nobody ("none": text that no built-in model reads).
    """

    name: str
    kind: Kind
    made_by: str
    of: Sequence[str]
    how: str
    used_by: str


def lineage(settings: Settings) -> list[Origin]:
    """Return the origin of every feature, in their order.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> settings = parse_settings(
    ...     "{name: a, id: id, time: at, fields: {shop: category}, label: y, features: {calendar: [hour], per_key: "
    ...     "[{name: rate, key: shop, kind: label_mean, half_life: 7d}]}}"
    ... )
    >>> for one in lineage(settings):
    ...     print(one.name, one.made_by, *one.of, "|", one.how)
    shop field shop | as it is in the event
    event_hour calendar at | hour of the event's time in UTC
    rate key shop | mean of labels known by then, half-life 7d
    """
    made, kinds = settings.features, settings.feature_kinds
    found: dict[str, tuple[str, Sequence[str], str]] = {}
    for name in settings.base_kinds:
        if made is not None and made.function is not None:
            found[name] = "function", list(settings.kept_fields), made.function
        else:
            found[name] = "field", [settings.fields[name].path or name], "as it is in the event"
    if made is not None:
        for part in made.calendar:
            how = f"{part} of the event's time in {made.time_zone}"
            found[f"event_{part}"] = "calendar", [settings.time], how
        for names in made.interactions:
            name = interaction_name(names)
            found[name] = "interaction", names, "product" if kinds[name] == "number" else "joined"
        for one in made.per_key:
            found[one.name] = "key", [*one.key, *([one.of] if one.of else [])], _how(one)
    return [Origin(name, kinds[name], *rest, _used_by(name, settings)) for name, rest in found.items()]


_WORDS = {
    "count": "number of earlier events",
    "time_since": "seconds since the last event",
    "last": "value of {of}, {back} back",
    "mean": "mean of {of} in earlier events",
    "label_count": "number of labels known by then",
    "label_mean": "mean of labels known by then",
    "label_last": "last label known by then",
}


def _how(one: PerKeySettings) -> str:
    words = _WORDS[one.kind].format(of=one.of, back=one.back)
    words = f"share of {one.outcome} among labels known by then" if one.outcome is not None else words
    return words if one.half_life is None else f"{words}, half-life {format_duration(one.half_life)}"


def _used_by(name: str, settings: Settings) -> str:
    if name in settings.batch_kinds:
        return "batch and online"
    return "none" if settings.feature_kinds[name] == "text" else "online"
