"""A new champion is judged at once, by labels of what was predicted before it came."""

from __future__ import annotations

import pytest
from stream_lab import (
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
)

from core.blend import Blend
from core.loop_settings import BlendSettings
from core.store import TableStore
from core.tables import EXAMPLES
from streaming.outputs import Example
from streaming.table_writer import TableWriter

ANSWERS = {"binary": 0.9, "regression": 2.5, "multiclass": {"low": 0.25, "high": 0.75}}


def waiting(tmp_path, **changes):
    """A machine that knows a little, three events that wait, and a champion since."""
    machine = make_machine(make_project(tmp_path, **{"label": {"horizon": "10h"}, **changes}))
    machine.process(as_raw(easy_stream("binary", 40)))
    now = START + 60 * MINUTE
    machine.process([event(40 + n, f"w{n}", now + n, x=0.5, z=0.1, c="a") for n in range(3)])
    machine.swap(FakeChampion(1, lambda row: 0.9))
    return machine, now


def learned(machine, records):
    return [output for output in machine.process(records) if isinstance(output, Example)]


def test_the_new_champion_predicts_what_waits_for_the_blend_alone(tmp_path):
    machine, now = waiting(tmp_path)
    (example,) = learned(machine, [label(90, "w0", now + MINUTE, 1)])
    assert example.successor == 0.9
    assert "champion" not in example.predicted.predictions, "what was published stays"
    assert "champion" in machine.state.blend.weights
    assert machine.state.scores.losses.keys() == {"served", "linear", "prior"}


def test_a_label_moves_the_weight_of_the_new_champion(tmp_path):
    weights = {}
    for outcome in (0, 1):
        machine, now = waiting(tmp_path / str(outcome))
        machine.process([label(90 + n, f"w{n}", now + MINUTE, outcome) for n in range(3)])
        weights[outcome] = machine.state.blend.weights["champion"]
    assert weights[0] < weights[1], "0.9 was said"


def test_what_the_champion_itself_predicted_has_no_successor(tmp_path):
    machine, now = waiting(tmp_path)
    machine.process([event(50, "later", now + 9, x=0.5, z=0.1, c="a")])
    (example,) = learned(machine, [label(90, "later", now + MINUTE, 1)])
    assert example.successor is None
    assert example.predicted.predictions["champion"] == 0.9


def test_a_champion_that_is_loaded_again_is_no_new_one(tmp_path):
    machine, now = waiting(tmp_path)
    machine.process([event(50, "later", now + 9, x=0.5, z=0.1, c="a")])
    machine.swap(FakeChampion(1, lambda row: 0.9))
    (example,) = learned(machine, [label(90, "later", now + MINUTE, 1)])
    assert example.successor is None


@pytest.mark.parametrize("answer", [float("nan"), 7.0, "text"])
def test_nonsense_of_the_new_champion_counts_for_nothing(tmp_path, answer):
    machine, now = waiting(tmp_path)
    machine.swap(FakeChampion(2, lambda row: answer))
    (example,) = learned(machine, [label(90, "w0", now + MINUTE, 1)])
    assert example.successor is None


def test_an_outcome_that_is_implied_is_learned_as_it_was_predicted(tmp_path):
    machine, now = waiting(tmp_path, label={"horizon": "10h", "missing": 0})
    examples = learned(machine, [event(60, "end", now + 700 * MINUTE, x=0.5, z=0.1, c="a")])
    assert [example.implied for example in examples] == [True] * 3
    assert all(example.successor is None for example in examples)


@pytest.mark.parametrize("task", TASKS)
def test_batches_of_any_size_lead_to_the_same_state_and_rows(tmp_path, task):
    records, found = as_raw(easy_stream(task, 120, delay=25)), []
    for size in (1, 7, 60):
        project = make_project(tmp_path / str(size), task)
        machine = make_machine(project)
        writer = TableWriter(TableStore(project.tables), project.settings, 0)
        for start in range(0, len(records), 60):
            if start in (60, 120):
                machine.swap(FakeChampion(start, lambda row: ANSWERS[task]))
            for at in range(start, min(start + 60, len(records)), size):
                writer.add(machine.process(records[at : min(at + size, start + 60)]))
        writer.flush(machine.state.step)
        rows = TableStore(project.tables).read(EXAMPLES)
        found.append((digest(machine.state), rows.sort_by("label_step").to_pylist()))
    assert found[0] == found[1] == found[2]
    assert sum(row["successor"] is not None for row in found[0][1]) > 20


def test_what_is_learned_in_hindsight_counts_by_its_share_and_says_nothing_of_trust():
    said = {"a": 0.9, "b": 0.4}
    blends = [Blend("binary", BlendSettings()) for _ in range(2)]
    for blend in blends:
        for _ in range(5):
            blend.update(said, 0)
    before = blends[0].weights["a"]
    blends[0].update(said, 1)
    blends[1].update(said, 1, hindsight=0.5)
    assert before < blends[1].weights["a"] < blends[0].weights["a"]
