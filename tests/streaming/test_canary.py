"""The canary: who is served by it follows from the event alone, and nothing but what is served follows from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_lab import (
    MINUTE,
    START,
    TASKS,
    FakeChampion,
    as_raw,
    digest,
    easy_stream,
    event,
    make_machine,
    make_project,
)
from test_shadow import NONSENSE, challenger, champion, step_through

from core.models import CHALLENGER
from core.paired import judge_shadow, paired_blocks
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, prediction_of
from streaming.books import Books
from streaming.canary import Canary, is_among
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.history import Asked, History
from streaming.join import LabelJoin, Predicted
from streaming.journal import Follow
from streaming.messages import messages_of, prediction_message
from streaming.phases import Phases
from streaming.rebuild import rebuild
from streaming.relearning import Unlearner
from streaming.table_writer import TableWriter

SHARE = 0.3


def serving(task, share, model=None):
    """What begins a canary: a champion that serves and a challenger that does so for a share."""

    def begin(machine):
        machine.swap(champion(task))
        machine.follow(CHALLENGER, model or challenger(task), share)

    return begin


def made_by(outputs):
    return [output for output in outputs if isinstance(output, Predicted)]


def worked(folder, task, share, records=None, model=None, **changes):
    """A machine that has worked through a stream, what followed, and its project with the tables."""
    project = make_project(folder, task, **changes)
    machine, writer = make_machine(project), TableWriter(TableStore(project.tables), project.settings, 0)
    stream = as_raw(easy_stream(task, 150)) if records is None else records
    outputs = step_through(machine, stream, {40: serving(task, share, model)})
    writer.add(outputs)
    writer.flush(machine.state.step)
    return machine, outputs, project


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_about_what_was_asked_for_whatever_the_names(share):
    count = 20_000
    for names in ((f"e{n}" for n in range(count)), (str(n * 7) for n in range(count)), ("x" * n for n in range(2_000))):
        drawn = [is_among(name, 3, share) for name in names]
        deviation = math.sqrt(share * (1 - share) / len(drawn))
        assert abs(sum(drawn) / len(drawn) - share) < 4.5 * deviation


@given(st.text(), st.integers(1, 9), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_who_is_in_a_share_is_in_every_larger_one_and_nobody_in_none(name, version, one, other):
    smaller, larger = sorted([one, other])
    assert is_among(name, version, larger) or not is_among(name, version, smaller)
    assert not is_among(name, version, 0.0)


def test_the_draw_is_the_same_in_every_process_and_another_for_another_version():
    names = [f"e{number}" for number in range(24)]
    drawn = {version: "".join("01"[is_among(name, version, 0.5)] for name in names) for version in (2, 3)}
    assert drawn == {2: "000111011010101110100000", 3: "000000110100101110011111"}


@pytest.mark.parametrize("task", TASKS)
def test_nothing_but_what_is_published_follows_from_it(tmp_path, task):
    plain, expected, project = worked(tmp_path / "a", task, 0.0)
    machine, outputs, _ = worked(tmp_path / "b", task, SHARE)
    chosen = [one.canary is not None for one in made_by(outputs)]
    assert 0.15 < sum(chosen) / len(chosen) < 0.45
    assert machine.state.books.events.canary == machine.state.canary.served == sum(chosen)
    assert [replace(one, canary=None) for one in made_by(outputs)] == made_by(expected)
    machine.state.canary, machine.state.books.events.canary = Canary(), 0
    for waiting in machine.state.join.ids():
        found = machine.state.join.pending_event(waiting)
        assert found is None or replace(found, canary=None) == plain.state.join.pending_event(waiting)
    machine.state.join = plain.state.join
    assert digest(machine.state) == digest(plain.state)
    assert plain.state.books == machine.state.books != Books()

    served, before = messages_of(outputs, project.settings), messages_of(expected, project.settings)
    assert [a == b for a, b in zip(served, before, strict=True)] == [not one for one in chosen]


@pytest.mark.parametrize("task", TASKS)
def test_a_prediction_says_who_served_it(tmp_path, task):
    _, outputs, _ = worked(tmp_path, task, SHARE)
    for one in made_by(outputs):
        value = json.loads(prediction_message(one, "t").value)
        if one.canary is None:
            assert value["prediction"] == one.served and value.keys().isdisjoint({"canary_version"})
            assert CHALLENGER not in value["experts"]
        else:
            made = one.shadows[CHALLENGER]
            assert (value["canary_version"], value["champion_version"]) == (2, 1)
            assert value["prediction"] == made.blended != one.served
            assert value["experts"] == {**one.predictions, CHALLENGER: made.prediction}


def test_the_tables_tell_which_blend_was_served_for_each_row(tmp_path):
    _, outputs, project = worked(tmp_path, "binary", SHARE)
    published = {one.id: (one.canary, one.published) for one in made_by(outputs)}
    for table in (PREDICTIONS, EXAMPLES):
        rows = TableStore(project.tables).read(table).to_pylist()
        assert len(rows) > 100
        for row in rows:
            column = "p_served" if row["canary_version"] is None else "p_with_challenger"
            assert published[row["id"]] == (row["canary_version"], prediction_of(row[column]))


@pytest.mark.parametrize("task", TASKS)
def test_the_verdict_is_the_same_with_a_canary_and_without(tmp_path, task):
    found = []
    for share in (0.0, 0.5):
        _, _, project = worked(tmp_path / str(share), task, share, promotion={"block": "20m"})
        rows = TableStore(project.tables).read(EXAMPLES)
        assert (rows["canary_version"].null_count < len(rows)) == (share > 0)
        until = START + 150 * MINUTE
        blocks = list(paired_blocks(rows, 2, project.settings, until).values())
        assert len(blocks) >= 5
        assert [block.champion for block in blocks] != [block.challenger for block in blocks]
        found.append((blocks, judge_shadow(rows, 2, project.settings, until)))
    assert found[0] == found[1]


def test_by_key_whoever_it_names_sees_one_model(tmp_path):
    names = [*(f"c{number}" for number in range(60)), None]
    records = [event(n, f"e{n}", START + n * MINUTE, c=names[n % len(names)]) for n in range(10 * len(names))]
    _, outputs, _ = worked(tmp_path, "binary", 0.5, records, topics={"key": "c"})
    seen = {}
    for one in made_by(outputs)[40:]:
        seen.setdefault(one.keys["c"], set()).add(one.canary)
    without_a_key = seen.pop(None)
    assert set(map(len, seen.values())) == {1}
    assert set.union(*seen.values()) == {None, 2}
    assert without_a_key == {None, 2}, "those go by their id"


@pytest.mark.parametrize("what", NONSENSE)
def test_a_challenger_that_fails_serves_nobody(tmp_path, what):
    model = FakeChampion(2, NONSENSE[what])
    machine, outputs, project = worked(tmp_path / "a", "binary", 0.5, model=model)
    _, expected, _ = worked(tmp_path / "b", "binary", 0.0, model=model)
    assert machine.state.canary.served == 0 < machine.models.shadow_failures[CHALLENGER]
    assert messages_of(outputs, project.settings) == messages_of(expected, project.settings)


def test_one_that_fails_now_and_then_serves_where_it_does_not(tmp_path):
    model = FakeChampion(2, lambda row: 0.6 if row["z"] > 0 else math.nan)
    _, outputs, _ = worked(tmp_path, "binary", 0.5, model=model)
    made = [one for one in made_by(outputs) if one.shadows]
    assert {one.canary for one in made if one.shadows[CHALLENGER].prediction is None} == {None}
    assert {one.canary for one in made if one.shadows[CHALLENGER].prediction is not None} == {None, 2}


def test_it_serves_where_only_it_can_predict(tmp_path):
    machine = make_machine(make_project(tmp_path))
    machine.state.experts.clear()
    machine.follow(CHALLENGER, challenger(), 0.5)
    made = made_by(machine.process(as_raw(easy_stream("binary", 40))))
    assert {(one.canary, one.served, one.published is None) for one in made} == {(None, None, True), (2, None, False)}


def test_it_ends_with_the_next_event(tmp_path):
    machine = make_machine(make_project(tmp_path))
    serving("binary", 0.5)(machine)
    records = [record for record in as_raw(easy_stream("binary", 120)) if record.topic.endswith("events")]
    before = made_by(machine.process(records[:40]))
    machine.follow(CHALLENGER, None)
    after = made_by(machine.process(records[40:80]))
    machine.follow(CHALLENGER, challenger(version=3), SHARE)
    third = made_by(machine.process(records[80:]))
    assert [{one.canary for one in some} for some in (before, after, third)] == [{None, 2}, {None}, {None, 3}]
    assert machine.state.canary == Canary(SHARE, 3, sum(one.canary == 3 for one in third))
    machine.swap(challenger(version=3))
    machine.follow(CHALLENGER, None)
    assert machine.state.canary == Canary()


def test_what_waits_is_the_same_from_disk(tmp_path):
    _, outputs, _ = worked(tmp_path, "binary", SHARE)
    join, made = LabelJoin(10**9, 1_000), made_by(outputs)
    join.attach(tmp_path, 1)
    for one in made:
        join.add_event(one)
    assert join.on_disk > 0
    assert [join.pending_event(one.id) for one in made] == made


def test_a_state_that_was_kept_or_rebuilt_serves_the_same(tmp_path):
    records = as_raw(easy_stream("binary", 150))
    machine, _, project = worked(tmp_path, "binary", SHARE, records[:200])
    Checkpoints(project).save(0, Snapshot(machine.state, "c", term=1))
    kept = Checkpoints(project).load(0).state
    rebuild(project, 0, Checkpoints(project), lambda done, total: None)
    rebuilt = Checkpoints(project).load(0).state
    assert kept.canary == rebuilt.canary == machine.state.canary != Canary()
    expected = machine.process(records[200:])
    for state in (kept, rebuilt):
        for expert, fresh in zip(state.experts, machine.state.experts, strict=True):
            expert.attach(fresh)
        other = make_machine(project)
        other.state = state
        serving("binary", state.canary.share)(other)
        assert other.process(records[200:]) == expected


def test_an_unlearned_window_leaves_the_same_blends_with_a_canary_and_without(tmp_path):
    found = []
    for share in (0.0, 0.5):
        machine, _, project = worked(tmp_path / str(share), "binary", share, windows={"span": "1h"})
        one = Unlearner(project, 0, Checkpoints(project), Phases())
        one.unlearn(machine.state, one.plan([(START + 60 * MINUTE, START + 120 * MINUTE)], []))
        found.append([digest(getattr(machine.state, part)) for part in ("experts", "blend", "shadows")])
    assert found[0] == found[1]


def test_a_journal_from_before_there_was_a_canary_tells_of_none():
    written = msgspec.msgpack.encode([4, CHALLENGER, 2])
    assert msgspec.msgpack.decode(written, type=Follow) == Follow(CHALLENGER, 2, 0.0)


def test_tables_from_before_there_was_a_canary_get_its_column_when_the_state_is_rebuilt(tmp_path):
    machine, _, project = worked(tmp_path, "binary", 0.0)
    store, old = TableStore(project.tables), TableStore(tmp_path / "old")
    for table in (PREDICTIONS, EXAMPLES):
        old.append(table, store.read(table).drop_columns(["canary_version"]), app="partition-0", sequence=1)
    history = History(old, project.settings, 0, machine.state.step)
    assert {one.predicted.canary for one in history if isinstance(one, Asked)} == {None}
    writer = TableWriter(old, project.settings, 0)
    writer.add(machine.process([event(999, "new", START)]))
    writer.flush(machine.state.step)
    assert old.read(PREDICTIONS)["canary_version"].null_count == 151
