"""Step 4: predictions wait for their label; labels come late, out of order, twice, first or never.

Pure and bounded: time is the partition's clock, given by the caller. An event waits until its horizon
has passed; after that, and after its label, its id is remembered for one more horizon, so that a late,
second or contradicting label and a repeated event are told apart from unknown ones.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum

from core.predictions import Features, Outcome, Prediction
from core.records import Label


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
        The blend; None while no expert can predict yet.
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


class Fate(Enum):
    """What became of a label."""

    JOINED = "joined"
    WAITING = "waiting"
    LATE = "late"
    DUPLICATE = "duplicate"
    CORRECTED = "corrected"


@dataclass(slots=True)
class _Closed:
    """An event that does not wait any more; `outcome` None when no label came in time."""

    outcome: Outcome | None


@dataclass(slots=True)
class Expiry:
    """What passed its horizon: events without a label, and the number of labels without an event."""

    events: list[Predicted] = field(default_factory=list)
    evicted: int = 0
    orphans: int = 0


class LabelJoin:
    """Joins labels to the events they belong to.

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
        self._pending: dict[str, Predicted] = {}
        self._closed: dict[str, _Closed] = {}
        self._waiting: dict[str, tuple[int, Label]] = {}
        self._deadlines: list[tuple[int, str]] = []
        self._memories: list[tuple[int, str]] = []
        self._waits: list[tuple[int, str]] = []

    @property
    def pending(self) -> int:
        """Number of events that wait for their label."""
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """Number of labels that wait for their event."""
        return len(self._waiting)

    def knows(self, event_id: str) -> bool:
        """Tell whether an event of this id was taken in and is not forgotten yet."""
        return event_id in self._pending or event_id in self._closed

    def add_event(self, event: Predicted) -> Label | None:
        """Take in a predicted event; return its label if that came first, which joins it."""
        deadline = self._deadline(event)
        waited = self._waiting.pop(event.id, None)
        if waited is not None:
            self._close(event.id, waited[1].outcome, deadline)
            return waited[1]
        self._pending[event.id] = event
        heapq.heappush(self._deadlines, (deadline, event.id))
        return None

    def add_label(self, label: Label, clock: int) -> tuple[Fate, Predicted | None]:
        """Take in a label at `clock`, ms; return its fate, and the event when it joined one."""
        event = self._pending.pop(label.id, None)
        if event is not None:
            self._close(label.id, label.outcome, self._deadline(event))
            return Fate.JOINED, event
        closed = self._closed.get(label.id)
        if closed is not None:
            if closed.outcome is None:
                return Fate.LATE, None
            return (Fate.DUPLICATE if closed.outcome == label.outcome else Fate.CORRECTED), None
        earlier = self._waiting.get(label.id)
        if earlier is not None:
            return (Fate.DUPLICATE if earlier[1].outcome == label.outcome else Fate.CORRECTED), None
        self._waiting[label.id] = (clock + self.horizon, label)
        heapq.heappush(self._waits, (clock + self.horizon, label.id))
        return Fate.WAITING, None

    def advance(self, clock: int) -> Expiry:
        """Let everything go whose horizon ended before `clock`, ms, or that is too much to keep."""
        expiry = Expiry()
        self._expire_events(clock, expiry)
        self._expire_labels(clock, expiry)
        while self._memories and (self._memories[0][0] < clock or len(self._closed) > 2 * self._max_pending):
            del self._closed[heapq.heappop(self._memories)[1]]
        return expiry

    def _expire_events(self, clock: int, expiry: Expiry) -> None:
        while self._deadlines and (self._deadlines[0][0] < clock or len(self._pending) > self._max_pending):
            deadline, event_id = heapq.heappop(self._deadlines)
            event = self._pending.get(event_id)
            if event is None or self._deadline(event) != deadline:
                continue
            del self._pending[event_id]
            expiry.events.append(event)
            expiry.evicted += deadline >= clock
            self._close(event_id, None, deadline)
        if len(self._deadlines) > 2 * len(self._pending) + 1024:
            self._deadlines = [(self._deadline(event), event.id) for event in self._pending.values()]
            heapq.heapify(self._deadlines)

    def _expire_labels(self, clock: int, expiry: Expiry) -> None:
        while self._waits and (self._waits[0][0] < clock or len(self._waiting) > self._max_pending):
            deadline, event_id = heapq.heappop(self._waits)
            waited = self._waiting.get(event_id)
            if waited is not None and waited[0] == deadline:
                del self._waiting[event_id]
                expiry.orphans += 1
        if len(self._waits) > 2 * len(self._waiting) + 1024:
            self._waits = [(deadline, event_id) for event_id, (deadline, _) in self._waiting.items()]
            heapq.heapify(self._waits)

    def _deadline(self, event: Predicted) -> int:
        return max(event.time, event.clock) + self.horizon

    def _close(self, event_id: str, outcome: Outcome | None, deadline: int) -> None:
        self._closed[event_id] = _Closed(outcome)
        heapq.heappush(self._memories, (deadline + self.horizon, event_id))
