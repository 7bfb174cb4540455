"""Windows unlearned: as if their labels had never come, whatever snapshot is begun with and whatever is killed."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_lab import MINUTE, START, TASKS, FakeChampion, as_raw, digest, easy_stream, make_machine, make_project
from worker_lab import JOURNAL, Killed, KillingPhases, clocks, fill, rows_of, run, values, with_clocks

import streaming.decisions as decisions_module
import streaming.relearning as relearning_module
import streaming.worker as worker_module
from core.audit import Ledger
from core.errors import CheckpointError
from core.store import TableStore
from core.tables import EXAMPLES
from streaming import learning
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.memory_broker import MemoryBroker
from streaming.phases import Phases
from streaming.rebuild import rebuild
from streaming.relearning import Unlearner
from streaming.table_writer import TableWriter

SPAN = 60 * MINUTE
ORIGIN = START // SPAN * SPAN
BROKEN = (ORIGIN + 2 * SPAN, ORIGIN + 3 * SPAN)
ANSWERS = {"binary": 0.25, "regression": 2.5, "multiclass": {"low": 0.25, "high": 0.75}}
WINDOWS = {"windows": {"span": "1h"}, "drift": {"quarantine_windows": 3}}


@pytest.fixture(autouse=True)
def late_soon(monkeypatch):
    """Experts are asked again, as they are where labels come later than here."""
    monkeypatch.setattr(learning, "_ASKED_AGAIN_AFTER", 10)


def project_in(folder, task="binary", **changes):
    return make_project(folder, task, **{"online": ["linear", "prior", "no_change"], **WINDOWS, **changes})


def worked(project, records, keeps=()):
    """A machine that stepped through records, its rows in the tables, snapshots after so many of them."""
    machine = make_machine(project)
    writer, checkpoints = TableWriter(TableStore(project.tables), project.settings, 0), Checkpoints(project)
    for number, record in enumerate(records):
        if number == 60:
            machine.swap(FakeChampion(7, lambda row: ANSWERS[project.settings.task]))
        writer.add(machine.process([record]))
        if number in keeps:
            writer.flush(machine.state.step)
            checkpoints.save(0, Snapshot(machine.state, "c", term=1))
    writer.flush(machine.state.step)
    return machine


def learned(machine):
    state = machine.state
    return digest([state.experts, state.blend.weights, vars(state.plausible)])


def unlearner(project):
    return Unlearner(project, 0, Checkpoints(project), Phases())


@pytest.mark.parametrize("task", TASKS)
def test_to_unlearn_a_window_in_which_nothing_was_predicted_changes_nothing(tmp_path, task):
    project = project_in(tmp_path, task)
    machine = worked(project, as_raw(easy_stream(task, 300, delay=20)), keeps=[200])
    before = digest([machine.state.experts, machine.state.blend, vars(machine.state.plausible)])
    one = unlearner(project)
    window = (machine.state.clock + SPAN, machine.state.clock + 2 * SPAN)

    action = one.plan([window], [])
    one.unlearn(machine.state, action)

    assert action.since > 0, "it begins at the snapshot"
    assert digest([machine.state.experts, machine.state.blend, vars(machine.state.plausible)]) == before


@pytest.mark.parametrize("task", TASKS)
def test_what_was_unlearned_is_as_if_those_labels_had_never_come(tmp_path, task):
    records = as_raw(easy_stream(task, 300, delay=20))
    project = project_in(tmp_path / "a", task)
    machine = worked(project, records, keeps=[100, 400])
    one = unlearner(project)
    one.unlearn(machine.state, one.plan([BROKEN], []))

    without = make_machine(project_in(tmp_path / "b", task))
    without.state.unlearned = [BROKEN]  # so none of them was ever learned
    without.process(records)

    assert digest(machine.state.experts) == digest(without.state.experts)
    assert machine.state.unlearned == [BROKEN]
    assert machine.state.books == without.state.books, "the books count what came"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keeps=st.sets(st.integers(0, 599), max_size=4), late=st.integers(1, 90))
def test_it_makes_no_difference_which_snapshot_it_begins_with(tmp_path_factory, keeps, late):
    records = as_raw(easy_stream("binary", 300, delay=late))
    states = []
    for kept in (set(), keeps):
        project = project_in(tmp_path_factory.mktemp("unlearn"), label={"horizon": "2h"})
        machine = worked(project, records, keeps=kept)
        one = unlearner(project)
        one.unlearn(machine.state, one.plan([BROKEN], []))
        states.append(learned(machine))
    assert states[0] == states[1]


def test_labels_that_come_after_it_was_unlearned_are_not_learned_but_are_in_the_table(tmp_path):
    records = as_raw(easy_stream("binary", 300, delay=50))
    stop = next(at for at, record in enumerate(records) if record.timestamp >= BROKEN[1])
    project = project_in(tmp_path)
    machine = worked(project, records[:stop], keeps=[50])
    one = unlearner(project)
    one.unlearn(machine.state, one.plan([BROKEN], []))
    known = digest(machine.state.experts)

    examples = [
        output
        for output in machine.process(records[stop:])
        if type(output).__name__ == "Example" and output.predicted.time < BROKEN[1]
    ]

    assert len(examples) > 20
    assert digest(machine.state.experts) != known, "what came later is learned"
    without = make_machine(project_in(tmp_path / "b"))
    without.state.unlearned = [BROKEN]
    without.process(records)
    assert digest(machine.state.experts) == digest(without.state.experts)


def test_only_the_latest_examples_are_learned_again_where_they_are_many(tmp_path):
    records = as_raw(easy_stream("binary", 300))
    numbers = {"x": "number", "z": "number"}
    project = project_in(tmp_path, drift={"relearn_rows": 30}, fields=numbers)
    machine = worked(project, records)
    one = unlearner(project)
    one.unlearn(machine.state, one.plan([BROKEN], []))

    newest = make_machine(project_in(tmp_path / "b", fields=numbers))
    last = {json.loads(record.value)["id"] for record in records if record.topic.endswith("labels")}
    last = sorted(last, key=lambda name: int(name[1:]))[-30:]
    newest.process([record for record in records if json.loads(record.value)["id"] in last])
    assert digest(machine.state.experts) == digest(newest.state.experts)


def test_the_last_snapshot_before_each_late_window_is_kept(tmp_path):
    project = project_in(tmp_path)
    records = as_raw(easy_stream("binary", 12 * 60))
    worked(project, records, keeps=range(0, len(records), 40))

    kept = sorted(int(path.name.split(".")[3]) for path in project.checkpoints.iterdir())
    end = max(record.timestamp for record in records)
    for number in range(5):
        start = ORIGIN + ((end - ORIGIN) // SPAN - number) * SPAN
        assert any(start - 25 * MINUTE < clock < start for clock in kept), "one of right before the window"
    assert len(kept) <= 8 + 2


def test_a_rebuilt_state_has_not_learned_what_was_unlearned(tmp_path):
    records = as_raw(easy_stream("binary", 300, delay=20))
    project = project_in(tmp_path)
    machine = worked(project, records, keeps=[100])
    one = unlearner(project)
    one.unlearn(machine.state, one.plan([BROKEN], []))
    Checkpoints(project).save(0, Snapshot(machine.state, "c", term=2))

    rebuild(project, 0, Checkpoints(project), lambda done, total: None)

    again = Checkpoints(project).load(0)
    assert again is not None
    assert again.state.unlearned == [BROKEN]
    assert digest(again.state.experts) == digest(machine.state.experts)


def say_unlearn(project, *windows):
    ledger = Ledger(project.ledger)
    ledger.record("unlearn", "w", event_time=windows[-1][1], body={"spans": [list(window) for window in windows]})
    ledger.close()


def has_unlearned(worker):
    return all(partition.state.unlearned for partition in worker.partitions.values()) and bool(worker.partitions)


@pytest.fixture
def _small_steps(monkeypatch):
    monkeypatch.setattr(worker_module, "_POLL_MS", 5)
    monkeypatch.setattr(worker_module, "_RETRY_S", 0)
    monkeypatch.setattr(decisions_module, "BATCH", 16)
    monkeypatch.setattr(relearning_module, "_SIGN_OF_LIFE", 16)


def told_half_way(folder, phases=()):
    """Half of a stream, a word of the ledger, the other half; killed on the way, and run again each time."""
    project = project_in(folder)
    records = easy_stream("binary", 260, delay=20)
    first, second = records[:360], records[360:]
    broker = fill(MemoryBroker(), with_clocks(first))
    run(project, broker)
    say_unlearn(project, BROKEN)
    for one in phases:
        with pytest.raises(Killed):
            run(project, broker, phases=one, until=has_unlearned)
    run(project, broker, until=has_unlearned)
    for record in [*second, *clocks(second[-1].timestamp + 1)]:
        broker.append(record)
    worker = run(project, broker)
    return digest(worker.partitions[0].state), values(broker), rows_of(project, EXAMPLES)


@pytest.mark.usefixtures("_small_steps")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("phase", "nth"),
    [("unlearn", 1), ("unlearn", 4), ("journal", 2), ("commit", 2), ("snapshot write", 1), ("snapshot rename", 1)],
)
def test_a_kill_while_a_window_is_unlearned_changes_nothing(tmp_path, phase, nth, after):
    whole = told_half_way(tmp_path / "whole")
    assert told_half_way(tmp_path / "killed", [KillingPhases(phase, nth, after=after)]) == whole


@pytest.mark.usefixtures("_small_steps")
def test_a_snapshot_that_is_gone_while_it_is_needed_is_said(tmp_path):
    project = project_in(tmp_path)
    records = as_raw(easy_stream("binary", 300))
    machine = worked(project, records, keeps=[100])
    one = unlearner(project)
    action = replace_since(one.plan([BROKEN], []), 17)
    with pytest.raises(CheckpointError, match=r"step 17 is gone.*rebuild-state"):
        one.unlearn(machine.state, action)


def replace_since(action, since):
    return type(action)(action.windows, since, action.most)


@pytest.mark.usefixtures("_small_steps")
def test_the_journal_says_what_was_unlearned_and_when(tmp_path):
    project = project_in(tmp_path)
    broker = fill(MemoryBroker(), [*with_clocks(easy_stream("binary", 200)), *clocks(START + 400 * MINUTE)])
    run(project, broker)
    entries = len(values(broker, JOURNAL))
    say_unlearn(project, BROKEN)
    run(project, broker, until=has_unlearned)
    assert len(values(broker, JOURNAL)) == entries + 2, "a take-over, and the entry"
