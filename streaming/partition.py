"""One partition at work: its course, the tables' rows and the snapshots, wired together.

What makes it durable, in this order:

1. *commit*: journal entry, predictions, dead letters and offsets, in one transaction;
2. *flush*: rows of committed steps to the tables;
3. *snapshot*: the state, and the journal's offset where it is to go on.

A crash between two of them repeats work and loses none: the journal says what was committed and in which
order, the tables know the last step they have.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from core.quarantine import Span
from core.settings import Settings
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.course import Course, Place
from streaming.decisions import Decision
from streaming.journal import Erase
from streaming.phases import Phases
from streaming.relearning import Unlearner
from streaming.rows import Rows
from streaming.state import State

_SNAPSHOT_SHARE = 10
_SNAPSHOTS_KEPT = 2
_CAUGHT_UP_AFTER_S = 10.0


class Partition:
    """Everything that belongs to one partition.

    Parameters
    ----------
    settings : Settings
        The project file.
    place : Place
        Which partition.
    course : Course
        What it does.
    rows : Rows
        What the course gives to the tables.
    unlearner : Unlearner
        Takes windows out of what was learned.
    phases : Phases
        Told what is being done.
    exactly_once : bool
        Whether the broker fences off who had the partition before.
    """

    def __init__(
        self,
        settings: Settings,
        place: Place,
        course: Course,
        rows: Rows,
        unlearner: Unlearner,
        phases: Phases,
        *,
        exactly_once: bool,
    ) -> None:
        self.number = place.number
        self.course = course
        self.idle = True
        self._settings = settings
        self._place = place
        self._rows = rows
        self._unlearner = unlearner
        self._phases = phases
        self._snapshot_at = time.monotonic()
        self._snapshot_step = self.state.step
        self._busy_s = self._snapshot_cost_s = 0.0
        self._events_before = self.state.books.events.received
        self._journals_kept: deque[int] = deque(maxlen=_SNAPSHOTS_KEPT)
        self._erased_in_all = {*self.state.erased}  # older snapshots may still hold what was erased since
        if not exactly_once:  # without fences: with a snapshot of this term no late one of an earlier term counts
            self._snapshot_step, self._snapshot_at = -1, 0.0

    @property
    def state(self) -> State:
        """The machine's state."""
        return self.course.state

    @property
    def events(self) -> int:
        """Number of events received here, repeated ones too."""
        return self.state.books.events.received - self._events_before

    @property
    def journal_needed(self) -> int:
        """Journal offset below which no kept snapshot needs an entry."""
        return self._journals_kept[0] if len(self._journals_kept) == _SNAPSHOTS_KEPT else 0

    @property
    def is_live(self) -> bool:
        """See `streaming.course.Course.is_live`."""
        return self.course.is_live

    @property
    def is_caught_up(self) -> bool:
        """Whether nothing has come for a while and everything that came is in the tables; in lockstep never."""
        course = self.course
        waits = bool(not course.is_between_commits or course.is_committing or self._rows.waiting)
        return self.is_live and course.silent_s >= _CAUGHT_UP_AFTER_S and not waits and not course.lockstep

    @property
    def serving_champion(self) -> int | None:
        """Version that serves now."""
        return self.course.machine.models.champion_version

    def work(self) -> int:
        """Step through a batch of what is ready; return the number of records."""
        began = time.monotonic()
        unwritten = self._rows.are_too_many and self.course.is_between_commits
        if unwritten or not self.course.has_models():
            self.idle = True
            return 0
        with self._phases.enter("step"):
            taken = self.course.advance()
        self.idle = taken == 0
        if taken:
            self._busy_s += time.monotonic() - began
        return taken

    @property
    def wants_flush(self) -> bool:
        """See `streaming.course.Course.wants_flush`."""
        return self.course.wants_flush

    def flush(self) -> None:
        """Write the rows of all committed steps to the tables; commits first."""
        self.course.commit()
        self.course.settle(wait=True)
        self._rows.flush()
        self.course.needs_flush = False

    @property
    def wants_snapshot(self) -> bool:
        """Whether a restart would have much to repeat; one snapshot costs a tenth of the time at most."""
        state = self._settings.state
        if not self.is_live or self.state.step == self._snapshot_step:
            return False
        much = max(state.recover_within / 1000, _SNAPSHOT_SHARE * self._snapshot_cost_s)
        return self._busy_s >= much or time.monotonic() - self._snapshot_at >= state.snapshot_every / 1000

    def snapshot(self, checkpoints: Checkpoints) -> None:
        """Keep the state; commits and flushes first."""
        began = time.monotonic()
        self.flush()
        self.state.topic_clocks = self.course.clocks
        at, journal = self._place.at, self.course.journal
        checkpoints.save(
            self.number,
            Snapshot(self.state, self._place.cluster_id, journal=journal, term=at.term, owner=at.owner),
        )
        self._journals_kept.append(journal)
        self._snapshot_step = self.state.step
        self._snapshot_at = time.monotonic()
        self._snapshot_cost_s = self._snapshot_at - began
        self._busy_s = 0.0

    def wants_to_unlearn(self, windows: Sequence[Span]) -> bool:
        """Whether some of these windows are still in what was learned here."""
        return self.is_live and not set(windows) <= set(self.state.unlearned)

    def unlearn(self, windows: Sequence[Span], checkpoints: Checkpoints) -> None:
        """Take windows out of what was learned, and keep the state: to repeat that would take long.

        Raises
        ------
        FencedError, BrokerError
            See `streaming.course.Course.settle`.
        StoreError, OSError
            If the tables cannot be read, or what waits not written.
        """
        self.flush()
        self.course.do(Decision(self._unlearner.plan(windows, self.state.unlearned)))
        self.snapshot(checkpoints)

    def wants_to_erase(self, asked: Collection[str]) -> bool:
        """Whether an id that was asked for may still be known here, or be in an older snapshot."""
        erased = self.state.erased.keys()
        return self.is_live and (erased != self._erased_in_all or not erased >= set(asked))

    def erase(self, asked: Collection[str], checkpoints: Checkpoints) -> None:
        """Forget what was asked for, keep the state, and remove older snapshots, which hold them still.

        Raises
        ------
        FencedError, BrokerError
            See `streaming.course.Course.settle`.
        StoreError, OSError
            If tables or snapshots cannot be written.
        """
        self.flush()
        if requests := sorted({*asked} - self.state.erased.keys()):
            self.course.do(Decision(Erase(requests)))
        self.snapshot(checkpoints)
        checkpoints.forget_others(self.number, self.state.erased)
        self._erased_in_all = {*self.state.erased}

    def finish(self, checkpoints: Checkpoints) -> None:
        """Make everything durable and let go, so that the next one has nothing to repeat."""
        try:
            if self.is_live:
                self.snapshot(checkpoints)
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go without writing anything."""
        self.course.close()
        self.state.join.close()

    def describe(self) -> dict[str, Any]:
        """Return what the status file says of this partition."""
        state, course = self.state, self.course
        models = course.machine.models
        return {
            "phase": "running" if self.is_live else "recovering",
            "entries_to_repeat": course.entries_left,
            "waits_for_champion": course.regaining.champion,
            "clock": state.clock,
            "first_event": state.first_event,
            "flushed_through": self._rows.flushed_through,
            "caught_up": self.is_caught_up,
            "positions": state.positions,
            "step": state.step,
            "term": self._place.at.term,
            "books": state.books.as_dict(),
            "weights": {name: round(weight, 4) for name, weight in state.blend.weights.items()},
            "loss": {name: round(value, 5) for name, value in state.scores.means().items()},
            "scored": state.scores.rows,
            "champion": self.serving_champion,
            "foreign_key": course.keys.found,
            "champion_failures": models.champion_failures,
            "shadows": state.following,
            "shadow_failures": models.shadow_failures,
            "canary": {**vars(state.canary)} if state.canary.version is not None else None,
            "silenced": {expert.name: expert.silenced for expert in state.experts if expert.silenced},
            "unlearned": len(state.unlearned),
            "resets": {expert.name: expert.resets for expert in state.experts if expert.resets},
        }
