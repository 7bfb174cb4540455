"""Champions that come, go and answer nonsense, and experts that go wrong: none reaches what is served."""

from __future__ import annotations

import math

import pytest
from stream_lab import (
    MINUTE,
    START,
    FakeChampion,
    as_raw,
    easy_stream,
    event,
    label,
    make_machine,
    make_project,
    outcome_of,
    outputs_of,
)

from streaming.join import Predicted

HOUR = 60 * MINUTE


def test_a_swap_between_two_records_loses_and_repeats_nothing(tmp_path):
    machine = make_machine(make_project(tmp_path))
    records = [event(n, f"e{n}", START + n) for n in range(10)]
    outputs = machine.process(records[:4])
    machine.swap(FakeChampion(7, lambda row: 0.9))
    outputs += machine.process(records[4:8])
    machine.swap(None)
    outputs += machine.process(records[8:])
    assert [o.id for o in outputs] == [f"e{n}" for n in range(10)]
    assert [o.champion_version for o in outputs] == [None] * 4 + [7] * 4 + [None] * 2
    assert [o.predictions.get("champion") for o in outputs] == [None] * 4 + [0.9] * 4 + [None] * 2


@pytest.mark.parametrize(
    ("task", "nonsense"),
    [
        ("binary", [math.nan, math.inf, -0.5, 7.3, 1e300, None, "0.5", True, {"a": 1.0}]),
        ("multiclass", [{}, {"a": math.nan}, {"a": 2.0}, {"a": "x"}, {1: 0.5}, 0.5, None]),
        ("regression", [math.nan, -math.inf, 1e300, 1e13, None, "1", {"a": 1.0}]),
    ],
)
def test_a_champion_that_answers_nonsense_is_silenced(tmp_path, task, nonsense):
    machine = make_machine(make_project(tmp_path, task, online=["prior"]))
    machine.process([event(0, "warm", START), label(0, "warm", START, outcome_of(task, 0.1, 0.0))])
    answers = iter(nonsense)
    machine.swap(FakeChampion(1, lambda row: next(answers)))
    made = outputs_of(machine, [event(n + 1, f"e{n}", START) for n in range(len(nonsense))], Predicted)
    assert all(p.predictions.keys() == {"prior"} and p.champion_version is None for p in made)
    assert machine.models.champion_failures == len(nonsense)


def test_a_champion_of_a_regression_is_held_near_the_labels_seen(tmp_path):
    machine = make_machine(make_project(tmp_path, "regression"))
    machine.process(as_raw(easy_stream("regression", 60)))
    machine.swap(FakeChampion(1, lambda row: 1e9))
    (made,) = outputs_of(machine, [event(999, "e", START + 90 * MINUTE)], Predicted)
    assert "champion" not in made.predictions
    assert 0 < made.served < 20


@pytest.mark.parametrize("wrong", [[], [0.5] * 3])
def test_a_champion_that_raises_or_returns_too_few_rows_stops_nothing(tmp_path, wrong):
    class Broken(FakeChampion):
        def predict(self, rows):
            if wrong:
                return wrong
            raise MemoryError

    machine = make_machine(make_project(tmp_path))
    machine.swap(Broken())
    made = outputs_of(machine, [event(n, f"e{n}", START) for n in range(5)], Predicted)
    assert [p.predictions.keys() for p in made] == [{"prior"}] * 5
    assert machine.models.champion_failures == 5


# experts that go wrong

BROKEN = """
import math
class Broken:
    answers = []
    def predict(self, features):
        answer = Broken.answers[int(features['x']) % len(Broken.answers)]
        if isinstance(answer, type):
            raise answer('broken')
        return answer
    def learn(self, features, outcome):
        pass

class CannotLearn:
    made = 0
    def __init__(self):
        CannotLearn.made += 1
    def predict(self, features):
        return 0.5
    def learn(self, features, outcome):
        raise KeyError('missing')
"""


@pytest.mark.parametrize(
    "answer", [math.inf, -math.inf, math.nan, 1e300, "x", [], ValueError, KeyError, TypeError, OverflowError]
)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_an_expert_that_goes_wrong_never_reaches_what_is_served(tmp_path, task, answer):
    online = [{"name": "broken", "factory": "code.py:Broken"}, "prior"]
    project = make_project(tmp_path / task, task, code=BROKEN, online=online)
    project.load_function("code.py:Broken").answers[:] = [answer]
    machine = make_machine(project)
    records = []
    for number in range(25):
        outcome = outcome_of(task, 0.1 * (number % 3), 0.0)
        records += [event(number, f"e{number}", START, x=number), label(number, f"e{number}", START, outcome)]
    made = outputs_of(machine, records, Predicted)
    assert len(made) == 25
    assert all("broken" not in p.predictions for p in made)
    assert all(
        p.served == p.predictions.get("prior") or p.served == pytest.approx(p.predictions["prior"], abs=0.1)
        for p in made
        if p.predictions
    )
    assert machine.state.experts[0].silenced == 25
    assert machine.state.experts[0].resets == 2


def test_an_expert_that_cannot_learn_is_reset(tmp_path):
    online = [{"name": "broken", "factory": "code.py:CannotLearn"}]
    project = make_project(tmp_path, code=BROKEN, online=online)
    machine = make_machine(project)
    machine.process([event(0, "a", START), label(0, "a", START, 1)])
    assert machine.state.experts[0].resets == 1
    assert machine.state.books.labels.joined == 1


def test_a_linear_regression_that_blows_up_is_reset(tmp_path):
    online = [
        {"name": "wild", "factory": "river.linear_model.LinearRegression", "params": {"intercept_lr": 0.9}},
        "prior",
    ]
    fields = {"x": "number"}
    machine = make_machine(make_project(tmp_path, "regression", online=online, fields=fields))
    records = []
    for number in range(200):
        x = 1000.0 * math.sin(number)
        records += [event(number, f"e{number}", START, x=x), label(number, f"e{number}", START, 5.0 + math.sin(number))]
    made = outputs_of(machine, records, Predicted)
    assert machine.state.experts[0].resets > 0
    assert all(0 <= p.served <= 12 for p in made if p.served is not None)
