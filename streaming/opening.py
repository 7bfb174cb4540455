"""Taking a partition over: shut out the one before, load the newest snapshot, read what the journal has after it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import BrokerError, CheckpointError
from core.features import load_features
from core.models import BatchModel
from core.project import Project
from core.pseudonyms import Pseudonyms
from core.store import TableStore
from core.tables import CORRECTIONS, EVENTS, EXAMPLES, PREDICTIONS
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.course import Course, Place
from streaming.decisions import ScriptedOrder, check_step
from streaming.erasure import Erasures
from streaming.experts import build_experts
from streaming.journal import Ownership, Script, TakeOver, journal_record, read_script
from streaming.machine import Machine
from streaming.partition import Partition
from streaming.phases import Phases
from streaming.privacy_guard import guard
from streaming.regaining import PATIENCE_S
from streaming.relearning import Unlearner
from streaming.rows import Rows
from streaming.shadow import ShadowModels
from streaming.state import State
from streaming.table_writer import table_app
from streaming.transport import Broker, Consumer, Membership, Publisher, TopicPartition

_log = logging.getLogger("headrace.worker")


@dataclass(frozen=True)
class Opener:
    """Opens partitions of one project on one broker.

    Attributes
    ----------
    project : Project
        The project.
    broker : Broker
        Where its topics are.
    cluster_id : str
        The broker's.
    partitions : int
        How many partitions the topics have.
    checkpoints : Checkpoints
        The snapshots.
    membership : Membership
        Proves to the broker that this worker may commit.
    reader : Consumer
        For journals; assigned anew for each.
    champion : callable
        Gives the model of a version, or None while it is not loaded.
    phases : Phases
        Told what is being done.
    lockstep : bool
        See `streaming.decisions.LiveOrder`.
    erasures : Erasures
        Which ids are to be erased.
    """

    project: Project
    broker: Broker
    cluster_id: str
    partitions: int
    checkpoints: Checkpoints
    membership: Membership
    reader: Consumer
    champion: Callable[[int], BatchModel | None]
    phases: Phases
    lockstep: bool
    erasures: Erasures

    def open(self, number: int) -> Partition:
        """Take a partition over.

        Raises
        ------
        BrokerError
            If the broker does not answer, or does not keep a record that is still needed.
        CheckpointError
            If there are snapshots and none can be trusted, or they do not fit the journal, or hashes would not match.
        """
        pseudonyms = guard(self.project)  # before the worker that has the right key is shut out
        name = f"headrace-{self.project.settings.name}-{number}"
        exactly_once = self.broker.transactional and self.project.settings.state.guarantee == "exactly_once"
        publisher = self.broker.publisher(name, self.membership, self.phases, exactly_once=exactly_once)
        try:
            publisher.take_over()
            return self._opened(number, publisher, pseudonyms, exactly_once=exactly_once)
        except BaseException:
            publisher.close()
            raise

    def _opened(
        self, number: int, publisher: Publisher, pseudonyms: Pseudonyms | None, *, exactly_once: bool
    ) -> Partition:
        with self.phases.enter("open"):
            snapshot = self.checkpoints.load(number)
            self.erasures.look()
            if snapshot is not None and snapshot.state.erased:
                self.checkpoints.forget_others(number, snapshot.state.erased)
        script = self._script(number, snapshot, publisher)
        self._announce(number, snapshot, script)
        with self.phases.enter("open"):
            state = self._state(number, snapshot, script)
            state.join.attach(self.project.state / "spilled", self.project.settings.state.max_in_memory)
        if script.entries:
            check_step(script.entries[0][1], state.step)
        places = [TopicPartition(topic, number) for topic in self.project.settings.input_topics]
        self._begin_where_kept(state, places, repeats=bool(script.entries))
        published = None if exactly_once else {p.topic: at for p, at in self.reader.committed(places).items()}
        return self._partition(number, snapshot, script, state, publisher, pseudonyms, published)

    def _partition(
        self,
        number: int,
        snapshot: Snapshot | None,
        script: Script,
        state: State,
        publisher: Publisher,
        pseudonyms: Pseudonyms | None,
        published: dict[str, int] | None,
    ) -> Partition:
        """Wire a partition together; `published` is None where the broker has transactions."""
        shadow = ShadowModels(self.champion, PATIENCE_S)
        place = Place(number, self.partitions, self.cluster_id, script.at)
        rows = Rows(self.project, number, state, self.erasures, self.phases)
        unlearner = Unlearner(self.project, number, self.checkpoints, self.phases)
        settings = self.project.settings
        course = Course(
            settings,
            place,
            Machine(settings, load_features(self.project), state, pseudonyms, self.erasures.name),
            ScriptedOrder(settings.input_topics, script.entries, self.champion, shadow),
            snapshot.journal if snapshot and script.entries else script.next_offset,
            publisher,
            self.champion,
            shadow,
            unlearner,
            rows,
            published=published,
            verify=snapshot is None or not snapshot.rebuilt,
            phases=self.phases,
            lockstep=self.lockstep,
        )
        return Partition(settings, place, course, rows, unlearner, self.phases, exactly_once=published is None)

    def _script(self, number: int, snapshot: Snapshot | None, publisher: Publisher) -> Script:
        """Write into the journal that the partition is ours, and read it up to there."""
        place = TopicPartition(self.project.settings.journal_topic, number)
        owner = uuid.uuid4().hex[:12]
        publisher.commit(journal_record(TakeOver(owner), place), [], {})
        start, before = 0, Ownership()
        if snapshot is not None:
            same = snapshot.cluster_id == self.cluster_id
            start, before = (snapshot.journal if same else 0), Ownership(snapshot.owner, snapshot.term)
        timeout_s = self.project.settings.state.deadline / 1000
        return read_script(self.reader, place, start, before, owner, timeout_s)

    def _announce(self, number: int, snapshot: Snapshot | None, script: Script) -> None:
        if snapshot is None:
            _log.info("partition %d: starts afresh", number)
        elif snapshot.cluster_id != self.cluster_id:
            _log.warning("partition %d: this is another broker than the snapshot's; its topics are read from 0", number)
        else:
            _log.info("partition %d: goes on after step %d", number, snapshot.state.step)
        if script.entries:
            _log.info("partition %d: repeats %d entries of the journal first", number, len(script.entries))

    def _state(self, number: int, snapshot: Snapshot | None, script: Script) -> State:
        """Return the state to start from; on another broker than the snapshot's, offsets begin again."""
        experts = build_experts(self.project)
        tables, app = TableStore(self.project.tables), table_app(number)
        written = max(tables.last_sequence(name, app) or 0 for name in (PREDICTIONS, EXAMPLES, CORRECTIONS, EVENTS))
        if snapshot is None:
            if written and not script.entries:
                raise CheckpointError(
                    f"partition {number} has no snapshot in {self.project.checkpoints}, but its rows are in the tables "
                    f"up to step {written}; restore the snapshots, or, to start anew, move {self.project.state} away "
                    f"and delete the topic {self.project.settings.journal_topic}"
                )
            return State.fresh(self.project.settings, experts)
        state = snapshot.state
        for expert, fresh in zip(state.experts, experts, strict=True):
            expert.attach(fresh)
        if snapshot.cluster_id != self.cluster_id:
            # what that broker had beyond the snapshot is gone; the steps of its rows must not be given away again
            first = script.entries[0][1].step if script.entries else max(state.step, written)
            state.positions, state.topic_clocks, state.step = {}, {}, first
        return state

    def _begin_where_kept(self, state: State, places: list[TopicPartition], *, repeats: bool) -> None:
        """Begin where a topic begins; refuse to go on where records are gone that are to be read."""
        beginnings = self.reader.beginning(places)
        for place in places:
            kept, position = beginnings.get(place, 0), state.positions.get(place.topic)
            if position is None and not (repeats and kept):
                state.positions[place.topic] = kept
            elif (position or 0) < kept:
                raise BrokerError(
                    f"{place.topic}[{place.partition}]: the state goes on at offset {position or 0}, but the broker "
                    f"keeps records only from {kept} on; lengthen the topic's retention, and restore newer snapshots "
                    f"from a back-up, or start anew: move {self.project.state} away and delete the topic "
                    f"{self.project.settings.journal_topic}"
                )
