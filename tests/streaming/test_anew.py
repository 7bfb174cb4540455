"""When a label comes very late, the online experts are asked again before they learn it."""

from __future__ import annotations

import pytest
from stream_lab import MINUTE, START, TASKS, as_raw, digest, easy_stream, event, label, make_machine, make_project

from core.store import TableStore
from core.tables import EXAMPLES, anew_column, prediction_cell
from flows.evaluation import online_blend
from flows.examples import as_examples
from streaming import learning
from streaming.experts import Expert
from streaming.outputs import Example
from streaming.table_writer import TableWriter


@pytest.fixture(autouse=True)
def late_soon(monkeypatch):
    monkeypatch.setattr(learning, "_ASKED_AGAIN_AFTER", 1)


def examples(machine, records):
    return [output for output in machine.process(records) if isinstance(output, Example)]


def test_what_they_say_by_now_is_what_the_next_event_would_be_told(tmp_path):
    machine = make_machine(make_project(tmp_path, label={"horizon": "10h"}))
    machine.process(as_raw(easy_stream("binary", 40)))
    now = START + 60 * MINUTE
    machine.process([event(40 + n, f"w{n}", now + n, x=0.5, z=0.1, c="a") for n in range(3)])
    first, second = examples(machine, [label(90 + n, f"w{n}", now + MINUTE + n, 1) for n in range(2)])
    assert first.anew is None, "nothing was learned since it was predicted"
    assert second.anew is not None
    assert second.anew.keys() == {"linear", "prior"}
    assert second.anew["prior"] > second.predicted.predictions["prior"], "it has learned the first label"
    machine.process([event(60, "twin", now + 2 * MINUTE, x=0.5, z=0.1, c="a")])
    (third,) = examples(machine, [label(92, "w2", now + 3 * MINUTE, 1)])
    twin = machine.state.join.pending_event("twin")
    assert third.anew == {name: said for name, said in twin.predictions.items() if name in third.anew}


def test_nobody_is_asked_again_when_a_label_comes_soon(tmp_path):
    machine = make_machine(make_project(tmp_path))
    made = examples(machine, as_raw(easy_stream("binary", 40, delay=0)))
    assert len(made) == 40
    assert all(example.anew is None for example in made)


@pytest.mark.parametrize("task", TASKS)
def test_the_tables_hold_it(tmp_path, task):
    project = make_project(tmp_path, task)
    machine, store = make_machine(project), TableStore(project.tables)
    writer = TableWriter(store, project.settings, 0)
    outputs = machine.process(as_raw(easy_stream(task, 80, delay=25)))
    writer.add(outputs)
    writer.flush(machine.state.step)
    rows = store.read(EXAMPLES).sort_by("label_step").to_pylist()
    made = [output for output in outputs if isinstance(output, Example)]
    for row, example in zip(rows, made, strict=True):
        for expert in project.settings.online:
            said = (example.anew or {}).get(expert.name)
            assert row[anew_column(expert.name)] == prediction_cell(said)
    assert (sum(example.anew is not None for example in made) > 40) == (task != "regression")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_it_moves_the_blend(tmp_path, task, monkeypatch):
    records, found = as_raw(easy_stream(task, 120, delay=25)), []
    for name in ("asked", "not asked"):
        machine = make_machine(make_project(tmp_path / name, task))
        if name == "not asked":
            monkeypatch.setattr(Expert, "predict_anew", lambda self, features: None)
        machine.process(records)
        found.append((machine.state.blend.weights, digest(machine.state.experts)))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1], "the experts themselves are as they were"


def test_a_gate_blends_as_the_stream_did(tmp_path):
    """Of several classes both experts predict from the first label on, so that all that was served is compared."""
    project = make_project(tmp_path, "multiclass", online=["prior", "no_change"])
    machine, store = make_machine(project), TableStore(project.tables)
    writer = TableWriter(store, project.settings, 0)
    writer.add(machine.process(as_raw(easy_stream("multiclass", 200, delay=25))))
    writer.flush(machine.state.step)
    rows = as_examples(store.read(EXAMPLES).sort_by("step"), project.settings)
    kept, blended = online_blend(project.settings, rows)
    served = rows.predictions("served")
    assert len(kept) > 150
    assert blended == [pytest.approx(served[row]) for row in kept]


def test_only_what_is_said_first_can_reset_an_expert():
    class Broken:
        def predict(self, features):
            raise ValueError("no")

        def learn(self, features, outcome):
            pass

    expert = Expert("mine", Broken, "binary")
    for _ in range(3 * Expert.MAX_STRIKES):
        assert expert.predict_anew({}) is None
    assert (expert.resets, expert.silenced) == (0, 0)
