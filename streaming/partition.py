"""One partition at work: what is decided, the machine, the journal, the tables and the snapshots, wired together.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import CheckpointError
from core.project import Project
from core.quarantine import Span
from core.store import TableStore
from streaming.champion import Champion
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.commits import Commits, Work
from streaming.decisions import BATCH, Decision, LiveOrder, ScriptedOrder
from streaming.erasure import Erasures, name_in
from streaming.intake import Intake
from streaming.journal import Erase, Follow, Ownership, digest_of
from streaming.key_check import KeyCheck
from streaming.machine import Machine
from streaming.messages import messages_of
from streaming.phases import Phases
from streaming.regaining import ModelOf, Regaining
from streaming.relearning import Unlearner
from streaming.shadow import Missing
from streaming.state import State
from streaming.table_writer import TableWriter
from streaming.transport import Publisher, RawRecord, TopicPartition

_SNAPSHOT_SHARE = 10
_SNAPSHOTS_KEPT = 2
_MAX_UNWRITTEN = 4  # times state.flush_rows: rows that may wait while the disk is full
_CAUGHT_UP_AFTER_S = 10.0


@dataclass(frozen=True)
class Place:
    """Which partition this is, and who works on it.

    Attributes
    ----------
    number, partitions : int
        The partition, and how many there are.
    cluster_id : str
        The broker's.
    at : Ownership
        This worker's name in the journal, and the how manieth owner it is.
    """

    number: int
    partitions: int
    cluster_id: str
    at: Ownership


class Partition:
    """Everything that belongs to one partition; first repeats the journal, then goes on by itself.

    Parameters
    ----------
    project : Project
        The project.
    place : Place
        Which partition.
    machine : Machine
        With the state to go on from.
    script : ScriptedOrder
        What the journal has after that state.
    journal : int
        Offset in the journal behind the state, and behind each entry that was repeated.
    publisher : Publisher
        Has taken the partition over.
    champion, shadow : callable
        Gives the model of a version, or None while it is not loaded.
    published : mapping of str to int
        Offsets up to which everything that follows was published; {} where the journal tells (exactly once).
    verify : bool
        Whether what is repeated must equal what was published: not so after learning anew from the tables.
    unlearner : Unlearner
        Takes windows out of what was learned.
    phases : Phases
        Told what is being done.
    lockstep : bool
        See `streaming.decisions.LiveOrder`.
    erasures : Erasures
        Which ids are to be erased.
    """

    def __init__(
        self,
        project: Project,
        place: Place,
        machine: Machine,
        script: ScriptedOrder,
        journal: int,
        publisher: Publisher,
        champion: ModelOf,
        shadow: ModelOf,
        unlearner: Unlearner,
        *,
        published: dict[str, int] | None,
        verify: bool,
        phases: Phases,
        lockstep: bool,
        erasures: Erasures,
    ) -> None:
        settings = project.settings
        self.number = place.number
        self.flushed_through = machine.state.clock
        self.idle = True
        self.has_committed = False
        self._settings = settings
        self._place = place
        self._machine = machine
        self._script: ScriptedOrder | None = script
        self._journal = journal
        self._unlearner = unlearner
        self._published = published
        self._verify = verify
        self._phases = phases
        self._lockstep = lockstep
        self._live = LiveOrder(settings, self.state.topic_clocks, lockstep=lockstep)
        self._writer = TableWriter(TableStore(project.tables), settings, place.number)
        self._work = Work(self.state.step)
        entries = TopicPartition(settings.journal_topic, place.number)
        self._commits = Commits(publisher, entries, place.at.owner, settings.state.commit_every / 1000, phases)
        self._erasures = erasures
        self._has_erased = False  # and older snapshots may still hold it
        self._needs_flush = False
        self._snapshot_at = self._flushed_at = self._taken_at = time.monotonic()
        self._snapshot_step = self.state.step
        self._busy_s = self._snapshot_cost_s = 0.0
        self._keys = KeyCheck(settings, place.number, place.partitions, machine.pseudonyms)
        self._intake = Intake([TopicPartition(topic, place.number) for topic in settings.input_topics])
        self._events_before = self.state.books.events.received
        self._journals_kept: deque[int] = deque(maxlen=_SNAPSHOTS_KEPT)
        self._regaining = Regaining(place.number, machine, champion, shadow)
        if published is not None:  # without fences: with a snapshot of this term no late one of an earlier term counts
            self._snapshot_step, self._snapshot_at = -1, 0.0
        if not script.entries_left:
            self._go_live()

    @property
    def state(self) -> State:
        """The machine's state."""
        return self._machine.state

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
        """Whether the journal has been repeated to its end, with the champion that served then."""
        return self._script is None and self._regaining.is_done

    @property
    def is_caught_up(self) -> bool:
        """Whether nothing has come for a while and everything that came is in the tables; in lockstep never."""
        waits = bool(self._work.actions or self._commits.is_under_way or self._writer.rows)
        silent = time.monotonic() - self._taken_at >= _CAUGHT_UP_AFTER_S
        return self.is_live and silent and not waits and not self._lockstep

    def positions(self) -> dict[TopicPartition, int]:
        """Return the next offset of each input topic, 0 where nothing was read."""
        return {
            TopicPartition(topic, self.number): self.state.positions.get(topic, 0)
            for topic in self._settings.input_topics
        }

    def push(self, record: RawRecord) -> None:
        """Take in a polled record."""
        (self._live if self._script is None else self._script).push(record)
        self._intake.add(record)

    def read_from(self) -> dict[TopicPartition, int]:
        """Return the offset of each input topic from which records have not been taken in."""
        return self._intake.read_from(self.positions())

    def excuse_silence(self) -> None:
        """See `streaming.ordering.Merger.excuse_silence`."""
        self._live.excuse_silence()

    def full(self) -> list[TopicPartition]:
        """Return the topics that should not be polled now, because the others lag behind."""
        return self._intake.full((self._live if self._script is None else self._script).backlog)

    def offer(self, champion: Champion | None, shadows: Mapping[str, Champion]) -> None:
        """Let `champion` serve, and these versions shadow: from the next record on, in lockstep from their time on."""
        if self.is_live:
            self._live.offer(champion, shadows, self.serving_champion, self.state.following)

    @property
    def ready_champion(self) -> int | None:
        """Version that serves, or that will as soon as its time comes."""
        return self._live.coming.model.version if self._live.coming else self.serving_champion

    @property
    def serving_champion(self) -> int | None:
        """Version that serves now."""
        return self._machine.models.champion_version

    def work(self) -> int:
        """Step through a batch of what is ready; return the number of records."""
        began = time.monotonic()
        unwritten = self._writer.rows >= _MAX_UNWRITTEN * self._settings.state.flush_rows
        if (unwritten and not self._work.actions) or not self._has_models():
            self.idle = True
            return 0
        with self._phases.enter("step"):
            taken = self._lead() if self._script is None else self._follow(self._script)
        self.idle = taken == 0
        if taken:
            self._taken_at = time.monotonic()
            self._busy_s += self._taken_at - began
        return taken

    @property
    def wants_commit(self) -> bool:
        """See `streaming.commits.Commits.is_due`; at once where time was said to have come."""
        return self._script is None and self._commits.is_due(self._work, at_once=self._needs_flush)

    def commit(self) -> None:
        """Begin to make durable what was stepped through, after the commit before.

        Raises
        ------
        FencedError, BrokerError
            See `settle`.
        """
        self.settle(wait=True)
        if self._work.actions:
            self._commits.begin(self._work, self._live.clocks, self.positions())
            self._work = Work(self.state.step)

    def settle(self, *, wait: bool = False) -> None:
        """Take note of a commit that has ended; its rows then wait for `flush`.

        Raises
        ------
        FencedError, BrokerError
            See `streaming.commits.Commits.settle`.
        """
        settled = self._commits.settle(wait=wait)
        if settled is not None:
            self._journal, outputs = settled
            self._writer.add(outputs)
            self.has_committed = True

    @property
    def wants_flush(self) -> bool:
        """Whether time was said to have come, or the rows that wait are many or old."""
        state = self._settings.state
        many = self._writer.rows >= state.flush_rows
        if not self.is_live:
            return many and not self._work.actions  # between two entries: all of these rows are committed
        old = self._writer.rows > 0 and time.monotonic() - self._flushed_at >= state.flush_every / 1000
        return self._needs_flush or old or many

    def flush(self) -> None:
        """Write the rows of all committed steps to the tables; commits first."""
        self.commit()
        self.settle(wait=True)
        with self._phases.enter("table flush"):
            self._writer.flush(self.state.step, self._erased())
        self.flushed_through = self.state.clock
        self._flushed_at = time.monotonic()
        self._needs_flush = False

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
        self.state.topic_clocks = self._live.clocks
        at = self._place.at
        checkpoints.save(
            self.number,
            Snapshot(self.state, self._place.cluster_id, journal=self._journal, term=at.term, owner=at.owner),
        )
        self._journals_kept.append(self._journal)
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
            See `settle`.
        StoreError, OSError
            If the tables cannot be read, or what waits not written.
        """
        self.flush()
        self._do(Decision(self._unlearner.plan(windows, self.state.unlearned)))
        self.snapshot(checkpoints)

    def wants_to_erase(self, asked: Collection[str]) -> bool:
        """Whether an id that was asked for may still be known here, or be in an older snapshot."""
        return self.is_live and (self._has_erased or not self.state.erased.keys() >= set(asked))

    def erase(self, asked: Collection[str], checkpoints: Checkpoints) -> None:
        """Forget what was asked for, keep the state, and remove older snapshots, which hold them still.

        Raises
        ------
        FencedError, BrokerError
            See `settle`.
        StoreError, OSError
            If tables or snapshots cannot be written.
        """
        self.flush()
        if requests := sorted({*asked} - self.state.erased.keys()):
            self._do(Decision(Erase(requests)))
        self.snapshot(checkpoints)
        checkpoints.forget_others(self.number, self.state.erased)
        self._has_erased = False

    def _erased(self) -> Callable[[str], bool] | None:
        """Return what tells whether an id is to be erased, and is not yet; None where none is."""
        names = {name_in(request) for request in self._erasures.asked() - self.state.erased.keys()}
        return (lambda event_id: self._erasures.name(event_id) in names) if names else None

    def finish(self, checkpoints: Checkpoints) -> None:
        """Make everything durable and let go, so that the next one has nothing to repeat."""
        try:
            if self.is_live:
                self.snapshot(checkpoints)
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go without writing anything."""
        self._commits.close()
        self.state.join.close()

    def describe(self) -> dict[str, Any]:
        """Return what the status file says of this partition."""
        state = self.state
        return {
            "phase": "running" if self.is_live else "recovering",
            "entries_to_repeat": self._script.entries_left if self._script else 0,
            "waits_for_champion": self._regaining.champion,
            "clock": state.clock,
            "first_event": state.first_event,
            "flushed_through": self.flushed_through,
            "caught_up": self.is_caught_up,
            "positions": state.positions,
            "step": state.step,
            "term": self._place.at.term,
            "books": state.books.as_dict(),
            "weights": {name: round(weight, 4) for name, weight in state.blend.weights.items()},
            "loss": {name: round(value, 5) for name, value in state.scores.means().items()},
            "scored": state.scores.rows,
            "champion": self.serving_champion,
            "foreign_key": self._keys.found,
            "champion_failures": self._machine.models.champion_failures,
            "shadows": state.following,
            "shadow_failures": self._machine.models.shadow_failures,
            "silenced": {expert.name: expert.silenced for expert in state.experts if expert.silenced},
            "unlearned": len(state.unlearned),
            "resets": {expert.name: expert.resets for expert in state.experts if expert.resets},
        }

    def _has_models(self) -> bool:
        """Return whether records may be taken: with the models that predicted when the state was kept."""
        for action in self._regaining.go_on(repeats=self._script is not None, lockstep=self._lockstep):
            self._do(Decision(action))
        return self._regaining.is_done

    def _lead(self) -> int:
        """Decide, do it, and remember it for the journal."""
        taken = 0
        for decision in self._live.decide():
            self._do(decision)
            self._needs_flush |= decision.said
            taken += len(decision.records)
        return taken

    def _do(self, decision: Decision) -> None:
        if decision.begins_entry and self._writer.rows:
            self._writer.flush(self.state.step, self._erased())
        self._has_erased |= isinstance(decision.action, Erase)
        outputs = decision.perform(self._machine, self._unlearner)
        self._intake.remove(decision.records)
        self._keys.look(decision.records, outputs)
        self._work.add(decision.action, outputs, messages_of(outputs, self._settings))

    def _follow(self, script: ScriptedOrder) -> int:
        """Repeat what the journal says: about a batch of it."""
        taken = 0
        while taken < BATCH and (decision := script.decide()) is not None:
            self._do(decision)
            taken += len(decision.records)
            if script.ends_entry() and (not self._end_entry(script) or self.wants_flush):
                break
        return taken

    def _end_entry(self, script: ScriptedOrder) -> bool:
        """Compare with what was published, publish what was not; return whether there is more to repeat."""
        offset, entry = script.entry
        if self._verify and digest_of(self._work.messages) != entry.digest:
            raise CheckpointError(
                f"partition {self.number}: working through steps {entry.step} to {self.state.step} again gives other "
                "predictions than were published; has the project's code changed, or a setting of how records are "
                "read, or does the code depend on time or chance? Start once with all as it was, or run: "
                "headrace rebuild-state"
            )
        positions = self.positions()
        if self._published is not None and any(at > self._published.get(p.topic, 0) for p, at in positions.items()):
            self._commits.publish_again(self._work, positions)
        self._writer.add(self._work.outputs)
        self._work = Work(self.state.step)
        self.state.topic_clocks = entry.clocks
        self._journal = offset + 1
        if script.next_entry(self.state.step):
            return True
        self._go_live()
        return False

    def _go_live(self) -> None:
        assert self._script is not None
        self._live = LiveOrder(self._settings, self.state.topic_clocks, lockstep=self._lockstep)
        for record in self._script.drain():
            self._live.push(record)
        self._script = None
        for role, model in self._machine.models.followed.items():
            if isinstance(model, Missing):
                self._do(Decision(Follow(role, None)))
