"""One partition at work: its merger, its machine, its tables and its snapshots, wired together.

Order of what makes it durable (the design's step 7): 1. tables, 2. producer, 3. snapshot, 4. offsets. A
crash between two of them repeats work and loses none: rows carry steps, and predictions their id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.durations import LATEST
from core.features import load_features
from core.project import Project
from core.store import TableStore
from streaming.champion import Champion
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.experts import build_experts
from streaming.join import Predicted
from streaming.machine import DeadLetter, Machine, Output, State
from streaming.messages import dead_letter_message, prediction_message
from streaming.ordering import Merger, is_clock
from streaming.table_writer import TableWriter
from streaming.topics import foreign_key
from streaming.transport import Producer, RawRecord, TopicPartition

BATCH = 256
_MAX_BACKLOG = 20_000
_CHECKED_KEYS = 1_000
_log = logging.getLogger("headrace.worker")


class Partition:
    """Everything that belongs to one partition.

    Parameters
    ----------
    project : Project
        The project.
    number : int
        The partition.
    snapshot : Snapshot or None
        The state to go on from; None starts afresh.
    cluster_id : str
        The broker's.
    partitions : int
        How many there are.
    lockstep : bool
        Whether order waits for ever for a silent topic, and champions for their event time.
    """

    def __init__(
        self,
        project: Project,
        number: int,
        snapshot: Snapshot | None,
        *,
        cluster_id: str,
        partitions: int,
        lockstep: bool,
    ) -> None:
        settings = project.settings
        self.number = number
        self.flushed_through = 0
        self._settings = settings
        self._lockstep = lockstep
        self._cluster_id = cluster_id
        self._machine = Machine(settings, load_features(project), _state(project, snapshot, cluster_id))
        self._writer = TableWriter(TableStore(project.tables), settings, number)
        wait = None if lockstep else settings.order.max_wait / 1000
        self._merger = Merger(settings.input_topics, wait, time.monotonic(), self.state.topic_clocks)
        self._next_champion: Champion | None = None
        self._served: int | None = None
        self._idle = True
        self._needs_flush = False
        self._partitions = partitions
        self._unchecked = _CHECKED_KEYS
        self._foreign_key: str | None = None

    @property
    def state(self) -> State:
        """The machine's state."""
        return self._machine.state

    def positions(self) -> dict[TopicPartition, int]:
        """Return the next offset of each input topic, 0 where nothing was read."""
        return {
            TopicPartition(topic, self.number): self.state.positions.get(topic, 0)
            for topic in self._settings.input_topics
        }

    def push(self, record: RawRecord) -> None:
        """Take in a polled record; outside of lockstep a time stamp from the future counts as now."""
        now = round(time.time() * 1000)
        if not self._lockstep and now < record.timestamp <= LATEST:  # later ones are dead-lettered: no time at all
            record = replace(record, timestamp=now)
        self._merger.push(record, time.monotonic())

    def excuse_silence(self) -> None:
        """See `streaming.ordering.Merger.excuse_silence`."""
        self._merger.excuse_silence(time.monotonic())

    def full(self) -> list[TopicPartition]:
        """Return the topics that should not be polled now, because the others lag behind."""
        return [
            TopicPartition(topic, self.number)
            for topic in self._settings.input_topics
            if self._merger.backlog(topic) > _MAX_BACKLOG
        ]

    def offer(self, champion: Champion) -> None:
        """Let `champion` serve: from the next record on, in lockstep from its event time on."""
        if champion.model.version != self._served:
            self._next_champion = champion

    @property
    def ready_champion(self) -> int | None:
        """Version that serves, or that will as soon as its time comes."""
        return self._next_champion.model.version if self._next_champion else self._served

    @property
    def serving_champion(self) -> int | None:
        """Version that serves now."""
        return self._served

    @property
    def idle(self) -> bool:
        """Whether the last `work` found nothing to do."""
        return self._idle

    def resume(self, champion: Champion) -> None:
        """Go on with the champion that served when the snapshot was made."""
        self._next_champion = champion
        self._swap()

    def work(self, producer: Producer) -> int:
        """Step through a batch of what is ready, publish what follows; return the number of records."""
        outputs: list[Output] = []
        taken = self._take()
        batch: list[RawRecord] = []
        for record in taken:
            if is_clock(record):
                outputs += self._machine.process(batch) + self._tick(record)
                batch = []
            else:
                if self._is_due(record.timestamp):
                    outputs += self._machine.process(batch)
                    batch = []
                    self._swap()
                batch.append(record)
        outputs += self._machine.process(batch)
        if self._unchecked > 0:
            self._notice_foreign_key(taken, outputs)
        self._publish(outputs, producer)
        self._idle = not taken
        return len(taken)

    def _take(self) -> list[RawRecord]:
        """Take what is ready out of the merger; a clock record is the last of its batch."""
        taken: list[RawRecord] = []
        while len(taken) < BATCH and (record := self._merger.next(time.monotonic())) is not None:
            taken.append(record)
            if is_clock(record):
                break
        return taken

    def flush(self, producer: Producer) -> None:
        """Make outputs durable: tables, then the producer."""
        self._writer.flush(self.state.step)
        producer.flush()
        self.flushed_through = self.state.clock
        self._needs_flush = False

    def snapshot(self, checkpoints: Checkpoints) -> None:
        """Make the state durable; to be called after `flush`."""
        self.state.topic_clocks = self._merger.clocks
        checkpoints.save(self.number, Snapshot(self.state, self._cluster_id))

    @property
    def wants_flush(self) -> bool:
        """Whether a clock record came, or the rows that wait are many."""
        return self._needs_flush or self._writer.rows >= self._settings.state.flush_rows

    def describe(self) -> dict[str, Any]:
        """Return what the status file says of this partition."""
        state = self.state
        return {
            "clock": state.clock,
            "first_event": state.first_event,
            "flushed_through": self.flushed_through,
            "positions": state.positions,
            "step": state.step,
            "books": state.books.as_dict(),
            "weights": {name: round(weight, 4) for name, weight in state.blend.weights.items()},
            "loss": {name: round(value, 5) for name, value in state.scores.means().items()},
            "scored": state.scores.rows,
            "champion": self._served,
            "foreign_key": self._foreign_key,
            "champion_failures": self._machine.champion_failures,
            "silenced": {expert.name: expert.silenced for expert in state.experts if expert.silenced},
            "resets": {expert.name: expert.resets for expert in state.experts if expert.resets},
        }

    def _tick(self, record: RawRecord) -> list[Output]:
        if not self._merger.has_reached(record.timestamp):
            return self._machine.tick(record, self.state.clock)
        self._needs_flush = True
        return self._machine.tick(record, record.timestamp)

    def _is_due(self, time_ms: int) -> bool:
        coming = self._next_champion
        return coming is not None and (not self._lockstep or time_ms >= coming.effective_at)

    def _swap(self) -> None:
        assert self._next_champion is not None
        self._machine.swap(self._next_champion.model)
        self._served = self._next_champion.model.version
        self._next_champion = None

    def _notice_foreign_key(self, records: Sequence[RawRecord], outputs: Sequence[Output]) -> None:
        """Explain the first foreign key or partition among the first events; later ones are not looked at."""
        keys = {record.offset: record.key for record in records if record.topic == self._settings.events_topic}
        for output in outputs:
            if not isinstance(output, Predicted) or output.offset not in keys:
                continue
            self._unchecked -= 1
            self._foreign_key = foreign_key(keys[output.offset], output.id, self.number, self._partitions)
            if self._foreign_key is not None:
                _log.warning("%s", self._foreign_key)
                self._unchecked = 0
            if self._unchecked <= 0:
                return

    def _publish(self, outputs: list[Output], producer: Producer) -> None:
        self._writer.add(outputs)
        for output in outputs:
            if isinstance(output, Predicted):
                producer.send(prediction_message(output, self._settings.predictions_topic))
            elif isinstance(output, DeadLetter):
                producer.send(dead_letter_message(output, self._settings.dead_letters_topic))


def _state(project: Project, snapshot: Snapshot | None, cluster_id: str) -> State:
    """Return the state to start from; on another broker than the snapshot's, offsets begin again."""
    experts = build_experts(project)
    if snapshot is None:
        return State.fresh(project.settings, experts)
    state = snapshot.state
    for expert, fresh in zip(state.experts, experts, strict=True):
        expert.attach(fresh)
    if snapshot.cluster_id != cluster_id:
        state.positions, state.topic_clocks = {}, {}
    return state
