"""A record on its way: decoded, with the features that are known of it so far; and a guess at those of its key.

Champion and shadows predict a batch of events at once, before the first of them is stepped through. What the features
of a key are is known only when it is an event's turn. So they are guessed: what will come of the batch's records is
gone through on a copy. The guess decides nothing: where it was wrong the models are asked again, about the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from core.durations import LATEST
from core.predictions import Features, Outcome
from core.quarantine import Span, is_inside
from core.records import BadRecord, Event, Label
from streaming.join import LabelJoin
from streaming.keyed import KeyedFeatures, Keys
from streaming.transport import RawRecord


@dataclass(frozen=True, slots=True)
class Prepared:
    """A record, decoded, with its features, the champion's prediction and, of an event, each shadow's.

    For a label that is of the event that it belongs to, if another champion, or none, had predicted that. `keys` are
    the values of an event's fields that are in a key, None where the project has no key.
    """

    record: RawRecord
    content: Event | Label | BadRecord
    features: Features | None = None
    champion: object = None
    shadows: Mapping[str, object] | None = None
    keys: dict[str, str | None] | None = None


def guessed(
    batch: Sequence[Prepared],
    keyed: KeyedFeatures,
    join: LabelJoin,
    clock: int,
    unlearned: Sequence[Span],
    implied: Outcome | None,
) -> list[Prepared]:
    """Return the batch with the features per key that its events will probably have.

    Parameters
    ----------
    keyed, join, clock, unlearned
        Of the partition's state, which does not change.
    implied : outcome or None
        What an event gets whose horizon passes.
    """
    return _Guess(keyed.ahead(), join, clock, unlearned, implied).through(batch)


class _Guess:
    """Goes through a batch as the machine will, as far as that can be known without predicting."""

    def __init__(
        self, ahead: KeyedFeatures, join: LabelJoin, clock: int, unlearned: Sequence[Span], implied: Outcome | None
    ) -> None:
        self._ahead = ahead
        self._join = join
        self._clock = clock
        self._unlearned = unlearned
        self._implied = implied
        self._waiting: dict[str, tuple[Keys, int]] = {}
        self._due: list[tuple[int, str]] = []
        self._early: dict[str, Label] = {}
        self._joined: set[str] = set()

    def through(self, batch: Sequence[Prepared]) -> list[Prepared]:
        stamps = [entry.record.timestamp for entry in batch if entry.record.timestamp <= LATEST]
        if self._implied is not None:
            for event in self._join.due(max([self._clock, *stamps])):
                if event.keys is not None:
                    self._let_wait(event.id, event.keys, event.time, event.clock)
        made = []
        for entry in batch:
            if entry.record.timestamp <= LATEST:
                self._clock = max(self._clock, entry.record.timestamp)
            self._expire()
            made.append(self._event(entry, entry.content) if isinstance(entry.content, Event) else entry)
            if isinstance(entry.content, Label):
                self._label(entry.content)
        return made

    def _let_wait(self, event_id: str, keys: Keys, time: int, clock: int) -> None:
        self._waiting[event_id] = (keys, time)
        heappush(self._due, (max(time, clock) + self._join.horizon, event_id))

    def _expire(self) -> None:
        while self._due and self._due[0][0] < self._clock:
            event_id = heappop(self._due)[1]
            if event_id not in self._joined:
                self._joined.add(event_id)
                if self._implied is not None:
                    self._learn(*self._waiting[event_id], self._implied)

    def _event(self, entry: Prepared, event: Event) -> Prepared:
        assert entry.keys is not None
        features = {**(entry.features or {}), **self._ahead.features(entry.keys, event.time)}
        if event.id not in self._waiting and not self._join.knows(event.id):
            self._let_wait(event.id, entry.keys, event.time, self._clock)
            if not is_inside(event.time, self._unlearned):
                self._ahead.observe_event(entry.keys, event.time, features)
            if (label := self._join.waiting_label(event.id) or self._early.get(event.id)) is not None:
                self._joined.add(event.id)
                self._learn(entry.keys, event.time, label.outcome)
        return replace(entry, features=features)

    def _label(self, label: Label) -> None:
        if label.id in self._joined:
            return
        known = self._waiting.get(label.id)
        if known is None and (event := self._join.pending_event(label.id)) is not None and event.keys is not None:
            known = event.keys, event.time
        if known is not None:
            self._joined.add(label.id)
            self._learn(*known, label.outcome)
        else:
            self._early.setdefault(label.id, label)

    def _learn(self, keys: Keys, time: int, outcome: Outcome) -> None:
        if not is_inside(time, self._unlearned):
            self._ahead.observe_label(keys, time, outcome)
