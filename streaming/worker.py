"""The streaming service: poll, step, commit, make durable; for ever, until told to stop.

Several workers share the partitions of a project: each belongs to one of them at a time, with all of its state.
Starts within seconds: neither Prefect nor a champion nor MLflow has to be there.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from core.clocks import Clock
from core.errors import BrokerError, FencedError, StoreError, StuckError
from core.models import CHAMPION, BatchModel
from core.project import Project
from core.quarantine import Span
from core.status import write_status
from streaming.books import Books, total
from streaming.champion import ChampionWatcher
from streaming.checkpoint import Checkpoints
from streaming.erasure import Erasures
from streaming.opening import Opener
from streaming.partition import Partition
from streaming.phases import Phase, Phases, Watchdog
from streaming.relearning import ToUnlearn
from streaming.topics import ensure_topics
from streaming.transport import Broker, Consumer, Membership, TopicPartition

_log = logging.getLogger("headrace.worker")
_POLL_MS = 100
_POLL_RECORDS = 2_000
_STATUS_EVERY_S = 0.5
_RETRY_S = 5
_LAST_WORDS_S = 2.0
_TRIM_ENTRIES = 1_000
_UNLEARN_EVERY_S, _UNLEARN_EVERY_LOCKSTEP_S = 2.0, 0.05
_REOPEN_SHARE = (
    0.5  # of the session time-out: several heartbeats, so that a partition which is another's is lost by then
)


class Worker:
    """Runs a share of the partitions of a project: all of them, if it is the only worker.

    Parameters
    ----------
    project : Project
        The project.
    broker : Broker
        Where its topics are.
    watcher : ChampionWatcher or None
        Brings champions; None never has one.
    lockstep : bool
        See `streaming.decisions.LiveOrder`; only for replays.
    instance : str
        Tells workers apart that share a state folder.
    phases : Phases
        Told what is being done; watched by a watchdog.
    """

    def __init__(
        self,
        project: Project,
        broker: Broker,
        watcher: ChampionWatcher | None,
        *,
        lockstep: bool = False,
        instance: str = "",
        phases: Phases | None = None,
    ) -> None:
        self._project = project
        self._settings = project.settings
        self._broker = broker
        self._watcher = watcher
        self._lockstep = lockstep
        self._instance = instance
        self._phases = phases or Phases()
        self._checkpoints = Checkpoints(project, self._phases)
        self._to_unlearn = ToUnlearn(project.ledger, _UNLEARN_EVERY_LOCKSTEP_S if lockstep else _UNLEARN_EVERY_S)
        self._erasures = Erasures(project)
        self._watchdog = Watchdog(self._phases, self._settings.state.deadline / 1000, self._give_up)
        self._partitions: dict[int, Partition] = {}
        self._reopen_at: dict[int, float] = {}
        self._cluster_id = ""
        self._paused: set[TopicPartition] = set()
        self._reassign = False
        self._line_up: dict[str, int] = {}
        self._records = 0
        self._busy_s = 0.0
        self._last_status = self._last_poll = time.monotonic()
        self._retry_at = 0.0
        self._trimmed: dict[int, int] = {}
        self._has_unlearned = False  # in this turn: it takes long, and the group takes who does not poll for dead

    def run(self, stop: threading.Event, *, until: Callable[[Worker], bool] | None = None) -> Books:
        """Work until `stop` is set, or `until` says so; then make everything durable and return the books.

        Raises
        ------
        BrokerError, TopicError
            If the broker does not answer, or the topics do not fit together.
        CheckpointError
            If there are snapshots and none can be trusted, or they do not fit the journal.
        """
        info, count = ensure_topics(self._broker, self._settings)
        self._cluster_id = info.cluster_id
        group = f"headrace-{self._settings.name}"
        self._watchdog.start()
        membership = self._broker.membership(group, self._settings.events_topic, self._settings.state.session_timeout)
        consumer, reader = self._broker.consumer(group), self._broker.consumer(group)
        opener = self._opener(count, membership, reader)
        if self._watcher is not None:
            self._watcher.start()
        try:
            while not stop.is_set() and not (until is not None and until(self)):
                self._turn(opener, consumer)
            books = self.books
            for partition in self._partitions.values():
                partition.finish(self._checkpoints)
            return books
        finally:
            self._end(membership, consumer, reader)

    @property
    def books(self) -> Books:
        """The books of all partitions."""
        return total(partition.state.books for partition in self._partitions.values())

    @property
    def records(self) -> int:
        """Number of records stepped through since the start, repeated ones too."""
        return self._records

    @property
    def partitions(self) -> dict[int, Partition]:
        """The partitions at work, by number."""
        return self._partitions

    def _opener(self, count: int, membership: Membership, reader: Consumer) -> Opener:
        return Opener(
            self._project,
            self._broker,
            self._cluster_id,
            count,
            self._checkpoints,
            membership,
            reader,
            self._champion,
            self._phases,
            self._lockstep,
            self._erasures,
        )

    def _champion(self, version: int) -> BatchModel | None:
        return None if self._watcher is None else self._watcher.version(version)

    def _end(self, membership: Membership, consumer: Consumer, reader: Consumer) -> None:
        self._say("stopped")
        if self._watcher is not None:
            self._watcher.stop()
        for partition in self._partitions.values():
            partition.drop()
        for client in (membership, consumer, reader, self._to_unlearn):
            client.close()
        self._watchdog.stop()

    def _turn(self, opener: Opener, consumer: Consumer) -> None:
        self._rebalance(opener, consumer)
        self._hold_back(consumer)
        self._take_in(consumer)
        self._offer_champion()
        began = time.monotonic()
        taken = sum(partition.work() for partition in self._partitions.values())
        self._each(self._commit_if_wanted)
        self._records += taken
        if taken:
            self._busy_s += time.monotonic() - began
        self._settle()

    def _rebalance(self, opener: Opener, consumer: Consumer) -> None:
        """Open what this worker was given, let go of what it is to give up, drop what others have already."""
        with self._phases.enter("poll"):
            change = opener.membership.poll()
        for number in change.lost:
            self._drop(number, "is another worker's now")
            self._reopen_at.pop(number, None)
        for number in change.revoked:
            self._hand_over(number)
            opener.membership.release([number])
        due = {number for number, at in self._reopen_at.items() if time.monotonic() >= at}
        for number in (change.assigned | due) - self._partitions.keys():
            self._open(opener, number)
        if self._reassign:
            self._assign(consumer)

    def _open(self, opener: Opener, number: int) -> None:
        self._reopen_at.pop(number, None)
        try:
            self._partitions[number] = opener.open(number)
            self._reassign = True
        except FencedError as error:
            _log.warning("partition %d was taken over while it was opened (%s)", number, error)
            self._reopen_later(number)

    def _hand_over(self, number: int) -> None:
        self._reopen_at.pop(number, None)
        partition = self._partitions.pop(number, None)
        if partition is None:
            return
        self._reassign = True
        try:
            partition.finish(self._checkpoints)
        except (BrokerError, StoreError, OSError) as error:
            _log.warning("partition %d is given up as it is, the next worker repeats more: %s", number, error)

    def _drop(self, number: int, why: str) -> None:
        partition = self._partitions.pop(number, None)
        if partition is not None:
            _log.warning("partition %d %s; dropped", number, why)
            partition.drop()
            self._reassign = True

    def _assign(self, consumer: Consumer) -> None:
        """Read every partition's topics, each from behind what waits in this worker."""
        consumer.assign({tp: at for p in self._partitions.values() for tp, at in p.course.read_from().items()})
        self._paused, self._reassign = set(), False

    def _hold_back(self, consumer: Consumer) -> None:
        """Do not poll topics that are far ahead of the others."""
        full = {tp for partition in self._partitions.values() for tp in partition.course.full()}
        if full != self._paused:
            consumer.pause(full)
            self._paused = full

    def _take_in(self, consumer: Consumer) -> None:
        partitions = self._partitions
        idle = all(partition.idle for partition in partitions.values())
        own_work_s = time.monotonic() - self._last_poll
        with self._phases.enter("poll"):
            records = consumer.poll(_POLL_MS if idle else 0, _POLL_RECORDS)
        self._last_poll = time.monotonic()
        if len(records) >= _POLL_RECORDS or own_work_s > self._settings.order.max_wait / 2000:
            for partition in partitions.values():
                partition.course.excuse_silence()
        for record in records:
            partitions[record.partition].course.push(record)

    def _offer_champion(self) -> None:
        if self._watcher is None:
            return
        champion, shadows = self._watcher.line_up
        known = shadows if champion is None else {CHAMPION: champion, **shadows}
        self._line_up = {role: one.model.version for role, one in known.items()}
        for partition in self._partitions.values():
            partition.course.offer(champion, shadows)

    def _each(self, action: Callable[[Partition], None]) -> None:
        """Do something with each partition.

        One that another worker has taken over is dropped, for a while; so is one of which a commit's outcome is not
        known, unless it never could commit anything.
        """
        for number, partition in list(self._partitions.items()):
            try:
                action(partition)
            except BrokerError as error:
                fenced = isinstance(error, FencedError)
                if not (fenced or partition.course.has_committed):
                    raise
                self._drop(number, f"{'was taken over' if fenced else 'is opened anew'} ({error})")
                self._reopen_later(number)

    def _reopen_later(self, number: int) -> None:
        """Open it again after a pause: if it is still ours then, nobody else has it."""
        self._reopen_at[number] = time.monotonic() + _REOPEN_SHARE * self._settings.state.session_timeout / 1000

    def _commit_if_wanted(self, partition: Partition) -> None:
        partition.course.settle()
        if partition.course.wants_commit:
            partition.course.commit()

    def _settle(self) -> None:
        """Flush, snapshot and say how it goes, each in its own time; a full disk is waited out."""
        now, self._has_unlearned = time.monotonic(), False
        if now >= self._retry_at:
            try:
                self._each(self._make_durable_if_wanted)
            except (StoreError, OSError) as error:
                _log.error("state cannot be written; nothing is lost, tried again in %d s: %s", _RETRY_S, error)
                self._retry_at = now + _RETRY_S
        if now - self._last_status >= _STATUS_EVERY_S:
            self._say("running")

    def _make_durable_if_wanted(self, partition: Partition) -> None:
        windows = [] if self._has_unlearned else self._to_unlearn()
        if partition.wants_to_unlearn(windows):
            self._has_unlearned = True
            _log.warning(
                "partition %d: learns again without %s", partition.number, _shown(windows, self._settings.clock)
            )
            partition.unlearn(windows, self._checkpoints)
            self._say("running")
        elif partition.wants_to_erase(asked := self._erasures.asked()):
            _log.warning("partition %d: forgets ids that are erased", partition.number)
            partition.erase(asked, self._checkpoints)
            self._say("running")
        elif partition.wants_snapshot:
            partition.snapshot(self._checkpoints)
            self._trim(partition)
        elif partition.wants_flush:
            partition.flush()
            self._say("running")

    def _trim(self, partition: Partition) -> None:
        """Let the broker drop journal entries that no kept snapshot needs, many at a time."""
        needed = partition.journal_needed
        if needed - self._trimmed.get(partition.number, 0) < _TRIM_ENTRIES:
            return
        self._trimmed[partition.number] = needed
        try:
            with self._phases.enter("trim"):
                self._broker.trim({TopicPartition(self._settings.journal_topic, partition.number): needed})
        except BrokerError as error:
            _log.warning("journal entries that are not needed stay, tried again after more of them: %s", error)

    def _give_up(self, phase: Phase, lasted_s: float) -> NoReturn:
        """End the process: a client library that hangs cannot be interrupted. Runs in the watchdog's thread."""
        _log.critical(
            "%s has lasted %.0f s, longer than state.deadline; the worker ends, the next one goes on from there",
            phase,
            lasted_s,
        )
        saying = threading.Thread(target=self._say, args=["stuck"], daemon=True)  # the disk may be what hangs
        saying.start()
        saying.join(_LAST_WORDS_S)
        os._exit(StuckError.exit_code)

    def _state(self) -> str:
        return "running" if all(partition.is_live for partition in self._partitions.values()) else "recovering"

    def _say(self, state: str) -> None:
        partitions = dict(self._partitions)
        write_status(
            self._project.status,
            "worker",
            {
                "state": self._state() if state == "running" else state,
                "lockstep": self._lockstep,
                "cluster_id": self._cluster_id,
                "guarantee": self._settings.state.guarantee,
                "champion": _common(part.serving_champion for part in partitions.values()),
                "champion_ready": _common(part.course.ready_champion for part in partitions.values()),
                "line_up": self._line_up,
                "champion_problem": self._watcher.problem if self._watcher else None,
                "records": self._records,
                "events": sum(part.events for part in partitions.values()),
                "busy_s": round(self._busy_s, 3),
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "partitions": {str(number): part.describe() for number, part in partitions.items()},
            },
            self._instance,
        )
        self._last_status = time.monotonic()


def _shown(windows: Sequence[Span], clock: Clock) -> str:
    return ", ".join(clock.between(*window) for window in windows)


def _common(versions: Iterable[int | None]) -> int | None:
    found = set(versions)
    return found.pop() if len(found) == 1 else None
