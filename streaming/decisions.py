"""What a partition does next: decided live by the merger and the champion, or repeated along the journal.

Both give the same `Decision` values to the same machine, so that a repetition is no second way of working.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from core.durations import LATEST
from core.errors import CheckpointError
from core.models import CHALLENGER, SHADOWS, BatchModel
from core.settings import Settings
from streaming.champion import Champion
from streaming.journal import Action, Batch, Entry, Erase, Follow, Swap, Tick, Unlearn, picks_of
from streaming.machine import Machine
from streaming.ordering import Merger, is_clock
from streaming.outputs import Output
from streaming.relearning import Unlearner
from streaming.transport import RawRecord

BATCH = 256
_UNMOVED = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """An action, with the records or the model that it is about; `said` tells that it is a word about time."""

    action: Action
    records: Sequence[RawRecord] = ()
    model: BatchModel | None = None
    said: bool = False

    @property
    def begins_entry(self) -> bool:
        """Whether all steps before must be committed, and their rows in the tables."""
        return isinstance(self.action, Unlearn | Erase)

    def perform(self, machine: Machine, unlearner: Unlearner) -> list[Output]:
        """Let the machine do it; return what follows."""
        if isinstance(self.action, Batch):
            return machine.process(self.records)
        if isinstance(self.action, Tick):
            return machine.tick(self.records[0], self.action.time)
        if isinstance(self.action, Unlearn):
            unlearner.unlearn(machine.state, self.action)
        elif isinstance(self.action, Erase):
            machine.erase(self.action.requests)
        elif isinstance(self.action, Follow):
            machine.follow(self.action.role, self.model, self.action.share)
        else:
            machine.swap(self.model)
        return []


class LiveOrder:
    """Decides: merges the topics, and lets a champion or a shadow in between two records.

    Parameters
    ----------
    settings : Settings
        The project file.
    lockstep : bool
        Whether order waits for ever for a silent topic, and champions and shadows for their event time.
    clocks : dict of str to int
        How far each topic has been given out, ms.
    """

    def __init__(self, settings: Settings, clocks: dict[str, int], *, lockstep: bool) -> None:
        self._topics = settings.input_topics
        self._ranks = {topic: rank for rank, topic in enumerate(self._topics)}
        self._lockstep = lockstep
        self._canary = settings.promotion.canary
        wait = None if lockstep else settings.order.max_wait / 1000
        self._merger = Merger(self._topics, wait, time.monotonic(), clocks)
        self._corrected: dict[tuple[str, int], int] = {}
        self.coming: Champion | None = None
        self._shadows_coming: dict[str, Champion | None] = {}
        self._behind_swap: dict[str, Champion | None] = {}

    @property
    def clocks(self) -> dict[str, int]:
        """How far each topic has been given out, ms."""
        return self._merger.clocks

    def offer(
        self,
        champion: Champion | None,
        shadows: Mapping[str, Champion],
        serving: int | None,
        following: Mapping[str, int],
        share: float = 0.0,
    ) -> None:
        """Take notice of who is to serve and to shadow; what is so already changes nothing.

        What follows from a change of the champion waits for it: the one that serves becomes a shadow, or one that comes
        stops being one.

        Parameters
        ----------
        serving : int or None
            The version that serves now.
        following : mapping of str to int
            The version that shadows now, by role.
        share : float
            Share of the events that the challenger among them serves now.
        """
        if champion is not None:
            self.coming = champion if champion.model.version != serving else None
        coming = None if self.coming is None else self.coming.model.version
        self._shadows_coming, self._behind_swap = {}, {}
        for role in SHADOWS:
            wanted, before = shadows.get(role), following.get(role)
            version = None if wanted is None else wanted.model.version
            if version == before and (wanted is None or self._share(role) == (share if role == CHALLENGER else 0.0)):
                continue
            serves = version is not None and version == serving
            if coming is not None and (serves or before == coming):
                self._behind_swap[role] = wanted
            elif not serves:
                self._shadows_coming[role] = wanted

    def push(self, record: RawRecord) -> None:
        """Take in a polled record; outside of lockstep a time stamp from the future counts as now."""
        now = round(time.time() * 1000)
        if not self._lockstep and now < record.timestamp <= LATEST:  # later ones are dead-lettered: no time at all
            self._corrected[record.topic, record.offset] = now
            record = replace(record, timestamp=now)
        self._merger.push(record, time.monotonic())

    def backlog(self, topic: str) -> int:
        """Return how many records of `topic` wait here."""
        return self._merger.backlog(topic)

    def excuse_silence(self) -> None:
        """See `streaming.ordering.Merger.excuse_silence`."""
        self._merger.excuse_silence(time.monotonic())

    def decide(self) -> list[Decision]:
        """Decide about at most `BATCH` records; a clock record is the last of its batch."""
        decided: list[Decision] = []
        batch: list[RawRecord] = []
        while len(batch) < BATCH and (record := self._merger.next(time.monotonic())) is not None:
            if is_clock(record):
                return [*decided, *self._batch(batch), self._tick(record)]
            if changes := self._changes(record.timestamp):
                decided += [*self._batch(batch), *changes]
                batch = []
            batch.append(record)
        return decided + self._batch(batch)

    def _batch(self, records: list[RawRecord]) -> list[Decision]:
        if not records:
            return []
        stamps = {}
        if self._corrected:
            for place, record in enumerate(records):
                if (read := self._corrected.pop((record.topic, record.offset), None)) is not None:
                    stamps[place] = read
        return [Decision(Batch(picks_of(self._ranks[record.topic] for record in records), stamps), records)]

    def _tick(self, record: RawRecord) -> Decision:
        self._corrected.pop((record.topic, record.offset), None)
        said = self._merger.has_reached(record.timestamp)
        moved_to = record.timestamp if said else _UNMOVED
        return Decision(Tick(self._ranks[record.topic], moved_to), [record], said=said)

    def _changes(self, time_ms: int) -> list[Decision]:
        """Return what is to change before a record of `time_ms`: the champion, then shadows."""
        if self.coming is None and not self._shadows_coming:
            return []
        changes = []
        if self.coming is not None and self._is_due(self.coming, time_ms):
            changes.append(Decision(Swap(self.coming.model.version), model=self.coming.model))
            self.coming = None
            changes += [self._follow(role, shadow) for role, shadow in self._behind_swap.items()]
            self._behind_swap = {}
        for role, shadow in list(self._shadows_coming.items()):
            if shadow is None or self._is_due(shadow, time_ms):
                changes.append(self._follow(role, shadow))
                del self._shadows_coming[role]
        return changes

    def _is_due(self, coming: Champion, time_ms: int) -> bool:
        return not self._lockstep or time_ms >= coming.effective_at

    def _follow(self, role: str, shadow: Champion | None) -> Decision:
        if shadow is None:
            return Decision(Follow(role, None))
        return Decision(Follow(role, shadow.model.version, self._share(role)), model=shadow.model)

    def _share(self, role: str) -> float:
        """Return the share of the events that a shadow is to serve."""
        return self._canary if role == CHALLENGER else 0.0


class ScriptedOrder:
    """Repeats what the journal says, as soon as its records and champions are there.

    Parameters
    ----------
    topics : sequence of str
        The input topics, by rank.
    entries : sequence of (int, Entry)
        The journal's entries after the snapshot, each with its offset.
    champion, shadow : callable
        Gives the model of a version, or None while it is not loaded.
    """

    def __init__(
        self,
        topics: Sequence[str],
        entries: Sequence[tuple[int, Entry]],
        champion: Callable[[int], BatchModel | None],
        shadow: Callable[[int], BatchModel | None],
    ) -> None:
        self._topics = list(topics)
        self._entries = deque(entries)
        self._actions: deque[Action] = deque(entries[0][1].actions) if entries else deque()
        self._champion = champion
        self._shadow = shadow
        self._queues: dict[str, deque[RawRecord]] = {topic: deque() for topic in topics}

    @property
    def entries_left(self) -> int:
        """Number of entries that are still to be repeated."""
        return len(self._entries)

    @property
    def entry(self) -> tuple[int, Entry]:
        """The entry that is being repeated, with its offset."""
        return self._entries[0]

    def push(self, record: RawRecord) -> None:
        """Take in a polled record."""
        self._queues[record.topic].append(record)

    def backlog(self, topic: str) -> int:
        """Return how many records of `topic` wait here."""
        return len(self._queues[topic])

    def drain(self) -> list[RawRecord]:
        """Take out everything that waits here, each topic's records in their order."""
        return [record for queue in self._queues.values() for record in queue]

    def decide(self) -> Decision | None:
        """Return the current entry's next action, or None while something it needs has not come."""
        action = self._actions[0]
        if isinstance(action, Swap | Follow):
            load = self._champion if isinstance(action, Swap) else self._shadow
            model = None if action.version is None else load(action.version)
            if action.version is not None and model is None:
                return None
            self._actions.popleft()
            return Decision(action, model=model)
        if isinstance(action, Unlearn | Erase):
            self._actions.popleft()
            return Decision(action)
        records = self._records(action)
        if records is None:
            return None
        self._actions.popleft()
        return Decision(action, records)

    def ends_entry(self) -> bool:
        """Tell whether all of the current entry has been repeated."""
        return not self._actions

    def next_entry(self, step: int) -> bool:
        """Go on to the next entry, which must begin at `step`; return False if there is none.

        Raises
        ------
        CheckpointError
            If the journal leaves something out.
        """
        self._entries.popleft()
        if not self._entries:
            return False
        check_step(self._entries[0][1], step)
        self._actions = deque(self._entries[0][1].actions)
        return True

    def _records(self, action: Batch | Tick) -> list[RawRecord] | None:
        ranks = list(action.topics()) if isinstance(action, Batch) else [action.rank]
        if any(len(self._queues[topic]) < ranks.count(rank) for rank, topic in enumerate(self._topics)):
            return None
        records = [self._queues[self._topics[rank]].popleft() for rank in ranks]
        if isinstance(action, Batch):
            for place, stamp in action.stamps.items():
                records[place] = replace(records[place], timestamp=stamp)
        return records


def check_step(entry: Entry, step: int) -> None:
    """Refuse an entry that does not begin where the state is.

    Raises
    ------
    CheckpointError
        If it begins elsewhere.
    """
    if entry.step != step:
        raise CheckpointError(
            f"the journal goes on at step {entry.step}, the state is at step {step}: snapshot and journal are not of "
            "the same history; restore the newest snapshots from a back-up"
        )
