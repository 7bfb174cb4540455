from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.errors import StoreError
from streaming.deadlines import Deadlines
from streaming.join import LabelJoin, Predicted

QUEUES = 2
IDS = st.sampled_from(["a", "b", "c", "d", "e", "é", "\x00", "a\x00", "\U0001f600", "", "\uffff"])
DEADLINES = st.integers(0, 6)


def encode(queue: int, value: str) -> bytes:
    return f"{queue}{value}".encode()


def decode(queue: int, content: bytes) -> str:
    assert content.decode()[0] == str(queue)
    return content.decode()[1:]


def make(folder, most: int | None) -> Deadlines[str]:
    made = Deadlines(QUEUES, encode, decode)
    if most is not None:
        made.attach(folder, most)
    return made


def fill(ids: Deadlines[str], count: int) -> None:
    for number in range(count):
        ids.put(number % QUEUES, number * 7 % 1_000, f"id{number}", f"value {number}")


class AgainstADictionary(RuleBasedStateMachine):
    """Whatever the bound, it does what one dictionary without any bound does."""

    @initialize(most=st.sampled_from([None, 0, 1, 5, 20]))
    def begin(self, most):
        self.folder = Path(tempfile.mkdtemp())
        self.most = most
        self.ids = make(self.folder, most)
        self.model: dict[str, tuple[int, int, str]] = {}

    @rule(queue=st.integers(0, QUEUES - 1), deadline=DEADLINES, entry_id=IDS, value=st.text(max_size=3))
    def put(self, queue, deadline, entry_id, value):
        self.ids.put(queue, deadline, entry_id, value)
        self.model[entry_id] = (queue, deadline, value)

    @rule(entry_id=IDS)
    def discard(self, entry_id):
        self.ids.discard(entry_id)
        self.model.pop(entry_id, None)

    @rule(entry_id=IDS)
    def look_up(self, entry_id):
        assert self.ids.get(entry_id) == self.model.get(entry_id)
        assert self.ids.queue_of(entry_id) == (self.model[entry_id][0] if entry_id in self.model else None)

    @rule(queue=st.integers(0, QUEUES - 1), clock=DEADLINES, most=st.integers(0, 6))
    def let_go(self, queue, clock, most):
        while True:
            mine = {entry_id: entry for entry_id, entry in self.model.items() if entry[0] == queue}
            first = min(mine, key=lambda entry_id: (mine[entry_id][1], entry_id), default=None)
            popped = self.ids.pop_due(queue, clock, most)
            if first is None or (mine[first][1] >= clock and len(mine) <= most):
                assert popped is None
                return
            assert popped == (mine[first][1], first, mine[first][2])
            del self.model[first]

    @rule(most=st.sampled_from([None, 0, 1, 5, 20]))
    def it_is_kept_and_restored(self, most):
        pieces = list(self.ids.dump())
        self.ids.close()
        self.ids, self.most = make(self.folder, None), most
        self.ids.restore(pieces)
        assert list(self.ids.dump()) == pieces
        if most is not None:
            self.ids.attach(self.folder, most)
            assert list(self.ids.dump()) == pieces

    @precondition(lambda self: getattr(self, "most", None) is None)
    @rule(most=st.integers(0, 5))
    def it_gets_a_bound(self, most):
        self.most = most
        self.ids.attach(self.folder, most)

    @invariant()
    def it_holds_the_same_within_its_bound(self):
        if not hasattr(self, "ids"):
            return
        for queue in range(QUEUES):
            assert self.ids.count(queue) == sum(entry[0] == queue for entry in self.model.values())
        assert self.ids.in_memory + self.ids.on_disk == len(self.model)
        assert self.most is None or self.ids.in_memory <= self.most

    @invariant()
    def equal_content_gives_equal_pieces(self):
        if not hasattr(self, "ids"):
            return
        other = make(self.folder, None)
        for entry_id, (queue, deadline, value) in reversed(self.model.items()):
            other.put(queue, deadline, entry_id, value)
        assert list(self.ids.dump()) == list(other.dump())

    def teardown(self):
        if hasattr(self, "ids"):
            assert list(self.folder.iterdir()) == []
            self.ids.close()
            self.folder.rmdir()


AgainstADictionary.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAgainstADictionary = AgainstADictionary.TestCase


@pytest.mark.parametrize("most", [0, 10, 500, 3_000])
def test_thousands_of_entries_come_out_in_order_from_a_small_memory(tmp_path, most):
    ids, unbounded = make(tmp_path, most), make(tmp_path, None)
    for made in (ids, unbounded):
        fill(made, 10_000)
    assert ids.in_memory <= most
    pieces = list(ids.dump())
    assert pieces == list(unbounded.dump())
    restored = make(tmp_path, None)
    restored.restore(pieces)
    restored.attach(tmp_path, most)
    assert restored.in_memory <= most
    expected = sorted((n * 7 % 1_000, f"id{n}", f"value {n}") for n in range(0, 10_000, QUEUES))
    for made in (ids, unbounded, restored):
        assert [made.pop_due(0, 1_000, 0) for _ in expected] == expected
        assert made.pop_due(0, 1_000, 0) is None
        assert made.count(1) == 5_000


def test_what_left_is_not_remembered_in_any_heap():
    ids = make(None, None)
    for number in range(20_000):
        ids.put(0, 10**6, f"id{number}", "")
        ids.put(1, 10**6, f"id{number}", "")
        ids.discard(f"id{number}")
    assert ids.in_memory == 0
    assert max(len(heap) for heap in ids._heaps) < 1_500


def test_no_file_is_made_before_memory_is_full_and_none_can_be_seen_after(tmp_path):
    ids = make(tmp_path / "made" / "when needed", 100)
    fill(ids, 100)
    assert list(tmp_path.iterdir()) == []
    fill(ids, 5_000)
    assert ids.on_disk >= 4_900
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "when needed"]
    ids.close()


def test_a_folder_that_cannot_be_used_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    ids = make(tmp_path / "file", 1)
    with pytest.raises(StoreError, match=r"file: .*max_in_memory"):
        fill(ids, 10)


def test_an_error_of_the_disk_is_explained(tmp_path):
    ids = make(tmp_path, 1)
    fill(ids, 10)
    ids.close()
    calls = [
        lambda: ids.get("id0"),
        lambda: ids.queue_of("id0"),
        lambda: fill(ids, 10),
        lambda: list(ids.dump()),
        lambda: [ids.pop_due(0, 1_000, 0) for _ in range(5)],
    ]
    for call in calls:
        with pytest.raises(StoreError, match="make room"):
            call()


@given(st.lists(st.floats() | st.integers(0, 1) | st.booleans() | st.none() | st.text(), max_size=8))
def test_an_event_comes_back_from_disk_to_the_bit(values):
    floats = {str(n): value for n, value in enumerate(values) if type(value) is float}
    features = {f"f{n}": value for n, value in enumerate(values)}
    predictions = {"champion": floats, "linear": 0.1 + 0.2} if floats else {"linear": -0.0}
    event = Predicted(7, "e\x00é", 10, 12, 3, 2**40, None, features, predictions, floats or None)
    join = LabelJoin(100, 10)
    with tempfile.TemporaryDirectory() as folder:
        join.attach(Path(folder), 0)
        join.add_event(event)
        assert (join.in_memory, join.on_disk) == (0, 1)
        back = join.advance(1_000).events[0]
        join.close()
    assert exactly(back) == exactly(event)


def exactly(event) -> list:
    def exact(value):
        if isinstance(value, dict):
            return [(name, exact(inner)) for name, inner in value.items()]
        if type(value) is float:
            return "nan" if math.isnan(value) else value.hex()
        return (type(value), value)

    return [exact(getattr(event, name)) for name in event.__slots__]
