"""The streaming service: poll, step, publish, make durable, commit; for ever, until told to stop.

Starts within seconds: neither Prefect nor a champion nor MLflow has to be there.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable

from core.errors import BrokerError, CheckpointError, StoreError
from core.project import Project
from core.status import write_status
from core.store import TableStore
from core.tables import PREDICTIONS
from streaming.books import Books, total
from streaming.champion import ChampionWatcher
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.partition import Partition
from streaming.table_writer import table_app
from streaming.topics import ensure_topics
from streaming.transport import Broker, Consumer, Producer, TopicPartition

_log = logging.getLogger("headrace.worker")
_POLL_MS = 100
_POLL_RECORDS = 2_000
_STATUS_EVERY_S = 0.5
_RETRY_S = 5


class Worker:
    """Runs all partitions of a project.

    Parameters
    ----------
    project : Project
        The project.
    broker : Broker
        Where its topics are.
    watcher : ChampionWatcher or None
        Brings champions; None never has one.
    lockstep : bool
        See `streaming.partition.Partition`; only for replays.
    """

    def __init__(
        self, project: Project, broker: Broker, watcher: ChampionWatcher | None, *, lockstep: bool = False
    ) -> None:
        self._project = project
        self._settings = project.settings
        self._broker = broker
        self._watcher = watcher
        self._lockstep = lockstep
        self._checkpoints = Checkpoints(project)
        self._partitions: dict[int, Partition] = {}
        self._cluster_id = ""
        self._paused: set[TopicPartition] = set()
        self._records = 0
        self._events_before = 0
        self._busy_s = 0.0
        self._last_status = self._last_flush = self._last_snapshot = self._last_poll = time.monotonic()

    def run(self, stop: threading.Event, *, until: Callable[[Worker], bool] | None = None) -> Books:
        """Work until `stop` is set, or `until` says so; then make everything durable and return the books.

        Raises
        ------
        BrokerError, TopicError
            If the broker does not answer, or the topics do not fit together.
        CheckpointError
            If there are snapshots and none can be trusted.
        """
        consumer, producer = self._start()
        try:
            while not stop.is_set() and not (until is not None and until(self)):
                self._turn(consumer, producer)
            self._make_durable(consumer, producer)
            return self.books
        finally:
            self._say("stopped")
            if self._watcher is not None:
                self._watcher.stop()
            producer.close()
            consumer.close()

    @property
    def books(self) -> Books:
        """The books of all partitions."""
        return total(partition.state.books for partition in self._partitions.values())

    @property
    def records(self) -> int:
        """Number of records stepped through since the start."""
        return self._records

    @property
    def partitions(self) -> dict[int, Partition]:
        """The partitions at work, by number."""
        return self._partitions

    def _start(self) -> tuple[Consumer, Producer]:
        info, count = ensure_topics(self._broker, self._settings)
        self._cluster_id = info.cluster_id
        for number in range(count):
            snapshot = self._checkpoints.load(number)
            self._announce(number, snapshot)
            if snapshot is None:
                self._refuse_orphaned_rows(number)
            self._partitions[number] = Partition(
                self._project,
                number,
                snapshot,
                cluster_id=info.cluster_id,
                partitions=count,
                lockstep=self._lockstep,
            )
            self._partitions[number].flushed_through = snapshot.state.clock if snapshot else 0
            if snapshot is None:
                self._partitions[number].snapshot(self._checkpoints)
        consumer = self._broker.consumer(f"headrace-{self._settings.name}")
        producer = self._broker.producer()
        positions = {tp: at for partition in self._partitions.values() for tp, at in partition.positions().items()}
        self._refuse_lost_records(consumer, positions)
        consumer.assign(positions)
        self._events_before = self.books.events.received
        if self._watcher is not None:
            self._watcher.start()
            self._await_champion()
        self._say("running")
        return consumer, producer

    def _announce(self, number: int, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            _log.info("partition %d: starts afresh", number)
        elif snapshot.cluster_id != self._cluster_id:
            _log.warning("partition %d: this is another broker than the snapshot's; its topics are read from 0", number)
        else:
            _log.info("partition %d: goes on after step %d", number, snapshot.state.step)

    def _refuse_orphaned_rows(self, number: int) -> None:
        """Refuse to learn anew beside rows that a lost state has written: new rows would count as written."""
        app = table_app(number)
        if (last := TableStore(self._project.tables).last_sequence(PREDICTIONS, app)) is not None and last > 0:
            raise CheckpointError(
                f"partition {number} has no snapshot in {self._project.checkpoints}, but its rows are in the tables "
                f"up to step {last}; restore the snapshots, or move {self._project.state} away to start anew"
            )

    def _refuse_lost_records(self, consumer: Consumer, positions: dict[TopicPartition, int]) -> None:
        beginnings = consumer.beginning(positions)
        for partition, position in positions.items():
            kept = beginnings.get(partition, 0)
            if position < kept and position > 0:
                raise BrokerError(
                    f"{partition.topic}[{partition.partition}]: the state goes on at offset {position}, but the broker "
                    f"keeps records only from {kept} on; lengthen the topic's retention, or move the state folder away"
                )

    def _await_champion(self) -> None:
        """In lockstep, go on only with the champion that served before: the result must not depend on timing."""
        had = {p.state.champion_version for p in self._partitions.values()} - {None}
        if not (self._lockstep and had) or self._watcher is None:
            return
        self._watcher.wait_for_first_look(120.0)
        loaded = self._watcher.loaded
        for partition in self._partitions.values():
            if loaded is not None and partition.state.champion_version == loaded.model.version:
                partition.resume(loaded)

    def _turn(self, consumer: Consumer, producer: Producer) -> None:
        idle = all(partition.idle for partition in self._partitions.values())
        self._hold_back(consumer)
        own_work_s = time.monotonic() - self._last_poll
        records = consumer.poll(_POLL_MS if idle else 0, _POLL_RECORDS)
        began = self._last_poll = time.monotonic()
        if len(records) >= _POLL_RECORDS or own_work_s > self._settings.order.max_wait / 2000:
            for partition in self._partitions.values():
                partition.excuse_silence()
        for record in records:
            self._partitions[record.partition].push(record)
        self._offer_champion()
        taken = sum(partition.work(producer) for partition in self._partitions.values())
        self._records += taken
        if taken:
            self._busy_s += time.monotonic() - began
        self._settle(consumer, producer)

    def _hold_back(self, consumer: Consumer) -> None:
        """Do not poll topics that are far ahead of the others."""
        full = {tp for partition in self._partitions.values() for tp in partition.full()}
        if full != self._paused:
            consumer.pause(full)
            self._paused = full

    def _offer_champion(self) -> None:
        loaded = self._watcher.loaded if self._watcher else None
        if loaded is not None:
            for partition in self._partitions.values():
                partition.offer(loaded)

    def _settle(self, consumer: Consumer, producer: Producer) -> None:
        """Flush, snapshot and say how it goes, each in its own time; a full disk is waited out."""
        now, state = time.monotonic(), self._settings.state
        try:
            if now - self._last_snapshot >= state.snapshot_every / 1000:
                self._make_durable(consumer, producer)
            elif now - self._last_flush >= state.flush_every / 1000 or self._wants_flush():
                self._flush(producer)
                self._say("running")
            elif now - self._last_status >= _STATUS_EVERY_S:
                self._say("running")
        except (StoreError, OSError) as error:
            _log.error("state cannot be written; nothing is lost, tried again in %d s: %s", _RETRY_S, error)
            time.sleep(_RETRY_S)

    def _wants_flush(self) -> bool:
        return any(partition.wants_flush for partition in self._partitions.values())

    def _flush(self, producer: Producer) -> None:
        for partition in self._partitions.values():
            partition.flush(producer)
        self._last_flush = time.monotonic()

    def _make_durable(self, consumer: Consumer, producer: Producer) -> None:
        """1. tables, 2. producer, 3. snapshot, 4. offsets."""
        for partition in self._partitions.values():
            partition.flush(producer)
            partition.snapshot(self._checkpoints)
        consumer.commit({tp: at for p in self._partitions.values() for tp, at in p.positions().items()})
        self._last_flush = self._last_snapshot = time.monotonic()
        self._say("running")

    def _say(self, state: str) -> None:
        serving = {partition.serving_champion for partition in self._partitions.values()}
        ready = {partition.ready_champion for partition in self._partitions.values()}
        write_status(
            self._project.status,
            "worker",
            {
                "state": state,
                "lockstep": self._lockstep,
                "cluster_id": self._cluster_id,
                "champion": serving.pop() if len(serving) == 1 else None,
                "champion_ready": ready.pop() if len(ready) == 1 else None,
                "champion_problem": self._watcher.problem if self._watcher else None,
                "records": self._records,
                "events": self.books.events.received - self._events_before,
                "busy_s": round(self._busy_s, 3),
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "partitions": {str(number): part.describe() for number, part in self._partitions.items()},
            },
        )
        self._last_status = time.monotonic()
