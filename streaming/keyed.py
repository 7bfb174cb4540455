"""Features of a key's past, at the moment of a prediction: from events before it, and labels known by then.

Pure and bounded. An event is observed after it was predicted, a label when it is learned: nothing else is known here,
so nothing of the future can be. Sums fade with event time; what comes late counts as much less as it is older. Of each
key at most so many values are remembered; the one touched longest ago is forgotten first, and begins anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.predictions import Features, FeatureValue, Outcome
from core.settings import Settings

Keys = Mapping[str, str | None]
"""Values of the fields that are in a key, by name."""

_MS_PER_UNIT = 1000.0


class _Spec(NamedTuple):
    """One feature: see :class:`core.keyed_settings.PerKeySettings`."""

    name: str
    kind: str
    of: str | None
    back: int
    half_life: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class _Group:
    """The features that share a key."""

    key: tuple[str, ...]
    specs: tuple[_Spec, ...]


_Slots = list[list[Any]]
"""What is known of one key, a list for each feature of its group; an empty list: nothing yet."""


class KeyedFeatures:
    """What a partition knows of its keys.

    Parameters
    ----------
    groups : sequence of group
        The features, by key.
    max_keys : int
        Values of one key that are remembered.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> keyed = KeyedFeatures.of(parse_settings(
    ...     "{name: a, id: id, time: at, fields: {x: number, shop: category}, label: y, features: {per_key: "
    ...     "[{name: n, key: shop, kind: count}, {name: rate, key: shop, kind: label_mean}]}}"
    ... ))
    >>> keyed.features({"shop": "s1"}, 0)
    {'n': 0.0, 'rate': None}
    >>> keyed.observe_event({"shop": "s1"}, 0, {"x": 2.0, "shop": "s1"})
    >>> keyed.observe_label({"shop": "s1"}, 0, 1)
    >>> keyed.features({"shop": "s1"}, 5), keyed.features({"shop": "s2"}, 5)
    ({'n': 1.0, 'rate': 1.0}, {'n': 0.0, 'rate': None})
    """

    def __init__(self, groups: Sequence[_Group], max_keys: int) -> None:
        self.forgotten = 0
        self._groups = tuple(groups)
        self._max_keys = max_keys
        self._known: list[OrderedDict[Any, _Slots]] = [OrderedDict() for _ in groups]

    @classmethod
    def of(cls, settings: Settings) -> KeyedFeatures:
        """Build it from the project file; without features per key it does nothing."""
        made = settings.features
        by_key: dict[tuple[str, ...], list[_Spec]] = {}
        for one in made.per_key if made else ():
            outcome = None if one.outcome is None else str(one.outcome)
            spec = _Spec(one.name, one.kind, one.of, one.back, one.half_life, outcome)
            by_key.setdefault(tuple(sorted(one.key)), []).append(spec)
        return cls([_Group(key, tuple(specs)) for key, specs in by_key.items()], made.max_keys if made else 1)

    @property
    def keys(self) -> int:
        """Number of values of keys that are remembered."""
        return sum(map(len, self._known))

    def features(self, keys: Keys, time: int) -> Features:
        """Return the features of an event at `time`, ms, from what was observed before; nothing changes."""
        found: Features = {}
        for number, group in enumerate(self._groups):
            key = _value(group, keys)
            slots = None if key is None else self._get(number, key)
            for place, spec in enumerate(group.specs):
                found[spec.name] = None if key is None else _read(spec, slots[place] if slots else [], time)
        return found

    def observe_event(self, keys: Keys, time: int, features: Features) -> None:
        """Take notice of an event that was predicted with `features`, at event time `time`, ms."""
        for number, group in enumerate(self._groups):
            if (key := _value(group, keys)) is not None:
                for spec, slot in zip(group.specs, self._touch(number, key), strict=True):
                    _take_event(spec, slot, time, None if spec.of is None else features[spec.of])

    def observe_label(self, keys: Keys, time: int, outcome: Outcome) -> None:
        """Take notice of the outcome of an event of event time `time`, ms."""
        for number, group in enumerate(self._groups):
            if (key := _value(group, keys)) is not None:
                for spec, slot in zip(group.specs, self._touch(number, key), strict=True):
                    _take_label(spec, slot, time, outcome)

    def ahead(self) -> KeyedFeatures:
        """Return what may observe what is expected next, while this one stays as it is."""
        return _Ahead(self)

    def _get(self, number: int, key: Any) -> _Slots | None:
        return self._known[number].get(key)

    def _touch(self, number: int, key: Any) -> _Slots:
        known = self._known[number]
        slots = known.get(key)
        if slots is not None:
            known.move_to_end(key)
            return slots
        slots = known[key] = [[] for _ in self._groups[number].specs]
        if len(known) > self._max_keys:
            known.popitem(last=False)
            self.forgotten += 1
        return slots


class _Ahead(KeyedFeatures):
    """Copies what it changes."""

    def __init__(self, base: KeyedFeatures) -> None:
        super().__init__(base._groups, base._max_keys)
        self._base = base

    def _get(self, number: int, key: Any) -> _Slots | None:
        return self._known[number].get(key) or self._base._get(number, key)

    def _touch(self, number: int, key: Any) -> _Slots:
        known = self._known[number]
        if key not in known:
            slots = self._base._get(number, key) or [[] for _ in self._groups[number].specs]
            known[key] = [list(slot) for slot in slots]
        return known[key]


def _value(group: _Group, keys: Keys) -> Any:
    """Return the value of a group's key: text, or a tuple where it has several fields; None where one is missing."""
    if len(group.key) == 1:
        return keys.get(group.key[0])
    values = tuple(keys.get(name) for name in group.key)
    return None if None in values else values


def _read(spec: _Spec, slot: list[Any], time: int) -> FeatureValue:
    kind = spec.kind
    value: FeatureValue = None
    if kind in ("count", "label_count"):
        value = slot[0] * _kept(time - slot[2], spec.half_life) if slot else 0.0
    elif slot and kind == "time_since":
        value = max(0.0, (time - slot[0]) / _MS_PER_UNIT)
    elif slot and kind == "last":
        value = slot[-spec.back] if len(slot) >= spec.back else None
    elif slot:
        value = slot[0] if kind == "label_last" else slot[1] / slot[0]
    return value


def _take_event(spec: _Spec, slot: list[Any], time: int, value: FeatureValue) -> None:
    kind = spec.kind
    if kind == "count":
        _add(slot, time, 0.0, spec.half_life)
    elif kind == "time_since":
        slot[:] = [max(time, slot[0]) if slot else time]
    elif kind == "last":
        slot.append(value)
        del slot[: -spec.back]
    elif kind == "mean" and value is not None:
        _add(slot, time, float(value), spec.half_life)


def _take_label(spec: _Spec, slot: list[Any], time: int, outcome: Outcome) -> None:
    kind = spec.kind
    if kind == "label_count":
        _add(slot, time, 0.0, spec.half_life)
    elif kind == "label_last":
        slot[:] = [outcome if isinstance(outcome, str) else float(outcome)]
    elif kind == "label_mean":
        value = float(outcome) if spec.outcome is None else float(str(outcome) == spec.outcome)
        _add(slot, time, value, spec.half_life)


def _add(slot: list[Any], time: int, value: float, half_life: int | None) -> None:
    """Add to [weight, sum, time of the newest]; the newest weighs 1, so that the weight is never nothing."""
    if not slot:
        slot[:] = [1.0, value, time]
    elif time >= slot[2]:
        kept = _kept(time - slot[2], half_life)
        slot[:] = [slot[0] * kept + 1.0, slot[1] * kept + value, time]
    else:
        weight = _kept(slot[2] - time, half_life)
        slot[:] = [slot[0] + weight, slot[1] + weight * value, slot[2]]


def _kept(elapsed: int, half_life: int | None) -> float:
    """Return what is left of a weight of 1; nothing is gained by going back."""
    return 1.0 if half_life is None or elapsed <= 0 else 2.0 ** (-elapsed / half_life)
