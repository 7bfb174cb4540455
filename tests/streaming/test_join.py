from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from core.records import Label
from streaming.join import Fate, LabelJoin, Predicted


def predicted(event_id: str, time: int, clock: int | None = None) -> Predicted:
    return Predicted(1, event_id, time, time if clock is None else clock, 0, 0, None, {}, {}, None)


def test_the_horizon_belongs_to_the_event():
    join = LabelJoin(10, 5)
    join.add_event(predicted("a", 100))
    assert join.advance(110).events == []
    assert join.add_label(Label("a", 110, 1), 110)[0] is Fate.JOINED
    join.add_event(predicted("b", 100))
    assert [event.id for event in join.advance(111).events] == ["b"]
    assert join.add_label(Label("b", 111, 1), 111)[0] is Fate.LATE


def test_an_old_event_waits_a_full_horizon_from_when_it_came():
    join = LabelJoin(10, 5)
    join.add_event(predicted("a", 5, clock=100))
    assert join.advance(110).events == []
    assert len(join.advance(111).events) == 1


def test_a_label_first_joins_and_later_ones_are_told_apart():
    join = LabelJoin(10, 5)
    assert join.add_label(Label("a", 1, 1), 1) == (Fate.WAITING, None)
    assert join.add_label(Label("a", 2, 1), 2)[0] is Fate.DUPLICATE
    assert join.add_label(Label("a", 2, 0), 2)[0] is Fate.CORRECTED
    assert join.add_event(predicted("a", 3)) == Label("a", 1, 1)
    assert join.add_label(Label("a", 4, 1), 4)[0] is Fate.DUPLICATE
    assert join.add_label(Label("a", 4, 0), 4)[0] is Fate.CORRECTED
    assert join.knows("a")
    join.advance(23)
    assert join.knows("a")
    join.advance(24)
    assert not join.knows("a")


def test_when_it_is_full_the_oldest_leave():
    join = LabelJoin(10, 2)
    for number in range(5):
        join.add_event(predicted(f"e{number}", 100 + number))
        join.add_label(Label(f"l{number}", 1, 1), 100 + number)
    gone = join.advance(104)
    assert [event.id for event in gone.events] == ["e0", "e1", "e2"]
    assert (gone.evicted, gone.orphans) == (3, 3)
    assert (join.pending, join.waiting) == (2, 2)


@pytest.mark.parametrize("first", ["event", "label"])
def test_memory_is_bounded_by_what_waits_not_by_what_passed(first):
    join = LabelJoin(10**9, 50)
    for number in range(20_000):
        steps = [
            lambda n=number: join.add_event(predicted(f"e{n}", n)),
            lambda n=number: join.add_label(Label(f"e{n}", n, 1), n),
        ]
        for step in steps if first == "event" else reversed(steps):
            step()
            join.advance(number)
    held = [join.in_memory, *(len(heap) for heap in join._ids._heaps)]
    assert max(held) < 1500, held


class Naive:
    """The rules of the join, written without regard for speed."""

    def __init__(self, horizon: int, most: int) -> None:
        self.horizon, self.most = horizon, most
        self.pending: dict[str, int] = {}
        self.waiting: dict[str, tuple[int, int]] = {}
        self.closed: dict[str, tuple[int, object]] = {}

    def advance(self, clock: int) -> tuple[list[str], int]:
        gone = []
        for event_id in sorted(self.pending, key=lambda e: (self.pending[e], e)):
            if self.pending[event_id] < clock or len(self.pending) > self.most:
                gone.append(event_id)
                self.closed[event_id] = (self.pending.pop(event_id) + self.horizon, None)
        orphans = 0
        for event_id in sorted(self.waiting, key=lambda e: (self.waiting[e][0], e)):
            if self.waiting[event_id][0] < clock or len(self.waiting) > self.most:
                del self.waiting[event_id]
                orphans += 1
        for event_id in sorted(self.closed, key=lambda e: (self.closed[e][0], e)):
            if self.closed[event_id][0] < clock or len(self.closed) > 2 * self.most:
                del self.closed[event_id]
        return gone, orphans

    def add_event(self, event_id: str, time: int, clock: int) -> object:
        deadline = max(time, clock) + self.horizon
        if event_id in self.waiting:
            outcome = self.waiting.pop(event_id)[1]
            self.closed[event_id] = (deadline + self.horizon, outcome)
            return outcome
        self.pending[event_id] = deadline
        return None

    def add_label(self, event_id: str, outcome: int, clock: int) -> Fate:
        if event_id in self.pending:
            self.closed[event_id] = (self.pending.pop(event_id) + self.horizon, outcome)
            return Fate.JOINED
        if event_id in self.closed and self.closed[event_id][1] is None:
            return Fate.LATE
        known = self.closed.get(event_id) or self.waiting.get(event_id)
        if known is not None:
            return Fate.DUPLICATE if known[1] == outcome else Fate.CORRECTED
        self.waiting[event_id] = (clock + self.horizon, outcome)
        return Fate.WAITING


class JoinAgainstNaive(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize(horizon=st.integers(1, 12), most=st.integers(1, 4), memory=st.sampled_from([None, 0, 1, 5]))
    def begin(self, horizon, most, memory):
        self.folder = tempfile.TemporaryDirectory()
        self.memory = memory
        self.join, self.naive, self.clock = LabelJoin(horizon, most), Naive(horizon, most), 100
        self.attach()
        self.events = self.joined = self.gone = self.labels = self.settled = self.orphans = 0
        self.alive: set[str] = set()

    @rule(target=ids, name=st.sampled_from("abcdefgh"))
    def some_id(self, name):
        return name

    @rule(event_id=ids, age=st.integers(-5, 20))
    def an_event(self, event_id, age):
        known = event_id in self.naive.pending or event_id in self.naive.closed
        assert self.join.knows(event_id) == known
        if known:
            return
        time = self.clock - age
        label = self.join.add_event(predicted(event_id, time, self.clock))
        outcome = self.naive.add_event(event_id, time, self.clock)
        assert (label.outcome if label else None) == outcome
        self.events += 1
        self.joined += label is not None

    @rule(event_id=ids, outcome=st.integers(0, 1))
    def a_label(self, event_id, outcome):
        fate, event = self.join.add_label(Label(event_id, self.clock, outcome), self.clock)
        assert fate is self.naive.add_label(event_id, outcome, self.clock)
        assert (event is not None) == (fate is Fate.JOINED)
        assert event is None or event.id == event_id
        self.labels += 1
        self.joined += fate is Fate.JOINED
        self.settled += fate in (Fate.LATE, Fate.DUPLICATE, Fate.CORRECTED)

    @rule(by=st.integers(0, 15))
    def time_passes(self, by):
        self.clock += by
        expiry = self.join.advance(self.clock)
        gone, orphans = self.naive.advance(self.clock)
        assert [event.id for event in expiry.events] == gone
        assert expiry.orphans == orphans
        assert 0 <= expiry.evicted <= len(gone)
        self.gone += len(gone)
        self.orphans += orphans

    @rule()
    def it_is_kept_and_restored(self):
        kept = pickle.dumps(self.join)
        self.join.close()
        self.join = pickle.loads(kept)
        assert pickle.dumps(self.join) == kept
        self.attach()
        assert pickle.dumps(self.join) == kept

    def attach(self):
        if self.memory is not None:
            self.join.attach(Path(self.folder.name), self.memory)

    def teardown(self):
        if hasattr(self, "join"):
            self.join.close()
            assert list(Path(self.folder.name).iterdir()) == []
            self.folder.cleanup()

    @invariant()
    def the_books_balance(self):
        if hasattr(self, "join"):
            assert self.events == self.joined + self.gone + self.join.pending
            assert self.labels == self.joined + self.settled + self.orphans + self.join.waiting
            assert self.join.pending == len(self.naive.pending)
            assert self.join.waiting == len(self.naive.waiting)


JoinAgainstNaive.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestJoinAgainstNaive = JoinAgainstNaive.TestCase
