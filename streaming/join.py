"""Step 4: predictions wait for their label; labels come late, out of order, twice, first or never.

Pure and bounded: time is the partition's clock, given by the caller. An event waits until its horizon
has passed; after that, and after its label, its id is remembered for one more horizon, so that a late,
second or contradicting label and a repeated event are told apart from unknown ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import msgspec

from core.models import CHALLENGER
from core.predictions import Features, Outcome, Prediction
from core.records import Label
from streaming.deadlines import Deadlines
from streaming.shadow import Shadowed

_PENDING, _CLOSED, _WAITING = range(3)


@dataclass(frozen=True, slots=True)
class Predicted:
    """An event as it was predicted: all that scoring, learning and training will ever need.

    Attributes
    ----------
    step : int
        The partition's step that predicted it.
    time, clock : int
        Event time, and the partition's clock at the prediction, ms.
    predictions : dict of str to prediction
        Each expert's; an expert that had none is left out.
    served : prediction or None
        The blend with the champion; None while no expert can predict yet.
    shadows : dict of str to Shadowed, or None
        What each shadow made of it, by role; None without any.
    keys : dict of str to str or None, or None
        Values of the fields that are in a key, by name; None where the project has no key.
    canary : int or None
        The challenger with which the event was served all the same; see :mod:`streaming.canary`.
    """

    step: int
    id: str
    time: int
    clock: int
    partition: int
    offset: int
    champion_version: int | None
    features: Features
    predictions: dict[str, Prediction]
    served: Prediction | None
    shadows: dict[str, Shadowed] | None = None
    keys: dict[str, str | None] | None = None
    canary: int | None = None

    @property
    def published(self) -> Prediction | None:
        """What was served: the blend with the champion, or the one with the canary."""
        if self.canary is None or self.shadows is None:
            return self.served
        return self.shadows[CHALLENGER].blended


class Fate(Enum):
    """What became of a label."""

    JOINED = "joined"
    WAITING = "waiting"
    LATE = "late"
    DUPLICATE = "duplicate"
    CORRECTED = "corrected"


@dataclass(slots=True)
class Expiry:
    """What passed its horizon: events without a label, and the number of labels without an event."""

    events: list[Predicted] = field(default_factory=list)
    evicted: int = 0
    orphans: int = 0


Known = Literal["pending", "closed", "label"]
"""What may be known of an id: its event waits, or does not any more, or its label waits."""
_KNOWN: tuple[Known, ...] = ("pending", "closed", "label")

_Value = Predicted | Label | Outcome | None
"""By queue: an event that waits; the outcome of one that does not any more, None without; a label that waits."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_event_parts = attrgetter(*(part.name for part in fields(Predicted)))
_SHADOWS = [part.name for part in fields(Predicted)].index("shadows")
_label_parts = attrgetter(*(part.name for part in fields(Label)))


class LabelJoin:
    """Joins labels to the events they belong to.

    What it holds is in memory, until `attach` gives it a folder for what is too much. Pickles hold all of it, and are
    equal for equal content, whatever was in memory.

    Parameters
    ----------
    horizon : int
        How long an event waits for its label, and a label for its event, ms.
    max_pending : int
        Events, and labels, that may wait; beyond it the oldest leave.
    """

    def __init__(self, horizon: int, max_pending: int) -> None:
        self.horizon = horizon
        self._max_pending = max_pending
        self._ids = Deadlines(3, _encode, _decode)

    def attach(self, folder: Path, max_in_memory: int) -> None:
        """Keep at most `max_in_memory` ids in memory and the others in `folder`, on disk.

        Raises
        ------
        StoreError
            Here and from every other method, when the disk is full or broken.
        """
        self._ids.attach(folder, max_in_memory)

    def close(self) -> None:
        """Give the disk space back; the join cannot be used any more."""
        self._ids.close()

    @property
    def pending(self) -> int:
        """Number of events that wait for their label."""
        return self._ids.count(_PENDING)

    @property
    def waiting(self) -> int:
        """Number of labels that wait for their event."""
        return self._ids.count(_WAITING)

    @property
    def in_memory(self) -> int:
        """Number of ids, whatever became of them, that are in memory."""
        return self._ids.in_memory

    @property
    def on_disk(self) -> int:
        """Number of ids that are on disk."""
        return self._ids.on_disk

    def knows(self, event_id: str) -> bool:
        """Tell whether an event of this id was taken in and is not forgotten yet."""
        return self._ids.queue_of(event_id) in (_PENDING, _CLOSED)

    def pending_event(self, event_id: str) -> Predicted | None:
        """Return the event of this id if it waits for its label."""
        known = self._ids.get(event_id)
        return known[2] if known is not None and isinstance(known[2], Predicted) else None

    def waiting_label(self, event_id: str) -> Label | None:
        """Return the label of this id if it waits for its event."""
        known = self._ids.get(event_id)
        return known[2] if known is not None and isinstance(known[2], Label) else None

    def due(self, clock: int) -> list[Predicted]:
        """Return the events that leave before `clock`, ms, by deadline, as far as they are in memory; none leaves."""
        return [value for value in self._ids.peek_due(_PENDING, clock) if isinstance(value, Predicted)]

    def ids(self) -> Iterator[str]:
        """Go through all ids that are known, in any order; nothing may change meanwhile."""
        return self._ids.ids()

    def forget(self, event_id: str) -> Known | None:
        """Forget an id; return what was known of it."""
        queue = self._ids.queue_of(event_id)
        self._ids.discard(event_id)
        return None if queue is None else _KNOWN[queue]

    def add_event(self, event: Predicted) -> Label | None:
        """Take in a predicted event that is not known; return its label if that came first, which joins it."""
        deadline = max(event.time, event.clock) + self.horizon
        known = self._ids.get(event.id)
        if known is not None and isinstance(label := known[2], Label):
            self._close(event.id, label.outcome, deadline)
            return label
        self._ids.put(_PENDING, deadline, event.id, event)
        return None

    def add_label(self, label: Label, clock: int) -> tuple[Fate, Predicted | None]:
        """Take in a label at `clock`, ms; return its fate, and the event when it joined one."""
        known = self._ids.get(label.id)
        if known is None:
            self._ids.put(_WAITING, clock + self.horizon, label.id, label)
            return Fate.WAITING, None
        _, deadline, value = known
        if isinstance(value, Predicted):
            self._close(label.id, label.outcome, deadline)
            return Fate.JOINED, value
        earlier = value.outcome if isinstance(value, Label) else value
        if earlier is None:
            return Fate.LATE, None
        return (Fate.DUPLICATE if earlier == label.outcome else Fate.CORRECTED), None

    def advance(self, clock: int) -> Expiry:
        """Let everything go whose horizon ended before `clock`, ms, or that is too much to keep."""
        expiry = Expiry()
        while (gone := self._ids.pop_due(_PENDING, clock, self._max_pending)) is not None:
            deadline, event_id, event = gone
            assert isinstance(event, Predicted)
            expiry.events.append(event)
            expiry.evicted += deadline >= clock
            self._close(event_id, None, deadline)
        while self._ids.pop_due(_WAITING, clock, self._max_pending) is not None:
            expiry.orphans += 1
        while self._ids.pop_due(_CLOSED, clock, 2 * self._max_pending) is not None:
            pass
        return expiry

    def _close(self, event_id: str, outcome: Outcome | None, deadline: int) -> None:
        self._ids.put(_CLOSED, deadline + self.horizon, event_id, outcome)

    def __getstate__(self) -> dict[str, Any]:
        return {"horizon": self.horizon, "max_pending": self._max_pending, "ids": list(self._ids.dump())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.horizon, self._max_pending = state["horizon"], state["max_pending"]
        self._ids = Deadlines(3, _encode, _decode)
        self._ids.restore(state["ids"])


def _encode(queue: int, value: _Value) -> bytes:
    """Encode without any schema: MessagePack keeps numbers, text, flags and nothing apart, and floats to the bit."""
    if isinstance(value, Predicted):
        return _encoder.encode(_event_parts(value))
    return _encoder.encode(_label_parts(value) if isinstance(value, Label) else value)


def _decode(queue: int, content: bytes) -> _Value:
    value = _decoder.decode(content)
    if queue == _CLOSED:
        return value  # type: ignore[no-any-return]
    if queue != _PENDING:
        return Label(*value)
    if value[_SHADOWS] is not None:
        value[_SHADOWS] = {role: Shadowed(*made) for role, made in value[_SHADOWS].items()}
    return Predicted(*value)
