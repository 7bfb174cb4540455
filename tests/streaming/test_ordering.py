from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.ordering import CLOCK_HEADER, Merger, is_clock
from streaming.transport import RawRecord

TOPICS = ["events", "labels"]
END = 1_000


def record(topic: str, offset: int, stamp: int) -> RawRecord:
    return RawRecord(topic, 0, offset, stamp, None, b"x")


def clock(topic: str, offset: int, stamp: int) -> RawRecord:
    return RawRecord(topic, 0, offset, stamp, b"c", None, ((CLOCK_HEADER, b"1"),))


stamps = st.lists(st.integers(0, 30), max_size=12)
boundaries = st.sets(st.integers(1, 30), max_size=4)
coins = st.lists(st.booleans(), min_size=60, max_size=60)


def logs(times: dict[str, list[int]], said: set[int]) -> dict[str, list[RawRecord]]:
    """Each topic's log: its data, and between them the clock records that a replay would send."""
    made = {}
    for topic, stamps_ in times.items():
        rows: list[RawRecord] = []
        left = sorted(said)
        for stamp in [*stamps_, END]:
            while left and left[0] <= stamp:
                rows.append(clock(topic, len(rows), left.pop(0)))
            rows.append(record(topic, len(rows), stamp) if stamp < END else clock(topic, len(rows), END))
        made[topic] = rows
    return made


def merged(parts: dict[str, list[RawRecord]], order: list[bool], merger: Merger) -> list[RawRecord]:
    """Let records arrive in the given interleaving and take out all that is ready after each."""
    queues = {topic: list(rows) for topic, rows in parts.items()}
    out, turn = [], 0
    while any(queues.values()):
        topic = TOPICS[order[turn % len(order)]]
        turn += 1
        if not queues[topic]:
            topic = next(other for other in TOPICS if queues[other])
        merger.push(queues[topic].pop(0), 0.0)
        while (found := merger.next(0.0)) is not None:
            out.append(found)
    return out


def running(rows: list[RawRecord]) -> list[tuple[int, bool, int, int]]:
    """What the order is sorted by, for one topic's log."""
    high, keys = 0, []
    for row in rows:
        high = max(high, row.timestamp)
        keys.append((high, not is_clock(row), TOPICS.index(row.topic), row.offset))
    return keys


@settings(max_examples=200, deadline=None)
@given(stamps, stamps, boundaries, coins, coins)
def test_any_arrival_gives_the_same_order(events, labels, said, one, other):
    # a clock record is a promise: what follows is not earlier, so data are in order between them
    parts = logs({"events": sorted(events), "labels": sorted(labels)}, said)
    first = merged(parts, one, Merger(TOPICS, None, 0.0))
    assert first == merged(parts, other, Merger(TOPICS, None, 0.0))
    keys = {(r.topic, r.offset): key for rows in parts.values() for r, key in zip(rows, running(rows), strict=True)}
    assert sorted(first, key=lambda r: keys[r.topic, r.offset]) == first
    assert len(first) == sum(map(len, parts.values())), "nothing is lost"


@settings(max_examples=200, deadline=None)
@given(stamps, stamps, coins, coins)
def test_the_same_holds_where_time_stamps_go_back(events, labels, one, other):
    parts = logs({"events": events, "labels": labels}, set())
    data = [r for r in merged(parts, one, Merger(TOPICS, None, 0.0)) if not is_clock(r)]
    assert data == [r for r in merged(parts, other, Merger(TOPICS, None, 0.0)) if not is_clock(r)]
    keys = {(r.topic, r.offset): key for rows in parts.values() for r, key in zip(rows, running(rows), strict=True)}
    assert sorted(data, key=lambda r: keys[r.topic, r.offset]) == data
    assert len(data) == len(events) + len(labels)


@settings(max_examples=200, deadline=None)
@given(stamps, stamps, boundaries, coins)
def test_when_a_clock_record_comes_out_everything_earlier_has(events, labels, said, arrival):
    parts = logs({"events": sorted(events), "labels": sorted(labels)}, said)
    data = [row for rows in parts.values() for row in rows if not is_clock(row)]
    out = merged(parts, arrival, Merger(TOPICS, None, 0.0))
    for at, found in enumerate(out):
        if is_clock(found):
            assert all(row in out[:at] for row in data if row.timestamp < found.timestamp)


@settings(max_examples=200, deadline=None)
@given(stamps, stamps, coins, st.lists(st.floats(0, 0.4), min_size=60, max_size=60))
def test_with_time_outs_nothing_is_lost_and_each_topic_keeps_its_order(events, labels, arrival, pauses):
    parts = {"events": [record("events", n, s) for n, s in enumerate(events)]}
    parts["labels"] = [record("labels", n, s) for n, s in enumerate(labels)]
    merger, now, out = Merger(TOPICS, 0.2, 0.0), 0.0, []
    queues = {topic: list(rows) for topic, rows in parts.items()}
    for coin, pause in zip(arrival, pauses, strict=True):
        topic = TOPICS[coin] if queues[TOPICS[coin]] else TOPICS[not coin]
        now += pause
        if queues[topic]:
            merger.push(queues[topic].pop(0), now)
        while (found := merger.next(now)) is not None:
            out.append(found)
    while (found := merger.next(now + 1.0)) is not None:
        out.append(found)
    assert not any(queues.values())
    for topic in TOPICS:
        assert [r for r in out if r.topic == topic] == parts[topic]


@settings(max_examples=100, deadline=None)
@given(stamps, stamps, coins, st.integers(0, 30))
def test_a_restart_from_positions_and_clocks_goes_on_in_the_same_order(events, labels, arrival, cut):
    parts = logs({"events": events, "labels": labels}, set())
    whole = [r for r in merged(parts, arrival, Merger(TOPICS, None, 0.0)) if not is_clock(r)]
    merger, out = Merger(TOPICS, None, 0.0), []
    for rows in parts.values():
        for row in rows:
            merger.push(row, 0.0)
    while len(out) < min(cut, len(whole)) and (found := merger.next(0.0)) is not None:
        out.append(found)
    rest = {topic: [r for r in rows if r not in out] for topic, rows in parts.items()}
    again = merged(rest, arrival, Merger(TOPICS, None, 0.0, merger.clocks))
    assert [r for r in [*out, *again] if not is_clock(r)] == whole


def test_a_record_waits_for_a_silent_topic_only_so_long():
    merger = Merger(TOPICS, 0.2, 0.0)
    merger.push(record("labels", 0, 5), 0.1)
    assert merger.next(0.19) is None
    assert merger.next(0.2) == record("labels", 0, 5)


def test_events_go_first_at_the_same_time():
    merger = Merger(TOPICS, None, 0.0)
    merger.push(record("labels", 0, 5), 0.0)
    assert merger.next(0.0) is None
    merger.push(record("events", 0, 5), 0.0)
    assert [merger.next(0.0).topic, merger.next(0.0)] == ["events", None]
    merger.push(record("events", 1, 6), 0.0)
    assert merger.next(0.0).topic == "labels"


def test_an_absurd_time_stamp_does_not_end_the_order():
    merger = Merger(TOPICS, None, 0.0)
    merger.push(record("events", 0, 5), 0.0)
    merger.push(record("events", 1, 10**18), 0.0)
    merger.push(record("events", 2, 9), 0.0)
    merger.push(record("labels", 0, 7), 0.0)
    merger.push(record("labels", 1, 11), 0.0)
    assert [(r.topic, r.offset) for r in iter(lambda: merger.next(0.0), None)] == [
        ("events", 0),
        ("events", 1),
        ("labels", 0),
        ("events", 2),
    ]


def test_only_an_empty_value_with_the_header_is_a_clock_record():
    assert is_clock(clock("events", 0, 5))
    assert not is_clock(RawRecord("events", 0, 0, 5, None, None))
    assert not is_clock(RawRecord("events", 0, 0, 5, None, b"x", ((CLOCK_HEADER, b"1"),)))


def test_one_topic_needs_no_waiting():
    merger = Merger(["all"], None, 0.0)
    merger.push(record("all", 0, 9), 0.0)
    merger.push(record("all", 1, 3), 0.0)
    assert [merger.next(0.0).offset, merger.next(0.0).offset, merger.next(0.0)] == [0, 1, None]
    assert merger.clocks == {"all": 9}
