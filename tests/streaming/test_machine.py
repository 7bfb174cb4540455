from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
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
    outcome_of,
    raw,
)

from core.metrics import loss
from streaming.experts import build_experts
from streaming.join import Predicted
from streaming.machine import Correction, DeadLetter, Example, Machine
from streaming.serving import SERVED

HOUR = 60 * MINUTE
REMEMBERS = """
class Remembers:
    '''Knows every outcome it has learned, and nothing else.'''
    def __init__(self):
        self.known = {}
    def predict(self, features):
        return self.known.get(features['x'], 0.5)
    def learn(self, features, outcome):
        self.known[features['x']] = 0.999 if outcome else 0.001

class Log:
    '''Says in which order it was asked and taught.'''
    calls = []
    def predict(self, features):
        Log.calls.append(('predict', features['x']))
        return 0.5
    def learn(self, features, outcome):
        Log.calls.append(('learn', features['x']))
"""


def outputs_of(machine: Machine, records, kind):
    return [output for output in machine.process(records) if isinstance(output, kind)]


# predict, score, learn


def test_an_example_is_scored_with_what_was_predicted_before_it_was_learned(tmp_path):
    project = make_project(tmp_path, code=REMEMBERS, online=[{"name": "memory", "factory": "code.py:Remembers"}])
    machine = make_machine(project)
    for number in range(20):  # the label first: event, score and learning happen in one step
        machine.process([label(number, f"e{number}", START, number % 2), event(number, f"e{number}", START, x=number)])
    machine.process([event(99, "late", START, x=99.0), label(99, "late", START, 1)])
    scores = machine.state.scores
    assert scores.rows == 21
    # had it learned before it was asked or scored, its loss would be almost nothing
    assert scores.means()["memory"] == pytest.approx(-math.log(0.5))
    assert machine.state.experts[0].predict({"x": 99.0}) == 0.999, "but it has learned"


def test_the_weights_move_by_the_score_before_learning(tmp_path, monkeypatch):
    machine = make_machine(make_project(tmp_path))
    order = []
    state = machine.state
    for target, method in ((state.scores, "add"), (state.blend, "update"), *((e, "learn") for e in state.experts)):
        original = getattr(target, method)
        name = getattr(target, "name", type(target).__name__)

        def spy(*args, name=name, original=original):
            order.append(name)
            return original(*args)

        monkeypatch.setattr(target, method, spy)
    machine.process([event(0, "a", START), label(0, "a", START + 1, 1)])
    assert order == ["Scores", "Blend", "linear", "prior"]


def test_scores_are_the_prequential_losses_of_the_published_predictions(tmp_path):
    machine = make_machine(make_project(tmp_path, online=["prior", "no_change"]))
    examples = outputs_of(machine, as_raw(easy_stream("binary", 200)), Example)
    names = examples[-1].predicted.predictions.keys()
    scored = [e for e in examples if e.predicted.predictions.keys() == names]
    assert machine.state.scores.rows == len(scored)
    served = [loss(e.predicted.served, e.outcome) for e in scored]
    assert machine.state.scores.means()[SERVED] == pytest.approx(sum(served) / len(served))


# features once


def test_features_are_computed_once_an_event_and_read_ever_after(tmp_path):
    code = (
        "calls = []\ndef make(fields):\n    calls.append(fields['x'])\n    return {'n': float(len(calls))}\n"
        + REMEMBERS
    )
    online = [{"name": "log", "factory": "code.py:Log"}]
    features = {"function": "code.py:make", "outputs": {"n": "number", "x": "number"}}
    code = code.replace("{'n': float(len(calls))}", "{'n': float(len(calls)), 'x': fields['x']}")
    project = make_project(tmp_path, code=code, online=online, features=features)
    machine = make_machine(project)
    champion = FakeChampion()
    machine.swap(champion)
    records = [event(n, f"e{n}", START, x=n) for n in range(5)] + [label(n, f"e{n}", START, 1) for n in range(5)]
    outputs = machine.process(records)
    made = project.load_function("code.py:make").__globals__["calls"]
    assert made == [0, 1, 2, 3, 4]
    assert champion.rows == 5
    predicted = [o.features for o in outputs if isinstance(o, Predicted)]
    learned = [o.predicted.features for o in outputs if isinstance(o, Example)]
    assert [f["n"] for f in predicted] == [1, 2, 3, 4, 5]
    assert all(a is b for a, b in zip(predicted, learned, strict=True))
    log = project.load_function("code.py:Log").calls
    assert log == [("predict", n) for n in range(5)] + [("learn", n) for n in range(5)]


def test_a_feature_function_that_fails_makes_one_dead_letter(tmp_path):
    code = "def make(fields):\n    return {'n': 1 / fields['x']}\n"
    machine = make_machine(
        make_project(tmp_path, code=code, features={"function": "code.py:make", "outputs": {"n": "number"}})
    )
    outputs = machine.process([event(0, "a", START, x=0), event(1, "b", START, x=1), event(2, "a", START, x=1)])
    assert [type(output) for output in outputs] == [DeadLetter, Predicted, Predicted]
    assert outputs[0].bad.reason == "feature_error"
    assert "ZeroDivisionError" in outputs[0].bad.detail
    assert machine.state.books.imbalances() == []


def test_categories_beyond_the_bound_are_one(tmp_path):
    machine = make_machine(make_project(tmp_path))
    made = outputs_of(machine, [event(n, f"e{n}", START, c=f"c{n}") for n in range(8)], Predicted)
    assert [p.features["c"] for p in made] == ["c0", "c1", "c2", "c3"] + ["<other>"] * 4


# deterministic

PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def run_in_pieces(machine: Machine, records, sizes):
    outputs, at, turn = [], 0, 0
    while at < len(records):
        size = sizes[turn % len(sizes)]
        outputs += machine.process(records[at : at + size])
        at, turn = at + size, turn + 1
    return outputs


def flaky(row):
    """A champion that fails, or answers nonsense, on some rows."""
    if row["x"] > 0.9:
        raise ArithmeticError
    return math.nan if row["x"] < -0.9 else 0.5 + 0.4 * row["x"]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_records_give_the_same_bits_in_any_batches(tmp_path, task):
    project = make_project(tmp_path, task, online=["linear", "prior", "no_change"])
    records = as_raw(easy_stream(task, 120))
    answer = (lambda row: {"low": 0.2, "mid": 0.5, "high": flaky(row)}) if task == "multiclass" else flaky

    def run(sizes):
        machine = make_machine(project)
        machine.swap(FakeChampion(answer=answer))
        outputs = run_in_pieces(machine, records, sizes)
        return digest(machine.state), digest(outputs), machine.champion_failures

    expected = run([1])
    assert expected[2] > 0

    @settings(max_examples=8, deadline=None)
    @given(PIECES)
    def check(sizes):
        assert run(sizes) == expected

    check()


@pytest.mark.parametrize("expert", ["tree", "forest"])
def test_trees_are_deterministic_too(tmp_path, expert):
    project = make_project(tmp_path, online=[expert])
    records = as_raw(easy_stream("binary", 150))
    machines = [make_machine(project) for _ in range(2)]
    runs = [run_in_pieces(machine, records, [size]) for machine, size in zip(machines, (1, 64), strict=True)]
    assert digest(runs[0]) == digest(runs[1])
    assert digest(machines[0].state) == digest(machines[1].state)


@pytest.mark.parametrize("task", TASKS)
def test_a_state_that_was_kept_goes_on_as_if_nothing_had_happened(tmp_path, task):
    project = make_project(tmp_path, task, online=["linear", "tree", "prior", "no_change"])
    records = as_raw(easy_stream(task, 200))
    whole, first = make_machine(project), make_machine(project)
    expected = whole.process(records)[len(first.process(records[:170])) :]
    kept = pickle.loads(pickle.dumps(first.state))
    for expert, fresh in zip(kept.experts, build_experts(project), strict=True):
        expert.attach(fresh)
    second = Machine(project.settings, first._features, kept)
    assert digest(second.process(records[170:])) == digest(expected)
    assert digest(second.state) == digest(whole.state)


IN_A_PROCESS = """
import sys, tempfile, pickle, pathlib
sys.path[:0] = sys.argv[1:3]
from stream_lab import *
from streaming.machine import Machine, Predicted
online = ["linear", "tree", "forest", "prior", "no_change"]
project = make_project(pathlib.Path(sys.argv[3]), "multiclass", online=online)
records, machine = as_raw(easy_stream("multiclass", 150)), make_machine(project)
outputs = machine.process(records[:170])
kept = pickle.loads(pickle.dumps(machine.state))
outputs += Machine(project.settings, machine._features, kept).process(records[170:])
print(digest([(o.predictions, o.served) for o in outputs if isinstance(o, Predicted)]))
"""


def test_the_same_bits_in_every_process_whatever_its_hash_seed(tmp_path):
    here = Path(__file__)
    command = [sys.executable, "-c", IN_A_PROCESS, str(here.parent), str(here.parents[2])]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / seed)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "12", "77")
    ]
    assert len({process.communicate(timeout=100)[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_the_digest_sees_a_single_bit(tmp_path):
    machine = make_machine(make_project(tmp_path))
    machine.process(as_raw(easy_stream("binary", 30)))
    before = digest(machine.state)
    assert digest(pickle.loads(pickle.dumps(machine.state))) == before
    weights = machine.state.blend._weights
    weights[0, 0] = math.nextafter(weights[0, 0], 2)
    assert digest(machine.state) != before


# the champion


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
    assert machine.champion_failures == len(nonsense)


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
    assert machine.champion_failures == 5


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


# labels


def test_a_missing_label_is_implied_at_the_horizon(tmp_path):
    machine = make_machine(make_project(tmp_path, label={"missing": 0}))
    machine.process([event(0, "a", START), event(1, "b", START + MINUTE)])
    assert outputs_of(machine, [event(2, "c", START + HOUR)], Example) == []
    (example,) = outputs_of(machine, [event(3, "d", START + HOUR + 1)], Example)
    assert (example.predicted.id, example.outcome, example.implied) == ("a", 0, True)
    assert (example.label_time, example.label_clock, example.step) == (START + HOUR, START + HOUR + 1, 4)
    late = machine.process([label(0, "a", START + HOUR + 2, 1)])
    assert late == []
    books = machine.state.books
    assert (books.events.implied, books.labels.late, books.events.expired) == (1, 1, 0)
    assert books.imbalances() == []
    assert machine.state.scores.rows == 1, "it was learned once"


def test_without_an_implied_outcome_events_expire_unlearned(tmp_path):
    machine = make_machine(make_project(tmp_path))
    machine.process([event(0, "a", START), event(1, "b", START + HOUR + 1)])
    assert (machine.state.books.events.expired, machine.state.scores.rows) == (1, 0)


def test_a_contradicting_label_is_kept_and_not_learned(tmp_path):
    machine = make_machine(make_project(tmp_path))
    first = [event(0, "a", START), label(0, "a", START + 1, 1)]
    machine.process(first)
    before = digest(machine.state.experts), digest(machine.state.blend)
    outputs = machine.process([label(1, "a", START + 2, 1), label(2, "a", START + 3, 0)])
    (correction,) = outputs
    assert isinstance(correction, Correction)
    assert (correction.label.outcome, correction.label_clock) == (0, START + 3)
    assert (digest(machine.state.experts), digest(machine.state.blend)) == before
    assert (machine.state.books.labels.duplicates, machine.state.books.labels.corrected) == (1, 1)


def test_a_repeated_event_is_predicted_once(tmp_path):
    machine = make_machine(make_project(tmp_path))
    twice = [event(0, "a", START), event(1, "a", START, x=9), label(0, "a", START, 1), event(2, "a", START)]
    assert len(outputs_of(machine, twice, Predicted)) == 1
    assert (machine.state.books.events.duplicates, machine.state.books.events.received) == (2, 3)


def test_the_clock_never_goes_back_nor_follows_an_absurd_time_stamp(tmp_path):
    machine = make_machine(make_project(tmp_path))
    clocks = []
    for offset, stamp in enumerate([START + 5, START, -1, 10**18, START + 6]):
        machine.process([event(offset, f"e{offset}", START, stamp=stamp)])
        clocks.append(machine.state.clock)
    assert clocks == [START + 5] * 4 + [START + 6]
    assert machine.state.positions == {EVENTS: 5}
    assert machine.state.books.reasons == {"bad_time": 2}


def test_a_clock_record_moves_time_and_is_in_no_book(tmp_path):
    machine = make_machine(make_project(tmp_path, label={"missing": 1}))
    machine.process([event(0, "a", START)])
    outputs = machine.tick(raw(LABELS, 0, START + 2 * HOUR, None), START + 2 * HOUR)
    assert [output.implied for output in outputs] == [True]
    assert machine.state.books.events.received == 1
    assert machine.state.books.imbalances() == []
    assert (machine.state.step, machine.state.positions) == (2, {EVENTS: 1, LABELS: 1})


# the books, whatever comes

PROJECTS: dict[str, object] = {}
ids = st.sampled_from([f"i{n}" for n in range(6)])
good_events = st.builds(
    lambda i, t: ("event", {"id": i, "at": START + t * MINUTE, "x": 1, "z": None, "c": i}), ids, st.integers(0, 9)
)
good_labels = st.builds(lambda i, y: ("label", {"id": i, "y": y}), ids, st.sampled_from([0, 1]))
bad = st.tuples(
    st.sampled_from(["event", "label"]),
    st.sampled_from(
        [None, b"", b"{", {}, {"id": "i0", "at": "x"}, {"id": "i0", "at": START, "x": "1"}, {"id": "i0", "y": 3}]
    ),
)
steps = st.lists(st.tuples(good_events | good_labels | bad, st.integers(-30, 40)), max_size=60)


@settings(max_examples=120, deadline=None)
@given(steps, st.sampled_from([None, 0]), st.integers(1, 4))
def test_the_books_balance_whatever_comes(tmp_path_factory, rows, missing, room):
    key = f"{missing}-{room}"
    if key not in PROJECTS:
        folder: Path = tmp_path_factory.mktemp("books")
        state = {"max_pending": room}
        PROJECTS[key] = make_project(folder, online=["prior"], label={"missing": missing}, state=state)
    machine = make_machine(PROJECTS[key])
    offsets: Counter[str] = Counter()
    stamp, outputs = START, []
    for (kind, value), minutes in rows:
        stamp += minutes * MINUTE
        topic = EVENTS if kind == "event" else LABELS
        made = machine.process([raw(topic, offsets[topic], stamp, value)])
        outputs += made
        offsets[topic] += 1
        books = machine.state.books
        assert books.imbalances() == []
        assert machine.state.join.pending <= room + 1
    books = machine.state.books
    assert (books.events.received, books.labels.received) == (offsets[EVENTS], offsets[LABELS])
    kinds = Counter(type(output) for output in outputs)
    assert kinds[Predicted] == books.events.predicted
    assert kinds[Example] == books.events.joined + books.events.implied
    assert kinds[DeadLetter] == sum(books.reasons.values())
    assert kinds[Correction] == books.labels.corrected
    assert machine.state.step == len(rows)


def test_what_the_feature_function_makes_of_categories_is_bounded_like_fields(tmp_path):
    code = "def make(fields):\n    return {'pair': f\"{fields['x']}\", 'note': f\"{fields['x']}\"}\n"
    made = {"function": "code.py:make", "outputs": {"pair": "category", "note": "text"}, "max_categories": 3}
    machine = make_machine(make_project(tmp_path, code=code, features=made))
    outputs = machine.process([event(n, f"e{n}", START + n, x=float(n)) for n in range(5)])
    assert [output.features["pair"] for output in outputs] == ["0.0", "1.0", "2.0", "<other>", "<other>"]
    assert [output.features["note"] for output in outputs] == ["0.0", "1.0", "2.0", "3.0", "4.0"]


def test_a_label_of_one_class_too_many_is_a_dead_letter(tmp_path):
    machine = make_machine(make_project(tmp_path, "multiclass", label={"max_classes": 2}))
    machine.process([event(n, f"e{n}", START + n) for n in range(4)])
    outputs = machine.process([label(n, f"e{n}", START + 9, name) for n, name in enumerate(["a", "b", "c", "a"])])
    assert [type(output).__name__ for output in outputs] == ["Example", "Example", "DeadLetter", "Example"]
    assert (outputs[2].bad.reason, "label.max_classes" in outputs[2].bad.detail) == ("bad_label", True)
    assert machine.state.books.labels.dead_lettered == machine.state.books.reasons["bad_label"] == 1
    assert machine.state.books.imbalances() == []
