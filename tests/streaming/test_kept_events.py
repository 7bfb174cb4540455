"""Some events are kept as their feature function got them, so that a retraining can make their features again."""

from __future__ import annotations

from pathlib import Path

import pytest
from stream_lab import as_raw, easy_stream, make_machine, make_project

from core.features import FeatureFunction, load_features
from core.project import Project
from core.removal import remove_id
from core.store import TableStore
from core.tables import EVENTS, EXAMPLES, events_schema
from flows.examples import as_examples
from flows.parity import judge_parity, kept_events, parity_gate
from streaming.table_writer import TableWriter

CODE = """
def made(fields, time):
    return {"sum": fields["x"] + fields["z"], "minute": time // 60_000 % 60, "c": fields["c"], "gone": None}
"""
MADE = {"function": "code.py:made", "max_categories": 2}
OUTPUTS = {"sum": "number", "minute": "number", "c": "category", "gone": "number"}


def streamed(folder: Path, kept: int, again: int = 1) -> tuple[Project, TableStore]:
    project = make_project(
        folder, code=CODE, online=["prior"], features={**MADE, "outputs": OUTPUTS}, state={"kept_events": kept}
    )
    store = TableStore(project.tables)
    for _ in range(again):
        machine, writer = make_machine(project), TableWriter(store, project.settings, 0)
        writer.add(machine.process(as_raw(easy_stream("binary", 200))))
        writer.flush(machine.state.step)
    return project, store


def test_kept_events_make_the_features_that_were_stored(tmp_path: Path):
    project, store = streamed(tmp_path, kept=1)
    rows = as_examples(store.read(EXAMPLES).sort_by("event_time"), project.settings)
    assert "<other>" in store.read(EXAMPLES)["f_c"].to_pylist(), "the bound of a category is part of it"
    result = parity_gate(project, store, rows)
    assert result.passed, result.reason
    assert result.reason == "0 of 200 rows have other features when made again"


def test_one_of_so_many_is_kept_the_same_ones_when_it_is_repeated(tmp_path: Path):
    _, store = streamed(tmp_path / "a", kept=10, again=2)
    _, other = streamed(tmp_path / "b", kept=10)
    kept = store.read(EVENTS)["id"].to_pylist()
    assert 5 <= len(kept) <= 40
    assert len(set(kept)) == len(kept)
    assert kept == other.read(EVENTS)["id"].to_pylist()
    assert store.read(EVENTS).schema.names == events_schema(make_project(tmp_path / "a2").settings).names


def test_without_a_feature_function_nothing_is_kept(tmp_path: Path):
    project = make_project(tmp_path, online=["prior"], state={"kept_events": 1})
    store, machine = TableStore(project.tables), make_machine(project)
    writer = TableWriter(store, project.settings, 0)
    writer.add(machine.process(as_raw(easy_stream("binary", 20))))
    writer.flush(machine.state.step)
    assert not store.exists(EVENTS)
    rows = as_examples(store.read(EXAMPLES), project.settings)
    assert parity_gate(project, store, rows).passed


def test_the_sample_is_even_and_bounded(tmp_path: Path):
    project, store = streamed(tmp_path, kept=1)
    limits = project.settings.gates.model_copy(update={"parity_rows": 5})
    few = project.settings.model_copy(update={"gates": limits})
    rows = as_examples(store.read(EXAMPLES).sort_by("event_time"), few)
    assert [one.id for one in kept_events(store, rows, few)] == ["e0", "e50", "e100", "e149", "e199"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made, fields, time: {**made, "sum": made["sum"] + 1e-9}, "feature 'sum' was stored as"),
        (lambda made, fields, time: {**made, "c": None}, "feature 'c' was stored as"),
        (lambda made, fields, time: {**made, "gone": 0.0}, "feature 'gone' was stored as None and is 0.0 now"),
        (lambda made, fields, time: 1 / 0, "the feature function raised ZeroDivisionError"),
    ],
)
def test_a_function_that_was_changed_is_noticed(tmp_path: Path, change, said: str):
    project, store = streamed(tmp_path, kept=1)
    settings = project.settings
    rows = as_examples(store.read(EXAMPLES).sort_by("event_time"), settings)
    known = load_features(project)

    def changed(fields, time):
        return change(known(fields, time), fields, time)

    function = FeatureFunction(changed, settings.feature_kinds, wants_time=True)
    result = judge_parity(kept_events(store, rows, settings), function, settings)
    assert not result.passed
    assert result.value == 1.0
    assert said in result.reason


def test_an_erased_id_and_a_dropped_field_are_not_kept(tmp_path: Path):
    fields = {"x": "number", "z": "number", "c": {"type": "category"}, "who": {"type": "text", "pii": "drop"}}
    project = make_project(
        tmp_path,
        code=CODE,
        online=["prior"],
        fields=fields,
        features={**MADE, "outputs": OUTPUTS},
        state={"kept_events": 1},
    )
    store, machine = TableStore(project.tables), make_machine(project)
    writer = TableWriter(store, project.settings, 0)
    writer.add(machine.process(as_raw(easy_stream("binary", 20))))
    writer.flush(machine.state.step, lambda event_id: event_id == "e3")
    kept = store.read(EVENTS)
    assert "x_who" not in kept.column_names
    assert "e3" not in kept["id"].to_pylist()
    assert remove_id(store, EVENTS, "e5").rows == 1
    assert set(store.read(EVENTS)["id"].to_pylist()) == {f"e{n}" for n in range(20)} - {"e3", "e5"}
    rows = as_examples(store.read(EXAMPLES).sort_by("event_time"), project.settings)
    assert parity_gate(project, store, rows).reason == "0 of 18 rows have other features when made again"
