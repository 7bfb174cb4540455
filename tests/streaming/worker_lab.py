"""A whole worker in one process: topics filled, run until all of it was stepped through, what came out of it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import msgspec
from stream_lab import EVENTS, LABELS, MINUTE, START, FakeChampion, digest

import streaming.decisions as decisions_module
import streaming.partition as partition_module
import streaming.worker as worker_module
from core.errors import RegistryError
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.champion import ChampionWatcher
from streaming.journal import Entry, Follow, Swap, TakeOver
from streaming.memory_broker import MemoryBroker
from streaming.ordering import CLOCK_HEADER
from streaming.phases import Phase, Phases
from streaming.transport import OutRecord
from streaming.worker import Worker

PATIENCE_S = 90.0
STATE = {"commit_every": "1ms", "recover_within": "2ms"}
"""Commits, and so may be killed, at every step; and keeps its state as often."""

PREDICTED, DEAD, JOURNAL = "small.predictions", "small.dead-letters", "small.journal"


def take_small_steps(monkeypatch):
    """Let a worker poll, step and keep its state often, so that little of it is lost on the way."""
    monkeypatch.setattr(worker_module, "_POLL_MS", 5)
    monkeypatch.setattr(worker_module, "_POLL_RECORDS", 40)
    monkeypatch.setattr(decisions_module, "BATCH", 16)
    monkeypatch.setattr(partition_module, "_SNAPSHOT_SHARE", 0)


def clocks(stamp: int, partitions: int = 1) -> list[OutRecord]:
    header = ((CLOCK_HEADER, b"1"),)
    return [OutRecord(topic, b"c", None, stamp, p, header) for topic in (EVENTS, LABELS) for p in range(partitions)]


def with_clocks(records: list[OutRecord], every: int = 25 * MINUTE, partitions: int = 1) -> list[OutRecord]:
    """What a replay in lockstep publishes: a word about time at each boundary, and after the end."""
    out, boundary = [], START + every
    for record in records:
        while record.timestamp >= boundary:
            out += clocks(boundary, partitions)
            boundary += every
        out.append(record)
    return out + clocks(records[-1].timestamp + 1, partitions)


def fill(broker: MemoryBroker, records: list[OutRecord], partitions: int = 1) -> MemoryBroker:
    broker.create_topics(dict.fromkeys((EVENTS, LABELS, PREDICTED, DEAD, JOURNAL), partitions))
    for record in records:
        broker.append(record)
    return broker


def values(broker, topic=PREDICTED):
    return [record.value for record in broker.records(topic)]


def outcome_of(project, broker, worker, tables=(PREDICTIONS, EXAMPLES)):
    """All that came of a run: the state's digest, what was predicted, and the rows."""
    return digest(worker.partitions[0].state), values(broker), {table: rows_of(project, table) for table in tables}


def run(project, broker, *, records=None, watcher=None, lockstep=True, until=None, phases=None) -> Worker:
    """Run a worker until everything (or so many records more) was stepped through."""
    total = sum(len(broker.records(topic)) for topic in (EVENTS, LABELS))
    worker = Worker(project, broker, watcher, lockstep=lockstep, phases=phases)

    def done(one: Worker) -> bool:
        seen = sum(sum(p.state.positions.values()) for p in one.partitions.values())
        return seen >= total if records is None else one.records >= records

    worker.run(threading.Event(), until=until or done)
    return worker


def rows_of(project, table):
    rows = TableStore(project.tables).read(table).to_pylist()
    return sorted(rows, key=lambda row: (row["id"], str(row.get("label"))))


class Killed(BaseException):
    """What a kill is in one process: nothing behind it runs but what lets go without writing."""


class KillingPhases(Phases):
    """Kills, or fails with another error, at the `nth` start of a phase, or after its end."""

    def __init__(self, phase: Phase, nth: int, *, after: bool = False, error: type[BaseException] = Killed) -> None:
        super().__init__()
        self._error = error
        self.left = nth
        self._phase = phase
        self._after = after

    def enter(self, phase):
        outer = super().enter(phase)
        if phase != self._phase:
            return outer
        self.left -= 1
        return self._killing(outer) if self.left == 0 else outer

    @contextmanager
    def _killing(self, outer):
        if not self._after:
            raise self._error(self._phase)
        with outer:
            yield
        raise self._error(self._phase)


class Running:
    """A worker in a thread."""

    def __init__(self, project, broker, instance: str) -> None:
        self.worker = Worker(project, broker, None, lockstep=True, instance=instance)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.worker.run, args=[self.stop], daemon=True)
        self.thread.start()

    def leave(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.01)


class Source:
    def __init__(self, version: int, effective_at: int, model=None) -> None:
        self.alias = version, effective_at
        self._model = model

    def followed(self):
        return {"champion": self.alias}

    def load(self, version):
        return self._model or FakeChampion(version, lambda row: 0.625)


def watching(source) -> ChampionWatcher:
    watcher = ChampionWatcher(lambda: source, poll_s=0.001)
    start = watcher.start

    def start_and_look():
        start()
        assert watcher.wait_for_first_look(20)

    watcher.start = start_and_look
    return watcher


class Aliases:
    """A registry: version 1 answers 0.3, version 2 by x, version 9 does not load."""

    def __init__(self, **followed: tuple[int, int]) -> None:
        self.aliases = followed

    def followed(self):
        return dict(self.aliases)

    def load(self, version):
        if version == 9:
            raise RegistryError("version 9 cannot be trusted")
        return FakeChampion(version, {1: lambda row: 0.3, 2: lambda row: 0.8 if row["x"] > 0 else 0.2}[version])


def changes(broker) -> list[Swap | Follow]:
    """What the journal says about champions and shadows."""
    decoder = msgspec.msgpack.Decoder(Entry | TakeOver)
    entries = [decoder.decode(value) for value in values(broker, JOURNAL)]
    return [a for e in entries if isinstance(e, Entry) for a in e.actions if isinstance(a, Swap | Follow)]
