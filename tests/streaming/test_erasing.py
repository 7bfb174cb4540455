"""An id that is erased: it goes from what waits, from snapshots and from rows on their way, and does not come back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from stream_lab import EVENTS, LABELS, MINUTE, START, make_project
from worker_lab import Killed, KillingPhases, Running, clocks, fill, rows_of, run, take_small_steps, wait_for

from core.removal import PERSONAL, remove_id
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.checkpoint import Checkpoints
from streaming.digest import canonical_digest
from streaming.erasure import Erasures
from streaming.memory_broker import MemoryBroker
from streaming.transport import OutRecord
from streaming.worker import Worker

WHO = "QqPerson7"


def event(name: str, minute: int) -> OutRecord:
    time_ = START + minute * MINUTE
    value = b'{"id": "%b", "at": %d, "x": 1, "z": 2, "c": "a"}' % (name.encode(), time_)
    return OutRecord(EVENTS, name.encode(), value, time_, 0)


def label(name: str, minute: int) -> OutRecord:
    return OutRecord(LABELS, name.encode(), b'{"id": "%b", "y": 1}' % name.encode(), START + minute * MINUTE, 0)


def some(first: int, last: int, *more: OutRecord) -> list[OutRecord]:
    """Events and labels of these minutes, and some more of them, in order; then that they are over."""
    made = [one for n in range(first, last) for one in (event(f"e{n}", n), label(f"e{n}", n))]
    return [*sorted([*made, *more], key=lambda record: record.timestamp), *clocks(START + last * MINUTE)]


def add(broker: MemoryBroker, records: list[OutRecord]) -> None:
    for record in records:
        broker.append(record)


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def ids_in(project, table: str) -> set[str]:
    return {row["id"] for row in rows_of(project, table)}


def ask(project) -> str:
    erasures = Erasures(project)
    return erasures.ask(erasures.name(WHO))


def remove_rows(project) -> int:
    store = TableStore(project.tables)
    return sum(remove_id(store, table, WHO).rows for table in PERSONAL)


def has_forgotten(project, request: str) -> bool:
    file = Checkpoints(project).inspect(0)
    return file is not None and request in file.header["erased"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    take_small_steps(monkeypatch)
    return make_project(
        tmp_path / "p", state={"snapshot_every": "1s", "flush_every": "1s", "guarantee": "exactly_once"}
    )


def test_a_worker_that_runs_forgets_it_and_nothing_brings_it_back(project):
    broker = fill(MemoryBroker(), some(0, 10, event(WHO, 5)))
    running = Running(project, broker, "one")
    wait_for(lambda: files_with(project.state / "checkpoints", WHO))
    request = ask(project)
    wait_for(lambda: has_forgotten(project, request))
    running.leave()

    assert files_with(project.state / "checkpoints", WHO) == []
    assert remove_rows(project) == 1
    assert files_with(project.state, WHO) == []
    assert Checkpoints(project).inspect(0).header["erased"][request][1] == "pending"
    books = running.worker.books
    assert books.imbalances() == []
    assert (books.events.erased, books.events.expired, books.events.pending) == (1, 1, 0)

    add(broker, some(10, 20, event(WHO, 11), label(WHO, 12)))
    books = run(project, broker).books
    assert books.imbalances() == []
    assert (books.events.duplicates, books.labels.late) == (1, 1)
    assert WHO not in ids_in(project, PREDICTIONS) | ids_in(project, EXAMPLES)
    assert files_with(project.state, WHO) == []


def test_long_afterwards_the_same_id_is_an_event_like_any_other_and_can_be_erased_again(project):
    broker = fill(MemoryBroker(), some(0, 10, event(WHO, 5)))
    run(project, broker)
    ask(project)
    run(
        project,
        broker,
        until=lambda worker: all(p.state.erased for p in worker.partitions.values()) and bool(worker.partitions),
    )
    remove_rows(project)
    add(broker, some(200, 210, event(WHO, 205), label(WHO, 206)))
    run(project, broker)
    assert WHO in ids_in(project, EXAMPLES)
    again = ask(project)
    run(project, broker, until=lambda worker: has_forgotten(project, again))
    assert remove_rows(project) == 2
    assert files_with(project.state / "checkpoints", WHO) == []


@pytest.mark.parametrize("phase", ["table flush", "snapshot write"])
def test_what_a_killed_worker_had_committed_does_not_come_back_when_it_is_repeated(project, phase):
    """The row is in nobody's table when it is erased: the journal would bring it there."""
    broker = fill(MemoryBroker(), some(0, 10, event(WHO, 5), label(WHO, 7)))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases(phase, 1))
    ask(project)
    remove_rows(project)
    add(broker, some(10, 20))
    worker = run(project, broker)
    wanted = {f"e{n}" for n in range(20)}
    assert worker.books.imbalances() == []
    assert ids_in(project, PREDICTIONS) == ids_in(project, EXAMPLES) == wanted
    run(
        project,
        broker,
        until=lambda worker: bool(worker.partitions) and all(p.is_live for p in worker.partitions.values()),
    )
    assert ids_in(project, PREDICTIONS) == wanted
    assert files_with(project.state, WHO) == []


def erase_until_killed(project, broker, phases) -> None:
    with pytest.raises(Killed):
        run(project, broker, phases=phases, until=lambda worker: False)


@pytest.mark.parametrize("phase", ["snapshot write", "snapshot rename", "commit"])
def test_a_kill_while_it_is_erased_leaves_nothing_undone(project, phase):
    broker = fill(MemoryBroker(), some(0, 10, event(WHO, 5)))
    run(project, broker)
    assert files_with(project.state / "checkpoints", WHO)
    request = ask(project)
    erase_until_killed(project, broker, KillingPhases(phase, 1, after=phase == "snapshot rename"))
    add(broker, some(10, 20))
    run(project, broker, until=lambda worker: has_forgotten(project, request) and worker.records >= 20)
    assert files_with(project.state / "checkpoints", WHO) == []
    remove_rows(project)
    run(project, broker)
    assert WHO not in ids_in(project, PREDICTIONS)


def test_a_repetition_forgets_at_the_same_step(project):
    """The state that follows from the journal is the one that the killed worker had."""
    broker = fill(MemoryBroker(), some(0, 10, event(WHO, 5)))
    run(project, broker)
    request = ask(project)
    states = []
    for _ in range(2):  # the second repeats what the first had committed
        worker = Worker(project, broker, None, lockstep=True, phases=KillingPhases("snapshot write", 1))
        with pytest.raises(Killed):
            worker.run(threading.Event())
        state = worker.partitions[0].state
        assert list(state.erased) == [request]
        states.append(canonical_digest(state))
    assert states[0] == states[1]


def test_a_label_that_waits_for_its_event_is_forgotten_too(project):
    broker = fill(MemoryBroker(), some(0, 10, label(WHO, 5)))
    run(project, broker)
    request = ask(project)
    worker = run(project, broker, until=lambda worker: has_forgotten(project, request))
    assert Checkpoints(project).inspect(0).header["erased"][request][1] == "label"
    assert worker.books.imbalances() == []
    assert worker.books.labels.orphaned == 1
    assert files_with(project.state, WHO) == []


def test_what_lies_on_disk_is_forgotten_too(tmp_path, monkeypatch):
    take_small_steps(monkeypatch)
    project = make_project(tmp_path / "p", state={"max_in_memory": 2})
    broker = fill(
        MemoryBroker(), [event(WHO, 0), *(event(f"e{n}", n) for n in range(1, 30)), *clocks(START + 30 * MINUTE)]
    )
    run(project, broker)
    request = ask(project)
    run(project, broker, until=lambda worker: has_forgotten(project, request))
    assert Checkpoints(project).inspect(0).header["erased"][request][1] == "pending"
