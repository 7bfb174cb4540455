"""What a partition's machine does with an event, a label and the time: the order of it, and the books."""

from __future__ import annotations

import math
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
    FakeChampion,
    as_raw,
    digest,
    easy_stream,
    event,
    label,
    make_machine,
    make_project,
    outputs_of,
    raw,
)

from core.metrics import loss
from streaming.join import Predicted
from streaming.outputs import Correction, DeadLetter, Example
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

        def spy(*args, name=name, original=original, **others):
            order.append(name)
            return original(*args, **others)

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
