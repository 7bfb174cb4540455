"""A partition's course: what is decided, or repeated along the journal, stepped through and committed.

A commit is one transaction of journal entry, predictions, dead letters and offsets. What was committed goes on to the
tables' rows; what the journal has was committed already, and is compared with what was published then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import CheckpointError
from core.settings import Settings
from streaming.champion import Champion
from streaming.commits import Commits, Work
from streaming.decisions import BATCH, Decision, LiveOrder, ScriptedOrder
from streaming.intake import Intake
from streaming.journal import Follow, Ownership, digest_of
from streaming.key_check import KeyCheck
from streaming.machine import Machine
from streaming.messages import messages_of
from streaming.phases import Phases
from streaming.regaining import ModelOf, Regaining
from streaming.relearning import Unlearner
from streaming.rows import Rows
from streaming.shadow import Missing
from streaming.state import State
from streaming.transport import Publisher, RawRecord, TopicPartition


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


class Course:
    """Takes a partition from record to record; first repeats the journal, then goes on by itself.

    Parameters
    ----------
    settings : Settings
        The project file.
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
    unlearner : Unlearner
        Takes windows out of what was learned.
    rows : Rows
        Get what was committed.
    published : mapping of str to int
        Offsets up to which everything that follows was published; None where the journal tells (exactly once).
    verify : bool
        Whether what is repeated must equal what was published: not so after learning anew from the tables.
    phases : Phases
        Told what is being done.
    lockstep : bool
        See `streaming.decisions.LiveOrder`.

    Attributes
    ----------
    has_committed : bool
        Whether a commit has succeeded here.
    needs_flush : bool
        Whether time was said to have come since rows were written.
    """

    def __init__(
        self,
        settings: Settings,
        place: Place,
        machine: Machine,
        script: ScriptedOrder,
        journal: int,
        publisher: Publisher,
        champion: ModelOf,
        shadow: ModelOf,
        unlearner: Unlearner,
        rows: Rows,
        *,
        published: dict[str, int] | None,
        verify: bool,
        phases: Phases,
        lockstep: bool,
    ) -> None:
        self.machine = machine
        self.journal = journal
        self.lockstep = lockstep
        self.has_committed = False
        self.needs_flush = False
        self._settings = settings
        self._number = place.number
        self._script: ScriptedOrder | None = script
        self._unlearner = unlearner
        self._rows = rows
        self._published = published
        self._verify = verify
        self._live = LiveOrder(settings, self.state.topic_clocks, lockstep=lockstep)
        self._work = Work(self.state.step)
        entries = TopicPartition(settings.journal_topic, place.number)
        self._commits = Commits(publisher, entries, place.at.owner, settings.state.commit_every / 1000, phases)
        self._taken_at = time.monotonic()
        self._intake = Intake([TopicPartition(topic, place.number) for topic in settings.input_topics])
        self.keys = KeyCheck(settings, place.number, place.partitions, machine.pseudonyms)
        self.regaining = Regaining(place.number, machine, champion, shadow)
        if not script.entries_left:
            self._go_live()

    @property
    def state(self) -> State:
        """The machine's state."""
        return self.machine.state

    @property
    def is_live(self) -> bool:
        """Whether the journal has been repeated to its end, with the champion that served then."""
        return self._script is None and self.regaining.is_done

    @property
    def entries_left(self) -> int:
        """Number of journal entries that are still to be repeated."""
        return self._script.entries_left if self._script else 0

    @property
    def silent_s(self) -> float:
        """Time since a record was stepped through, s."""
        return time.monotonic() - self._taken_at

    @property
    def is_between_commits(self) -> bool:
        """Whether nothing was stepped through since the last commit."""
        return not self._work.actions

    @property
    def is_committing(self) -> bool:
        """Whether a commit is on its way."""
        return self._commits.is_under_way

    @property
    def clocks(self) -> dict[str, int]:
        """How far each topic has been given out, ms."""
        return self._live.clocks

    @property
    def ready_champion(self) -> int | None:
        """Version that serves, or that will as soon as its time comes."""
        return self._live.coming.model.version if self._live.coming else self.machine.models.champion_version

    def positions(self) -> dict[TopicPartition, int]:
        """Return the next offset of each input topic, 0 where nothing was read."""
        topics = self._settings.input_topics
        return {TopicPartition(topic, self._number): self.state.positions.get(topic, 0) for topic in topics}

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
            state, serving = self.state, self.machine.models.champion_version
            self._live.offer(champion, shadows, serving, state.following, state.canary.share)

    def has_models(self) -> bool:
        """Return whether records may be taken: with the models that predicted when the state was kept."""
        for action in self.regaining.go_on(repeats=self._script is not None, lockstep=self.lockstep):
            self.do(Decision(action))
        return self.regaining.is_done

    def advance(self) -> int:
        """Step through a batch of what is ready; return the number of records."""
        taken = self._lead() if self._script is None else self._follow(self._script)
        if taken:
            self._taken_at = time.monotonic()
        return taken

    def do(self, decision: Decision) -> None:
        """Do what was decided, and remember it for the journal."""
        if decision.begins_entry and self._rows.waiting:
            self._rows.write()
        outputs = decision.perform(self.machine, self._unlearner)
        self._intake.remove(decision.records)
        self.keys.look(decision.records, outputs)
        self._work.add(decision.action, outputs, messages_of(outputs, self._settings))

    @property
    def wants_commit(self) -> bool:
        """See `streaming.commits.Commits.is_due`; at once where time was said to have come."""
        return self._script is None and self._commits.is_due(self._work, at_once=self.needs_flush)

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
        """Take note of a commit that has ended; its rows then wait to be written.

        Raises
        ------
        FencedError, BrokerError
            See `streaming.commits.Commits.settle`.
        """
        settled = self._commits.settle(wait=wait)
        if settled is not None:
            self.journal, outputs = settled
            self._rows.add(outputs)
            self.has_committed = True

    @property
    def wants_flush(self) -> bool:
        """Whether time was said to have come, or the rows that wait are many or old."""
        if not self.is_live:
            return self._rows.are_many and self.is_between_commits  # between two entries: all of them are committed
        return self.needs_flush or self._rows.are_old or self._rows.are_many

    def close(self) -> None:
        """Let go of the broker."""
        self._commits.close()

    def _lead(self) -> int:
        """Decide, and do it."""
        taken = 0
        for decision in self._live.decide():
            self.do(decision)
            self.needs_flush |= decision.said
            taken += len(decision.records)
        return taken

    def _follow(self, script: ScriptedOrder) -> int:
        """Repeat what the journal says: about a batch of it."""
        taken = 0
        while taken < BATCH and (decision := script.decide()) is not None:
            self.do(decision)
            taken += len(decision.records)
            if script.ends_entry() and (not self._end_entry(script) or self.wants_flush):
                break
        return taken

    def _end_entry(self, script: ScriptedOrder) -> bool:
        """Compare with what was published, publish what was not; return whether there is more to repeat."""
        offset, entry = script.entry
        if self._verify and digest_of(self._work.messages) != entry.digest:
            raise CheckpointError(
                f"partition {self._number}: working through steps {entry.step} to {self.state.step} again gives other "
                "predictions than were published; has the project's code changed, or a setting of how records are "
                "read, or does the code depend on time or chance? Start once with all as it was, or run: "
                "headrace rebuild-state"
            )
        positions = self.positions()
        if self._published is not None and any(at > self._published.get(p.topic, 0) for p, at in positions.items()):
            self._commits.publish_again(self._work, positions)
        self._rows.add(self._work.outputs)
        self._work = Work(self.state.step)
        self.state.topic_clocks = entry.clocks
        self.journal = offset + 1
        if script.next_entry(self.state.step):
            return True
        self._go_live()
        return False

    def _go_live(self) -> None:
        assert self._script is not None
        self._live = LiveOrder(self._settings, self.state.topic_clocks, lockstep=self.lockstep)
        for record in self._script.drain():
            self._live.push(record)
        self._script = None
        for role, model in self.machine.models.followed.items():
            if isinstance(model, Missing):
                self.do(Decision(Follow(role, None)))
