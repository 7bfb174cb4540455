"""A state, its tables, another stamp: the models learn again, everything else goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from stream_lab import EVENTS, LABELS, MINUTE, TASKS, FakeChampion, as_raw, easy_stream, make_machine, make_project
from worker_lab import Killed, KillingPhases, fill, rows_of, run, values, with_clocks

import streaming.checkpoint as checkpoint_module
import streaming.decisions as decisions_module
import streaming.partition as partition_module
from core.errors import CheckpointError, StoreError
from core.features import load_features
from core.processes import birth
from core.status import write_status
from core.store import TableStore
from core.tables import EXAMPLES
from headrace import cli
from streaming import learning
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.digest import canonical_digest, digest_of
from streaming.experts import build_experts
from streaming.machine import Machine
from streaming.memory_broker import MemoryBroker
from streaming.rebuild import rebuild
from streaming.table_writer import TableWriter
from streaming.worker import Worker

ANSWERS = {"binary": 0.25, "regression": 2.5, "multiclass": {"low": 0.25, "high": 0.75}}
LEARNERS = ("experts", "blend")
OTHERS = ("join", "scores", "plausible", "vocabulary", "books")


@pytest.fixture(autouse=True)
def late_soon(monkeypatch):
    """Experts are asked again, as they are where labels come later than here."""
    monkeypatch.setattr(learning, "_ASKED_AGAIN_AFTER", 10)


def shuffled(task, count=200):
    """Labels late, some before their event, some never; several events in one millisecond."""
    records = []
    for record in easy_stream(task, count, delay=12):
        number = int(record.key[1:])
        stamp = record.timestamp
        if record.topic == EVENTS:
            stamp -= (number % 4) * MINUTE
        elif number % 5 == 0:
            continue
        else:
            stamp -= (number % 3 == 0) * 20 * MINUTE
        records.append(replace(record, timestamp=stamp))
    return as_raw(sorted(records, key=lambda record: (record.timestamp, record.topic)))


def worked(project, records, stop=None):
    """A partition that worked through `records`: rows in the tables, a snapshot after `stop` of them."""
    machine = make_machine(project)
    writer = TableWriter(TableStore(project.tables), project.settings, 0)
    stop = len(records) if stop is None else stop
    for start in range(0, stop, 50):
        if start == 100:
            machine.swap(FakeChampion(7, lambda row: ANSWERS[project.settings.task]))
        writer.add(machine.process(records[start : min(start + 50, stop)]))
        writer.flush(machine.state.step)
    Checkpoints(project).save(0, Snapshot(machine.state, "c", journal=17, term=3))
    return machine, writer


def again(project):
    return rebuild(project, 0, Checkpoints(project), lambda done, total: None)


def known_of(vocabulary):
    """Every value that it tells apart; how often it had to say <other> cannot be known again."""
    return {name: value for name, value in vars(vocabulary).items() if name != "overflowed"}


def parts(state, names):
    return {name: digest_of(getattr(state, name)) for name in names}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("missing", [False, True])
def test_when_nothing_changed_the_same_models_come_out(tmp_path, task, missing):
    value = {"binary": 0, "multiclass": "mid", "regression": 0.0}[task]
    label = {"horizon": "15m", **({"missing": value} if missing else {})}
    project = make_project(tmp_path, task, online=["linear", "tree", "forest", "no_change"], label=label)
    machine, _ = worked(project, shuffled(task))
    done = again(project)
    assert (done.step, done.changed, done.lost) == (machine.state.step, {}, [])
    assert done.examples == machine.state.books.events.joined + machine.state.books.events.implied
    found = Checkpoints(project).load(0)
    assert (found.cluster_id, found.journal, found.term, found.rebuilt) == ("c", 17, 3, True)
    assert parts(found.state, LEARNERS + OTHERS) == parts(machine.state, LEARNERS + OTHERS)


def test_compacted_tables_give_the_same(tmp_path):
    project = make_project(tmp_path, online=["linear", "tree"], label={"horizon": "15m", "missing": 0})
    machine, _ = worked(project, shuffled("binary"))
    store = TableStore(project.tables)
    for table in ("predictions", "examples"):
        assert store.maintain(table, keep_versions=list, retention_hours=0).files_added == 1
    again(project)
    assert parts(Checkpoints(project).load(0).state, LEARNERS) == parts(machine.state, LEARNERS)


def test_other_experts_learn_what_was_learned_and_the_partition_goes_on(tmp_path):
    records = shuffled("binary")
    before = make_project(tmp_path, online=["linear", "prior"], label={"horizon": "15m"})
    machine, writer = worked(before, records, stop=220)
    writer.add(machine.process(records[220:]))  # rows after the snapshot are not the snapshot's
    writer.flush(machine.state.step)

    after = make_project(tmp_path, online=["tree", "prior"], label={"horizon": "15m"})
    with pytest.raises(CheckpointError, match="headrace rebuild-state"):
        Checkpoints(after).load(0)
    done = again(after)
    assert list(done.changed) == ["settings.online"]
    assert done.lost == []
    found = Checkpoints(after).load(0).state
    assert found.step == 220

    twin = make_machine(after)  # what learned the same in the same order
    for start in range(0, 220, 50):
        if start == 100:
            twin.swap(FakeChampion(7, lambda row: 0.25))
        twin.process(records[start : min(start + 50, 220)])
    assert parts(found, LEARNERS) == parts(twin.state, LEARNERS)
    at_snapshot = make_machine(before)
    at_snapshot.process(records[:220])
    assert found.join.pending == at_snapshot.state.join.pending > 0
    assert digest_of(found.books) == digest_of(at_snapshot.state.books)

    for expert, fresh in zip(found.experts, build_experts(after), strict=True):
        expert.attach(fresh)
    going_on = Machine(after.settings, load_features(after), found)
    going_on.process(records[220:])
    assert going_on.state.books.imbalances() == []
    assert digest_of(going_on.state.books) == digest_of(machine.state.books)
    other = TableWriter(TableStore(after.tables), after.settings, 1)
    other.add(going_on.process(as_raw(easy_stream("binary", 260))[-40:]))
    other.flush(going_on.state.step)  # the tables take the new expert's column and miss the old one's


def test_the_snapshot_of_before_is_kept(tmp_path):
    project = make_project(tmp_path, online=["prior"])
    worked(project, shuffled("binary", 60))
    (old,) = project.checkpoints.iterdir()
    content = old.read_bytes()
    again(project)
    assert old.with_suffix(".before-rebuild").read_bytes() == content
    assert old.read_bytes() != content


@pytest.mark.parametrize("change", ["format", "horizon"])
def test_what_waits_comes_from_the_tables_when_the_snapshot_cannot_tell(tmp_path, monkeypatch, change):
    label = {"horizon": "15m"}
    project = make_project(tmp_path, online=["linear", "prior"], label=label)
    machine, _ = worked(project, shuffled("binary"), stop=250)
    books = machine.state.books
    assert books.labels.waiting > 0
    assert books.events.expired > 0
    if change == "format":
        monkeypatch.setattr(checkpoint_module.Checkpoints, "FORMAT", 99)
    else:
        project = make_project(tmp_path, online=["linear", "prior"], label={"horizon": "30m"})
    done = again(project)
    assert done.lost[0].startswith(f"{books.labels.waiting} labels that wait for their event")
    state = Checkpoints(project).load(0).state
    assert state.books.imbalances() == []
    assert (state.books.labels.waiting, state.join.waiting) == (0, 0)
    assert state.books.labels.orphaned == books.labels.orphaned + books.labels.waiting
    assert state.books.events.pending == state.join.pending
    assert parts(state, LEARNERS) == parts(machine.state, LEARNERS)
    assert known_of(state.vocabulary) == known_of(machine.state.vocabulary)
    pending = {row["id"] for row in TableStore(project.tables).read("predictions").to_pylist()}
    pending -= {row["id"] for row in TableStore(project.tables).read("examples").to_pylist()}
    known = {event_id for event_id in pending if state.join.knows(event_id)}
    if change == "format":
        assert state.join.pending == machine.state.join.pending
        assert known == {event_id for event_id in pending if machine.state.join.knows(event_id)}
    else:
        assert state.join.pending > machine.state.join.pending, "a longer horizon lets events wait again"


def test_a_label_of_an_event_that_waited_is_joined_after_a_rebuild_from_tables(tmp_path, monkeypatch):
    records = as_raw(easy_stream("binary", 60, delay=10))
    project = make_project(tmp_path, online=["linear", "prior"])
    machine, _ = worked(project, records, stop=80)
    monkeypatch.setattr(checkpoint_module.Checkpoints, "FORMAT", 99)
    again(project)
    state = Checkpoints(project).load(0).state
    outputs = Machine(project.settings, load_features(project), state).process(records[80:])
    expected = machine.process(records[80:])
    assert [repr(one) for one in outputs] == [repr(one) for one in expected]


def test_a_changed_bound_of_categories_is_kept_to(tmp_path):
    fields = {"x": "number", "z": "number", "c": {"type": "category", "max_categories": 4}}
    worked(make_project(tmp_path, online=["prior"], fields=fields), shuffled("binary", 60))
    wider = make_project(tmp_path, online=["prior"], fields={**fields, "c": {"type": "category", "max_categories": 5}})
    again(wider)
    vocabulary = Checkpoints(wider).load(0).state.vocabulary
    assert vocabulary.bound({"c": "new"}) == {"c": "new"}
    assert vocabulary.bound({"c": "newer"}) == {"c": "<other>"}


def test_a_feature_of_another_type_is_refused(tmp_path):
    worked(make_project(tmp_path, online=["prior"]), shuffled("binary", 60))
    other = make_project(tmp_path, online=["prior"], fields={"x": "number", "z": "text", "c": "category"})
    with pytest.raises(StoreError, match="column 'f_z' holds double, and would now be string"):
        again(other)


def test_rows_that_are_gone_are_counted(tmp_path):
    project = make_project(tmp_path, online=["prior"])
    machine, _ = worked(project, shuffled("binary", 60))
    machine.state.books.events.joined += 5
    Checkpoints(project).save(0, Snapshot(machine.state, "c", term=4))
    assert again(project).lost == ["5 rows are not in the table 'examples' any more"]


def test_a_worker_says_what_to_do_and_goes_on_after_it(tmp_path):
    broker = MemoryBroker()
    broker.create_topics(dict.fromkeys((EVENTS, LABELS, "small.predictions", "small.dead-letters"), 1))
    records = easy_stream("binary", 200)
    for record in records[:200]:
        broker.append(record)
    before = make_project(tmp_path, online=["linear", "prior"])
    work(before, broker)
    after = make_project(tmp_path, online=["tree", "prior"])
    with pytest.raises(CheckpointError, match="headrace rebuild-state"):
        work(after, broker)
    done = again(after)
    for record in records[200:]:
        broker.append(record)
    books = work(after, broker)
    assert books.events.received == books.events.predicted == 200
    assert books.imbalances() == []
    rows = TableStore(after.tables).read("predictions").sort_by("step").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 200
    new = [row for row in rows if row["step"] > done.step]
    assert 0 < len(new) < 200
    assert all(row["p_linear"] is None and row["p_tree"] is not None for row in new)


def test_a_back_up_made_at_work_in_the_documented_order_restores_all(tmp_path):
    broker = MemoryBroker()
    broker.create_topics(dict.fromkeys((EVENTS, LABELS, "small.predictions", "small.dead-letters"), 1))
    records = easy_stream("binary", 150)
    project = make_project(tmp_path)
    for record in records[:150]:
        broker.append(record)
    work(project, broker)
    shutil.copytree(project.checkpoints, tmp_path / "backup" / "checkpoints")
    for record in records[150:]:  # the worker goes on between the two copies
        broker.append(record)
    work(project, broker)
    shutil.copytree(project.tables, tmp_path / "backup" / "tables")
    expected = canonical_digest(Checkpoints(project).load(0).state)
    for name in ("checkpoints", "tables"):
        shutil.rmtree(project.state / name)
        shutil.copytree(tmp_path / "backup" / name, project.state / name)
    assert work(project, broker).imbalances() == []
    assert canonical_digest(Checkpoints(project).load(0).state) == expected
    ids = TableStore(project.tables).read("predictions")["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 150


def work(project, broker):
    """Let a worker take in everything that the broker holds."""
    waiting = sum(len(broker.records(topic)) for topic in (EVENTS, LABELS))
    end = time.monotonic() + 60

    def all_taken(one):
        seen = sum(sum(partition.state.positions.values()) for partition in one.partitions.values())
        return seen >= waiting or time.monotonic() > end

    return Worker(project, broker, None).run(threading.Event(), until=all_taken)


def run_command(*arguments):
    return CliRunner().invoke(cli, ["rebuild-state", *map(str, arguments)])


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    return tmp_path


def test_the_command_rebuilds_every_partition_and_says_so(at_home):
    project = make_project(at_home, online=["prior"])
    machine, _ = worked(project, shuffled("binary", 60))
    make_project(at_home, online=["prior", "linear"])
    done = run_command(at_home, "--json", at_home / "out.json")
    assert done.exit_code == 0, done.output
    assert "learned" in done.output
    (said,) = json.loads(Path(at_home / "out.json").read_text())["partitions"]
    assert (said["partition"], said["step"], said["pending"]) == (0, machine.state.step, machine.state.join.pending)
    assert list(said["changed"]) == ["settings.online"]


def test_the_command_says_what_it_cannot_do(at_home):
    project = make_project(at_home, online=["prior"])
    worked(project, shuffled("binary", 60))
    said = run_command(at_home, "--partition", 3).exception
    assert "these have: 0" in str(said)
    write_status(project.status, "worker", {"state": "running"})
    another = {"pid": os.getppid(), **asdict(birth(os.getppid()))}
    status = json.loads((project.status / "worker.json").read_text()) | another
    (project.status / "worker.json").write_text(json.dumps(status))
    assert "worker already runs" in str(run_command(at_home).exception)
    (project.status / "worker.json").unlink()
    for path in project.checkpoints.iterdir():
        path.write_bytes(b"x" * 99)
    assert "back-up" in str(run_command(at_home).exception)
    for path in project.checkpoints.iterdir():
        path.unlink()
    assert "not where in the topics to go on; restore" in str(run_command(at_home).exception)


def test_what_was_committed_after_the_rebuilt_snapshot_is_not_published_again(tmp_path, monkeypatch):
    project = make_project(tmp_path, state={"commit_every": "1ms", "recover_within": "2ms"})
    monkeypatch.setattr(partition_module, "_SNAPSHOT_SHARE", 0)
    monkeypatch.setattr(decisions_module, "BATCH", 16)
    broker = fill(MemoryBroker(), with_clocks(easy_stream("binary", 100)))
    with pytest.raises(Killed):
        run(project, broker, phases=KillingPhases("snapshot write", 2))
    again(project)
    finished = run(project, broker)
    assert len(values(broker)) == len(set(values(broker))) == 100
    assert len(rows_of(project, EXAMPLES)) == finished.books.events.joined == 100
