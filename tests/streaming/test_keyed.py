"""Features of a key's past: what they are, that nothing of the future is in them, and that they survive everything."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_lab import (
    EVENTS,
    LABELS,
    MINUTE,
    START,
    TASKS,
    FakeChampion,
    as_raw,
    digest,
    easy_stream,
    event,
    label,
    make_machine,
    make_project,
    outputs_of,
)
from worker_lab import rows_of

from core.errors import TopicError
from core.store import TableStore
from core.tables import EXAMPLES
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.experts import build_experts
from streaming.join import Predicted
from streaming.keyed import KeyedFeatures
from streaming.machine import Machine
from streaming.memory_broker import MemoryBroker
from streaming.phases import Phases
from streaming.rebuild import rebuild
from streaming.relearning import Unlearner
from streaming.table_writer import TableWriter
from streaming.topics import ensure_topics

HOUR = 60 * MINUTE
PER_KEY = [
    {"name": "n", "key": "c", "kind": "count", "half_life": "1h"},
    {"name": "since", "key": "c", "kind": "time_since"},
    {"name": "before", "key": "c", "kind": "last", "of": "x", "back": 2},
    {"name": "usual", "key": "c", "kind": "mean", "of": "x"},
    {"name": "known", "key": ["c", "d"], "kind": "label_count"},
    {"name": "rate", "key": "c", "kind": "label_mean", "half_life": "30m"},
    {"name": "latest", "key": "c", "kind": "label_last"},
]
NAMES = [one["name"] for one in PER_KEY]
PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def project_in(folder, task="binary", max_keys=100, **changes):
    per_key = [{**one, "outcome": "high"} if (task, one["name"]) == ("multiclass", "rate") else one for one in PER_KEY]
    fields = {"x": "number", "z": "number", "c": {"type": "category", "max_categories": 4}, "d": "category"}
    return make_project(
        folder,
        task,
        **{"fields": fields, "features": {"per_key": per_key, "max_keys": max_keys}, "online": ["linear", "prior"]}
        | changes,
    )


def stream(task="binary", count=150, seed=0):
    """Labels late, some before their event, some never; some events twice; a second key now and then missing."""
    draw = random.Random(seed)
    records = []
    for record in easy_stream(task, count, seed, delay=12):
        number, stamp, value = int(record.key[1:]), record.timestamp, record.value
        if record.topic == EVENTS:
            stamp -= (number % 4) * MINUTE
            if number % 3:
                value = value.replace(b'"c":', b'"d": "k", "c":')
        elif number % 5 == 0:
            continue
        else:
            stamp -= (number % 7 == 0) * 20 * MINUTE
        records += [replace(record, timestamp=stamp, value=value)] * (1 + (draw.random() < 0.05))
    return as_raw(sorted(records, key=lambda record: (record.timestamp, record.topic)))


def run_in_pieces(machine, records, sizes):
    outputs, at, turn = [], 0, 0
    while at < len(records):
        size = sizes[turn % len(sizes)]
        outputs += machine.process(records[at : at + size])
        at, turn = at + size, turn + 1
    return outputs


def keyed_of(outputs):
    return {one.id: [one.features[name] for name in NAMES] for one in outputs if isinstance(one, Predicted)}


def test_each_kind_is_what_it_says(tmp_path):
    machine = make_machine(project_in(tmp_path, label={"horizon": "3h"}))
    records = [
        event(0, "e0", START, x=1.0, d="k"),
        event(1, "e1", START + HOUR, x=3.0, d="k"),
        label(0, "e0", START + 61 * MINUTE, 1),
        event(2, "e2", START + 2 * HOUR, x=5.0, d="k"),
        event(3, "e3", START + 2 * HOUR, c="b", d="k"),
        event(4, "e4", START + 2 * HOUR, c=None),
    ]
    first, second, third, other, none = (
        [one.features[name] for name in NAMES] for one in outputs_of(machine, records, Predicted)
    )
    assert first == other == [0.0, None, None, None, 0.0, None, None]
    assert second == [0.5, 3600.0, None, 1.0, 0.0, None, None], "its own values are not in it"
    assert third == [0.75, 3600.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    assert none == [None] * 7


def test_a_label_counts_from_when_it_is_known_and_fades_with_the_time_of_its_event(tmp_path):
    machine = make_machine(project_in(tmp_path))
    records = [
        event(0, "e0", START),
        event(1, "e1", START + 30 * MINUTE),
        label(0, "e1", START + 31 * MINUTE, 0),
        event(2, "e2", START + 32 * MINUTE),
        label(1, "e0", START + 33 * MINUTE, 1),
        event(3, "e3", START + 34 * MINUTE),
    ]
    rates = [one.features["rate"] for one in outputs_of(machine, records, Predicted)]
    assert rates == [None, None, 0.0, pytest.approx(0.5 / 1.5)]


def test_a_key_is_told_apart_beyond_the_bound_on_categories(tmp_path):
    machine = make_machine(project_in(tmp_path))
    names = [f"c{number}" for number in range(30)] * 2
    records = [event(number, f"e{number}", START + number, c=name) for number, name in enumerate(names)]
    made = outputs_of(machine, records, Predicted)
    assert [one.features["usual"] for one in made[30:]] == [0.5] * 30
    assert made[-1].features["c"] == "<other>"


def test_the_key_touched_longest_ago_is_forgotten(tmp_path):
    machine = make_machine(project_in(tmp_path, max_keys=2))
    order = ["a", "b", "a", "c", "a", "b"]
    records = [event(number, f"e{number}", START + number, c=name) for number, name in enumerate(order)]
    made = outputs_of(machine, records, Predicted)
    assert [one.features["usual"] is not None for one in made] == [False, False, True, False, True, False]
    assert machine.state.keyed.keys == 2
    assert machine.state.keyed.forgotten == 2


@pytest.mark.parametrize("missing", [None, 0])
def test_the_same_whatever_the_batches_with_a_champion_that_sees_them(tmp_path, missing):
    horizon = {"label": {"horizon": "25m", **({} if missing is None else {"missing": missing})}}
    project, records = project_in(tmp_path, max_keys=5, **horizon), stream()

    def answer(row):
        if row["n"] > 12:
            raise ArithmeticError
        return 0.1 + 0.8 * (row["rate"] or 0.0)

    def run(sizes):
        machine = make_machine(project)
        machine.swap(FakeChampion(answer=answer))
        machine.follow("challenger", FakeChampion(2, lambda row: 0.5 / (1.0 + row["n"])))
        outputs = run_in_pieces(machine, records, sizes)
        return digest(machine.state), digest(outputs), machine.models.champion_failures, machine.models.shadow_failures

    expected = run([1])

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(PIECES)
    def check(sizes):
        assert run(sizes) == expected

    check()


def test_guesses_are_right_so_that_the_champion_is_asked_about_batches(tmp_path):
    project = project_in(tmp_path, label={"horizon": "25m", "missing": 0})
    calls = []

    class Counting(FakeChampion):
        def predict(self, rows):
            calls.append(len(rows))
            return super().predict(rows)

    machine = make_machine(project)
    machine.swap(Counting())
    records = stream()
    for start in range(0, len(records), 50):
        machine.process(records[start : start + 50])
    assert len(calls) == -(-len(records) // 50)


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, 280), task=st.sampled_from(TASKS))
def test_a_state_that_was_kept_goes_on_to_the_bit(tmp_path_factory, cut, task):
    project, records = project_in(tmp_path_factory.mktemp("p"), task), stream(task)
    whole, first = make_machine(project), make_machine(project)
    expected = whole.process(records)[len(first.process(records[:cut])) :]
    kept = pickle.loads(pickle.dumps(first.state))
    for expert, fresh in zip(kept.experts, build_experts(project), strict=True):
        expert.attach(fresh)
    second = Machine(project.settings, first._features, kept)
    assert digest(second.process(records[cut:])) == digest(expected)
    assert digest(second.state) == digest(whole.state)


KEY_EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 10**7), st.floats(-1e3, 1e3), st.booleans()), max_size=40
)


@given(KEY_EVENTS)
def test_reading_changes_nothing_and_a_copy_that_goes_ahead_neither(some_settings, happenings):
    keyed = KeyedFeatures.of(some_settings)
    for name, time, value, is_label in happenings:
        keys, before = {"c": name, "d": "k"}, pickle.dumps(keyed)
        ahead = keyed.ahead()
        for one in (ahead, keyed):
            if is_label:
                one.observe_label(keys, time, int(value > 0))
            else:
                one.observe_event(keys, time, {"x": value})
        known = keyed.features(keys, time)
        assert ahead.features(keys, time) == known
        kept = pickle.loads(before)
        assert pickle.loads(pickle.dumps(keyed)).features(keys, time) == known
        kept.ahead().observe_label(keys, time, 1)
        assert digest(kept) == digest(pickle.loads(before))
        assert known["rate"] is None or 0.0 <= known["rate"] <= 1.0
        assert known["n"] >= 0.0


@pytest.fixture(scope="module")
def some_settings(tmp_path_factory):
    return project_in(tmp_path_factory.mktemp("p")).settings


def worked(project, records, keeps=()):
    machine = make_machine(project)
    writer, checkpoints = TableWriter(TableStore(project.tables), project.settings, 0), Checkpoints(project)
    for number, record in enumerate(records):
        writer.add(machine.process([record]))
        if number in keeps:
            writer.flush(machine.state.step)
            checkpoints.save(0, Snapshot(machine.state, "c", term=1))
    writer.flush(machine.state.step)
    return machine


@pytest.mark.parametrize("task", TASKS)
def test_what_was_served_is_in_the_tables_and_a_rebuilt_state_is_the_same(tmp_path, task):
    project, records = project_in(tmp_path, task, max_keys=4), stream(task)
    machine = worked(project, records)
    Checkpoints(project).save(0, Snapshot(machine.state, "c", term=2))
    served = keyed_of(make_machine(project).process(records))
    for row in rows_of(project, EXAMPLES):
        assert [row[f"f_{name}"] for name in NAMES] == served[row["id"]]
        assert row["k_c"] in set("abcdef")
    rebuild(project, 0, Checkpoints(project), lambda done, total: None)
    assert digest(Checkpoints(project).load(0).state.keyed) == digest(machine.state.keyed)


def test_a_window_that_is_unlearned_is_in_no_feature_from_then_on(tmp_path):
    windows = {"windows": {"span": "1h"}, "drift": {"quarantine_windows": 3}}
    project, records = project_in(tmp_path, **windows), stream(count=240)
    origin = START // HOUR * HOUR
    broken = (origin + 2 * HOUR, origin + 3 * HOUR)
    machine = worked(project, records, keeps=[90])
    one = Unlearner(project, 0, Checkpoints(project), Phases())
    one.unlearn(machine.state, one.plan([broken], []))

    without = make_machine(project)
    without.state.unlearned = [broken]
    for record in records:
        without.process([record])
    assert digest(machine.state.keyed) == digest(without.state.keyed)
    assert digest(machine.state.keyed) != digest(make_and_run(project, records).state.keyed)


def make_and_run(project, records):
    machine = make_machine(project)
    machine.process(records)
    return machine


def test_topics_with_more_partitions_than_declared_are_refused(tmp_path):
    project, broker = project_in(tmp_path), MemoryBroker()
    broker.create_topics({EVENTS: 3, LABELS: 3})
    with pytest.raises(TopicError, match=r"spread over 3 partitions.*topics.key|topics: \{key: c\}"):
        ensure_topics(broker, project.settings)
    keyed = make_project(
        tmp_path / "b",
        topics={"key": "c"},
        features={"per_key": [{"name": "n", "key": ["c"], "kind": "count"}]},
    )
    assert ensure_topics(broker, keyed.settings)[1] == 3
