"""Injected drift: a recorded stream changed on purpose, to see what a policy would do. Pure.

What lies in an injection is told by event time. The label of an event in it is that event's label whenever it comes,
so ids are remembered as long as the join remembers them. Records keep their order, ids and times.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from core.errors import UsageError
from core.outcomes import outcome_reader
from core.records import read_time
from core.settings import Settings
from streaming.injected_changes import GONE, Change, Mirrored, Permuted, Swapped
from streaming.injection_spec import Injection, parse_injection
from streaming.replay import Item, encode_payload

_decoder = msgspec.json.Decoder()


class Injector:
    """One injection in one pass over a stream.

    Attributes
    ----------
    spec : str
        The injection as it was written.
    events, labels : int
        How many it has changed, or taken away.
    """

    def __init__(self, injection: Injection, settings: Settings) -> None:
        self.spec = injection.spec
        self.events = self.labels = 0
        self._when = injection.when
        self._settings = settings
        self._span: tuple[int, int] | None = None

    def stream(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the stream, in time order, with the injection in it.

        Raises
        ------
        UsageError
            If what came before the injection does not tell what it needs, such as a standard deviation.
        """
        for _, group in groupby(items, key=itemgetter(0)):
            at_once = list(group)
            for item in at_once:  # events first: a label may stand before its event, at the same time
                if item[1] == "event":
                    self._note(item)
            try:
                changed = [self._event(item) if item[1] == "event" else self._label(item) for item in at_once]
            except ValueError as error:
                raise UsageError(f"--inject {self.spec}: {error}") from error
            yield from (item for item in changed if item is not None)

    @property
    def last_event(self) -> int | None:
        """Time of the latest event that came by, taken away or not, ms."""
        return None if self._span is None else self._span[1]

    def summary(self) -> dict[str, Any]:
        """Return the injection and what it has changed, as JSON values."""
        return {"spec": self.spec, "events": self.events, "labels": self.labels}

    def nothing_changed(self) -> str | None:
        """Return a message if the stream went by and nothing was changed."""
        if self.events or self.labels:
            return None
        came = "no events" if self._span is None else f"events from {self._said(0)} to {self._said(1)}"
        return f"--inject {self.spec}: changed nothing; the stream has {came}"

    def _said(self, end: int) -> str:
        assert self._span is not None
        time = self._span[end]
        return self._settings.clock.moment(time)

    def _note(self, item: Item) -> int:
        """Take notice of an event, before anything of its time is changed; return its time, ms."""
        time = _event_time(item, self._settings)
        first, last = self._span or (time, time)
        self._span = min(first, time), max(last, time)
        return time

    def _event(self, item: Item) -> Item | None:
        """Return what becomes of an event; None is nothing."""
        return item

    def _label(self, item: Item) -> Item | None:
        """Return what becomes of a label; None is nothing."""
        return item


class _FieldInjector(Injector):
    """Changes the values of a field."""

    def __init__(self, injection: Injection, settings: Settings) -> None:
        super().__init__(injection, settings)
        assert injection.change is not None
        self._change: Change = injection.change()
        self._path = (settings.fields[injection.field].path or injection.field).split(".")
        self._by_chance = injection.kind == "gradual"

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), **self._change.learned}

    def _event(self, item: Item) -> Item:
        content = _content(item)
        value = _read(content, self._path)
        if value is None:
            return item
        time = _event_time(item, self._settings)
        if time < self._when.start:
            self._change.learn(value)
        share = self._when.share(time)
        if self._by_chance:
            share = float(_chance(item[2]) < share)
        changed = self._change.apply(value, share) if share else value
        if changed is value or changed == value:
            return item
        self.events += 1
        return (*item[:3], _written(content, self._path, changed))


class _RecordInjector(Injector):
    """Knows whose labels belong to events in the injection."""

    def __init__(self, injection: Injection, settings: Settings) -> None:
        super().__init__(injection, settings)
        self._inside: OrderedDict[str, int] = OrderedDict()

    def _note(self, item: Item) -> int:
        time = super()._note(item)
        while self._inside and next(iter(self._inside.values())) < item[0]:
            self._inside.popitem(last=False)
        if self._when.share(time):
            self._inside[item[2]] = max(time, item[0]) + 2 * self._settings.label.horizon
        return time


class _Outage(_RecordInjector):
    """Takes events away, and with them their labels."""

    def _event(self, item: Item) -> Item | None:
        if not self._when.share(_event_time(item, self._settings)):
            return item
        self.events += 1
        return None

    def _label(self, item: Item) -> Item | None:
        if item[2] not in self._inside:
            return item
        self.labels += 1
        return None


class _LabelOutage(Injector):
    """Takes labels away that would have come in a span."""

    def _label(self, item: Item) -> Item | None:
        if not self._when.share(item[0]):
            return item
        self.labels += 1
        return None


class _Flip(_RecordInjector):
    """Turns the outcomes of events in the injection."""

    def __init__(self, injection: Injection, settings: Settings) -> None:
        super().__init__(injection, settings)
        self._path = settings.label.path.split(".")
        self._outcome = outcome_reader(settings)
        self._change = _other_outcome(settings)

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), **self._change.learned}

    def _label(self, item: Item) -> Item:
        content = _content(item)
        outcome = self._outcome(_read(content, self._path))
        if outcome is None:
            return item
        if item[0] < self._when.start:
            self._change.learn(outcome)
        if item[2] not in self._inside:
            return item
        self.labels += 1
        return (*item[:3], _written(content, self._path, self._change.apply(outcome, 1.0)))


def _other_outcome(settings: Settings) -> Change:
    label = settings.label
    if settings.task == "binary":
        return Swapped(label.positive, label.negative)
    if settings.task == "multiclass":
        return Permuted(label.max_classes, label.classes)
    return Mirrored(label.minimum, label.maximum)


_KINDS: Mapping[str, type[Injector]] = {"flip": _Flip, "outage": _Outage, "outage:labels": _LabelOutage}


def make_injectors(specs: Iterable[str], settings: Settings) -> list[Injector]:
    """Return what injects each of these, for one pass over a stream.

    Raises
    ------
    UsageError
        If one is no injection (:func:`streaming.injection_spec.parse_injection`).
    """
    injections = [parse_injection(spec, settings) for spec in specs]
    return [_KINDS.get(injection.kind, _FieldInjector)(injection, settings) for injection in injections]


def inject(items: Iterable[Item], injectors: Sequence[Injector]) -> Iterable[Item]:
    """Return a stream with all of them in it, each in what the one before it has left."""
    for injector in injectors:
        items = injector.stream(items)
    return items


def _content(item: Item) -> Any:
    """Return the payload as JSON values; None if it is no JSON."""
    payload = item[3]
    if isinstance(payload, dict):
        return payload
    try:
        return _decoder.decode(encode_payload(payload, item[2]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _event_time(item: Item, settings: Settings) -> int:
    """Return an event's time, ms; its record's if it has none."""
    time = read_time(_read(_content(item), settings.time.split(".")), settings.time_unit)
    return item[0] if time is None else time


def _read(content: Any, path: Sequence[str]) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _written(content: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy that has this value at `path`, or nothing for `GONE`."""
    name, *rest = path
    if rest:
        return {**content, name: _written(content[name], rest, value)}
    if value is GONE:
        return {key: its for key, its in content.items() if key != name}
    return {**content, name: value}


def _chance(identifier: str) -> float:
    """Return a number from 0 to 1 that is the event's own: all injections choose the same events first."""
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=8).digest()) / 2**64
