"""Shadows: they predict and are not served, cost nothing but themselves, and bring their weights with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_lab import (
    MINUTE,
    START,
    TASKS,
    FakeChampion,
    as_raw,
    digest,
    easy_stream,
    make_machine,
    make_project,
    outputs_of,
)

from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.digest import digest_of
from streaming.join import LabelJoin, Predicted
from streaming.machine import Machine
from streaming.messages import messages_of
from streaming.phases import Phases
from streaming.rebuild import rebuild
from streaming.relearning import Unlearner
from streaming.shadow import Shadowed
from streaming.table_writer import TableWriter

ONE = {"binary": 0.25, "regression": 9.0, "multiclass": {"low": 0.25, "mid": 0.5, "high": 0.25}}
OTHER = {"binary": 0.75, "regression": 11.0, "multiclass": {"low": 0.5, "mid": 0.25, "high": 0.25}}
NONSENSE: dict[str, Callable[[Any], Any]] = {
    "raises": lambda row: 1 / 0,
    "nan": lambda row: math.nan,
    "text": lambda row: "much",
    "none": lambda row: None,
}


def champion(task: str = "binary", version: int = 1) -> FakeChampion:
    return FakeChampion(version, lambda row: ONE[task])


def challenger(task: str = "binary", version: int = 2) -> FakeChampion:
    """Knows more than the champion where it is a matter of x."""
    answers = {"binary": lambda row: 0.8 if row["x"] > 0 else 0.2, "regression": lambda row: 10.0 + 3.0 * row["x"]}
    return FakeChampion(version, answers.get(task, lambda row: OTHER[task]))


def both(task: str) -> Callable[[Machine], None]:
    """Let the champion serve, and the challenger shadow."""

    def begin(machine: Machine) -> None:
        machine.swap(champion(task))
        machine.follow("challenger", challenger(task))

    return begin


def step_through(machine: Machine, records: list[Any], at: dict[int, Callable[[Machine], None]]) -> list[Any]:
    """Step through records in batches of ten at most; before some of them something is done to the machine."""
    outputs, marks = [], sorted({*at, *range(0, len(records), 10), len(records)})
    for start, end in pairwise(marks):
        if start in at:
            at[start](machine)
        outputs += machine.process(records[start:end])
    return outputs


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("what", ["better", *NONSENSE])
def test_a_shadow_changes_nothing_that_is_served_or_learned(tmp_path, task, what):
    records = as_raw(easy_stream(task, 120))
    project = make_project(tmp_path, task)
    plain, shadowed = make_machine(project), make_machine(project)
    model = FakeChampion(2, NONSENSE[what]) if what in NONSENSE else challenger(task)

    expected = step_through(plain, records, {50: lambda one: one.swap(champion(task))})
    given_out = step_through(
        shadowed, records, {20: lambda one: one.follow("challenger", model), 50: lambda one: one.swap(champion(task))}
    )

    assert messages_of(given_out, project.settings) == messages_of(expected, project.settings)
    parts = ("experts", "blend", "plausible", "scores", "books", "vocabulary")
    assert {n: digest_of(getattr(shadowed.state, n)) for n in parts} == {
        n: digest_of(getattr(plain.state, n)) for n in parts
    }


@pytest.mark.parametrize("task", TASKS)
def test_what_it_predicts_waits_with_the_event_and_goes_to_the_tables(tmp_path, task):
    project = make_project(tmp_path, task)
    machine, writer = make_machine(project), TableWriter(TableStore(project.tables), project.settings, 0)
    records = as_raw(easy_stream(task, 60))
    writer.add(step_through(machine, records, {40: lambda one: one.follow("challenger", challenger(task))}))
    writer.flush(machine.state.step)
    own = challenger(task).predict([{"x": -0.5}, {"x": 0.5}])
    for table in (PREDICTIONS, EXAMPLES):
        rows = sorted(TableStore(project.tables).read(table).to_pylist(), key=lambda row: row["step"])
        without, within = rows[:15], rows[-20:]
        assert {row["challenger_version"] for row in without} == {None}
        assert {row["challenger_version"] for row in within} == {2}
        if task == "binary":
            assert {row["p_challenger"] for row in within} == {*own}
        assert all(row["p_with_challenger"] is not None for row in within)
        assert any(row["p_with_challenger"] != row["p_served"] for row in within)
        assert {row["previous_version"] for row in rows} == {None}


@pytest.mark.parametrize("what", NONSENSE)
def test_one_that_fails_is_counted_and_its_blend_is_that_without_it(tmp_path, what):
    machine = make_machine(make_project(tmp_path))
    machine.follow("challenger", FakeChampion(2, NONSENSE[what]))
    made = [
        output
        for output in step_through(machine, as_raw(easy_stream("binary", 60)), {})
        if isinstance(output, Predicted)
    ]
    assert machine.models.shadow_failures == {"challenger": 60}
    assert all(one.shadows["challenger"] == Shadowed(2, None, one.served) for one in made), (
        "there is no champion either"
    )


@pytest.mark.parametrize("task", TASKS)
def test_with_its_promotion_it_is_as_if_it_had_served_all_along(tmp_path, task):
    project, records = make_project(tmp_path, task), as_raw(easy_stream(task, 150))
    shadowed, always = make_machine(project), make_machine(project)

    outputs = step_through(shadowed, records, {0: both(task), 200: lambda one: one.swap(challenger(task))})
    expected = step_through(always, records, {0: lambda one: one.swap(challenger(task)), 200: lambda one: None})

    assert digest(shadowed.state.blend) == digest(always.state.blend)
    made, wanted = ([o for o in found if isinstance(o, Predicted)] for found in (outputs, expected))
    would_be = [one.shadows["challenger"].blended for one in made if one.shadows]
    served, always_served = ([one.served for one in found] for found in (made, wanted))
    until = len(would_be)
    assert would_be == always_served[:until]
    assert served[20:until] != always_served[20:until]
    assert served[until:] == always_served[until:]


@pytest.mark.parametrize("task", TASKS)
def test_a_champion_brought_back_goes_on_as_if_it_had_served_all_along(tmp_path, task):
    project, records = make_project(tmp_path, task), as_raw(easy_stream(task, 200))
    machine, always = make_machine(project), make_machine(project)

    def promote(one: Machine) -> None:
        one.swap(challenger(task))
        one.follow("previous", champion(task))
        one.follow("challenger", None)

    def roll_back(one: Machine) -> None:
        one.swap(champion(task))
        one.follow("previous", challenger(task))

    step_through(machine, records, {0: both(task), 120: promote, 250: roll_back})
    step_through(
        always, records, {0: lambda one: one.swap(champion(task)), 120: lambda one: None, 250: lambda one: None}
    )

    assert digest(machine.state.blend) == digest(always.state.blend)
    assert machine.state.following == {"previous": 2}


def test_a_version_is_asked_once_whatever_its_roles(tmp_path):
    machine, model = make_machine(make_project(tmp_path)), challenger()
    machine.swap(model)
    machine.follow("challenger", model)
    machine.follow("previous", champion())
    made = outputs_of(machine, as_raw(easy_stream("binary", 30)), Predicted)
    assert model.rows == 30
    assert {tuple(one.shadows or ()) for one in made} == {("previous",)}


def test_labels_of_events_before_it_move_its_blend_as_they_move_the_served_one(tmp_path):
    machine = make_machine(make_project(tmp_path))
    records = as_raw(easy_stream("binary", 60, delay=20))
    events = [record for record in records if record.topic.endswith("events")]
    machine.swap(champion())
    machine.process(events[:30])
    machine.follow("challenger", challenger())
    machine.process(events[30:31])
    machine.process([record for record in records if record.topic.endswith("labels")][:30])
    (shadow,) = machine.state.shadows.by_role.values()
    assert shadow.blend is not machine.state.blend
    assert shadow.blend.weights == machine.state.blend.weights


@pytest.mark.parametrize("task", TASKS)
def test_what_waits_is_the_same_from_disk(tmp_path, task):
    join = LabelJoin(100, 1_000)
    join.attach(tmp_path, 1)
    shadows = {"challenger": Shadowed(2, OTHER[task], None), "previous": Shadowed(1, None, ONE[task])}
    events = [Predicted(n, f"e{n}", n, n, 0, n, 1, {}, {}, None, shadows if n % 2 else None) for n in range(9)]
    for one in events:
        join.add_event(one)
    assert join.on_disk > 0
    assert [join.pending_event(one.id) for one in events] == events


actions = st.lists(
    st.tuples(
        st.integers(0, 39), st.sampled_from(["champion", "challenger", "previous"]), st.sampled_from([0, 1, 2, 3])
    ),
    max_size=8,
)


def models() -> dict[int, Any]:
    flaky = FakeChampion(3, lambda row: 0.6 if row["z"] > 0 else math.nan)
    return {0: None, 1: champion(), 2: challenger(), 3: flaky}


def worked(project: Any, records: list[Any], plan: list[tuple[int, str, int]], keeps: set[int]) -> Machine:
    """A machine that stepped through records and a plan of changes, with its rows and some snapshots."""
    machine, writer = make_machine(project), TableWriter(TableStore(project.tables), project.settings, 0)
    known = models()
    for number in range(0, len(records), 10):
        for _, role, version in (one for one in plan if one[0] * 10 == number):
            if role == "champion":
                machine.swap(known[version])
            else:
                machine.follow(role, known[version])
        writer.add(machine.process(records[number : number + 10]))
        if number // 10 in keeps:
            writer.flush(machine.state.step)
            Checkpoints(project).save(0, Snapshot(machine.state, "c", term=1))
    writer.flush(machine.state.step)
    Checkpoints(project).save(0, Snapshot(machine.state, "c", term=1))
    return machine


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=actions, late=st.integers(1, 50))
def test_the_tables_alone_tell_every_blend(tmp_path_factory, plan, late):
    project = make_project(tmp_path_factory.mktemp("rebuild"))
    machine = worked(project, as_raw(easy_stream("binary", 200, delay=late)), plan, set())
    rebuild(project, 0, Checkpoints(project), lambda done, total: None)
    found = Checkpoints(project).load(0)
    assert found is not None
    for part in ("experts", "blend", "shadows", "following"):
        assert digest_of(getattr(found.state, part)) == digest_of(getattr(machine.state, part)), part


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=actions, keeps=st.sets(st.integers(0, 39), max_size=3))
def test_a_window_is_unlearned_from_every_blend_whatever_snapshot_it_begins_with(tmp_path_factory, plan, keeps):
    broken = (START + 60 * MINUTE, START + 120 * MINUTE)
    found = []
    for kept in (set(), keeps):
        project = make_project(tmp_path_factory.mktemp("unlearn"), windows={"span": "1h"})
        machine = worked(project, as_raw(easy_stream("binary", 200, delay=5)), plan, kept)
        one = Unlearner(project, 0, Checkpoints(project), Phases())
        one.unlearn(machine.state, one.plan([broken], []))
        blends = {role: shadow.blend.weights for role, shadow in machine.state.shadows.by_role.items()}
        found.append((machine.state.blend.weights, blends, machine.state.shadows.serving))
    assert found[0] == found[1]


def test_a_snapshot_holds_the_shadows(tmp_path):
    project = make_project(tmp_path)
    records = as_raw(easy_stream("binary", 120))
    machine = worked(project, records[:160], [(0, "champion", 1), (2, "challenger", 2), (4, "previous", 3)], set())
    found = Checkpoints(project).load(0)
    assert found is not None
    restored = replace(found.state)
    for expert, fresh in zip(restored.experts, machine.state.experts, strict=True):
        expert.attach(fresh)
    assert restored.following == {"challenger": 2, "previous": 3}
    other = make_machine(project)
    other.state = restored
    other.swap(champion())
    other.follow("challenger", challenger())
    other.follow("previous", models()[3])
    expected, made = machine.process(records[160:]), other.process(records[160:])
    assert made == expected
    assert digest_of(other.state.shadows) == digest_of(machine.state.shadows)
