"""The books: every record that comes in is counted exactly once, and the sums must balance.

::

    events.received  = predicted + dead_lettered + duplicates
    events.predicted = joined + implied + expired + pending
    labels.received  = joined + waiting + late + orphaned + duplicates + corrected + dead_lettered
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class EventBook:
    """Counters of events.

    Part of `predicted`: `canary` were served by the blend with a challenger. Parts of `expired`: `evicted` left early
    because the join was full, `erased` because their id was erased.
    """

    received: int = 0
    predicted: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    joined: int = 0
    implied: int = 0
    expired: int = 0
    pending: int = 0
    evicted: int = 0
    erased: int = 0
    unknown_fields: int = 0
    canary: int = 0


@dataclass
class LabelBook:
    """Counters of labels."""

    received: int = 0
    joined: int = 0
    waiting: int = 0
    late: int = 0
    orphaned: int = 0
    duplicates: int = 0
    corrected: int = 0
    dead_lettered: int = 0


@dataclass
class Books:
    """Both books, and the dead letters by reason."""

    events: EventBook = field(default_factory=EventBook)
    labels: LabelBook = field(default_factory=LabelBook)
    reasons: dict[str, int] = field(default_factory=dict)

    def imbalances(self) -> list[str]:
        """Return one line for every sum that does not hold; empty when the books balance."""
        e, ll = self.events, self.labels
        sums = {
            "events.received": (e.received, e.predicted + e.dead_lettered + e.duplicates),
            "events.predicted": (e.predicted, e.joined + e.implied + e.expired + e.pending),
            "labels.received": (
                ll.received,
                ll.joined + ll.waiting + ll.late + ll.orphaned + ll.duplicates + ll.corrected + ll.dead_lettered,
            ),
            "labels.joined": (ll.joined, e.joined),
            "dead letters by reason": (sum(self.reasons.values()), e.dead_lettered + ll.dead_lettered),
        }
        return [f"{name}: {left} is not {right}" for name, (left, right) in sums.items() if left != right]

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Books:
        """Read what `as_dict` wrote."""
        return cls(EventBook(**content["events"]), LabelBook(**content["labels"]), dict(content["reasons"]))


def total(books: Iterable[Books]) -> Books:
    """Add up the books of several partitions."""
    summed = Books()
    for book in books:
        for mine, other in ((summed.events, book.events), (summed.labels, book.labels)):
            for entry in fields(mine):
                setattr(mine, entry.name, getattr(mine, entry.name) + getattr(other, entry.name))
        for reason, count in book.reasons.items():
            summed.reasons[reason] = summed.reasons.get(reason, 0) + count
    return summed
