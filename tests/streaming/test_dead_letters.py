"""Dead letters read again and replayed: each learned once, whoever replays and whenever it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_lab import EVENTS, LABELS, START, event, label, make_machine, make_project, raw

from core.records import BadRecord
from streaming import dead_letters
from streaming.dead_letters import (
    Letters,
    Place,
    counts,
    fetch,
    own_headers,
    plain_publish,
    read_for_replay,
    read_letters,
    replay,
    replayed,
)
from streaming.memory_broker import MemoryBroker
from streaming.messages import MAX_DEAD_LETTER_BYTES, MAX_EXTRA_BYTES, dead_letter_message
from streaming.outputs import DeadLetter
from streaming.transport import OutRecord, RawRecord

DEAD = "small.dead-letters"


@pytest.fixture(autouse=True)
def no_quiet(monkeypatch):
    """A broker in memory shows at once what it has."""
    monkeypatch.setattr(dead_letters, "QUIET_S", 0.02)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def broker_with(*letters: DeadLetter, partitions: int = 2) -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topics({EVENTS: 1, LABELS: 1, DEAD: partitions})
    for letter in letters:
        broker.append(dead_letter_message(letter, DEAD))
    return broker


def letter_of(record: RawRecord, reason: str = "malformed") -> DeadLetter:
    return DeadLetter(record, BadRecord("event", reason, "what is wrong"))


def letters_in(broker: MemoryBroker, project) -> Letters:
    return read_letters(broker.consumer("g"), DEAD, len(broker._topics[DEAD]), project.settings)


def atomic(broker: MemoryBroker):
    def publish(records: list[OutRecord]) -> None:
        for record in records:
            broker.append(record)

    return publish


def replay_all(broker: MemoryBroker, project, publish) -> int:
    consumer = broker.consumer("g")
    letters = read_for_replay(consumer, publish, DEAD, len(broker._topics[DEAD]), project.settings)
    chosen = [x for x in letters.by_place.values() if not letters.replays[x.place] and not x.obstacle]
    replay(consumer, publish, DEAD, chosen)
    return len(chosen)


BAD = RawRecord(EVENTS, 0, 17, START, b"k", b'{"id": "e1", "at": 0, "x": "no number"}', (("trace", b"1"),))


def test_a_letter_says_where_it_came_from_and_whose_it_is(project):
    broker = broker_with(letter_of(BAD, "wrong_type"))
    ((place, found),) = letters_in(broker, project).by_place.items()
    assert (found.reason, found.detail, found.id, found.obstacle) == ("wrong_type", "what is wrong", "e1", "")
    assert (found.topic, found.partition, found.offset, found.timestamp) == (EVENTS, 0, 17, START)
    (record,) = fetch(broker.consumer("g"), DEAD, [place])
    assert record.value == BAD.value
    assert own_headers(record) == BAD.headers


def test_letters_are_counted_by_reason_and_topic(project):
    bad = [replace(BAD, offset=n, timestamp=START + n) for n in range(3)]
    broker = broker_with(*map(letter_of, bad), letter_of(raw(LABELS, 0, -5, b"x"), "bad_time"))
    replay_all(broker, project, atomic(broker))
    rows = counts(letters_in(broker, project))
    assert rows == [
        {
            "reason": "malformed",
            "topic": EVENTS,
            "letters": 3,
            "replayed": 3,
            "oldest": START,
            "newest": START + 2,
        },
        {"reason": "bad_time", "topic": LABELS, "letters": 1, "replayed": 1, "oldest": None, "newest": None},
    ]


def test_a_record_comes_back_as_it_was_and_says_what_it_repeats(project):
    broker = broker_with(letter_of(BAD), partitions=1)
    replay_all(broker, project, atomic(broker))
    (again,) = broker.records(EVENTS)
    assert (again.key, again.value, again.timestamp, again.partition) == (b"k", BAD.value, START, 0)
    assert again.headers == (("trace", b"1"), ("headrace-replay-of", f"{DEAD}/0/0".encode()))


def test_what_was_refused_for_its_time_is_sent_as_of_now(project):
    ahead, never = letter_of(BAD, "time_ahead"), letter_of(replace(BAD, timestamp=2**62), "bad_time")
    broker = broker_with(ahead, never)
    letters = letters_in(broker, project)
    for record in fetch(broker.consumer("g"), DEAD, letters.by_place):
        assert replayed(record, letters.by_place[Place(record.partition, record.offset)], DEAD).timestamp is None


@pytest.mark.parametrize(
    ("record", "reason", "why"),
    [
        (replace(BAD, value=b"x" * (MAX_DEAD_LETTER_BYTES + 1)), "oversized", "value was cut"),
        (replace(BAD, key=b"x" * (MAX_EXTRA_BYTES + 1)), "malformed", "key was cut"),
        (replace(BAD, headers=(("h", b"x" * MAX_EXTRA_BYTES),)), "malformed", "headers were left out"),
        (replace(BAD, headers=(("h", b""),) * 10_000), "malformed", "headers were left out"),
        (replace(BAD, key=None, value=None), "oversized_batch", "could not be had"),
        (replace(BAD, topic="renamed"), "malformed", "no input topic"),
    ],
)
def test_what_cannot_be_replayed_says_why_and_fits_a_broker(project, record, reason, why):
    message = dead_letter_message(letter_of(record, reason), DEAD)
    size = len(message.key or b"") + len(message.value or b"")
    assert size + sum(len(name) + len(value) + 8 for name, value in message.headers) < 1_000_000
    broker = broker_with(letter_of(record, reason))
    (found,) = letters_in(broker, project).by_place.values()
    assert why in found.obstacle
    assert replay_all(broker, project, atomic(broker)) == 0


def test_headers_that_a_producer_forges_mean_nothing(project):
    forged = (
        ("headrace-reason", b"empty"),
        ("headrace-truncated", b"9"),
        ("headrace-topic", b"elsewhere"),
        ("headrace-replayed", b"0:0"),
        ("headrace-clock", b""),
    )
    broker = broker_with(letter_of(replace(BAD, headers=forged)), partitions=1)
    letters = letters_in(broker, project)
    (found,) = letters.by_place.values()
    assert (found.reason, found.topic, found.obstacle, sum(letters.replays.values())) == ("malformed", EVENTS, "", 0)
    assert replay_all(broker, project, atomic(broker)) == 1
    assert [name for name, _ in broker.records(EVENTS)[0].headers] == ["headrace-replay-of"]


def test_after_a_fix_each_letter_is_learned_once(tmp_path):
    broken = "def features(fields, time):\n    return {'x': fields['x'] / (fields['x'] > 0)}\n"
    fixed = broken.replace(" / (fields['x'] > 0)", "")
    outputs = {"function": "code.py:features", "outputs": {"x": "number"}}
    before = make_project(tmp_path / "before", code=broken, features=outputs)
    machine = make_machine(before)
    events = [event(n, f"e{n}", START + n, x=float(n % 3 - 1)) for n in range(30)]
    labels = [label(n, f"e{n}", START + 100 + n, n % 2) for n in range(30)]
    letters = [out for out in machine.process(events) if isinstance(out, DeadLetter)]
    assert {letter.bad.reason for letter in letters} == {"feature_error"}
    broker = broker_with(*letters)

    assert replay_all(broker, before, atomic(broker)) == 20
    assert replay_all(broker, before, atomic(broker)) == 0
    after = make_machine(make_project(tmp_path / "after", code=fixed, features=outputs))
    after.process([record for record in events if record.offset % 3 == 2])
    after.process(broker.records(EVENTS))
    after.process(labels)
    assert (after.state.books.events.predicted, after.state.books.events.joined) == (30, 30)
    assert after.state.books.events.duplicates == 0


def test_a_replayed_record_that_is_bad_again_is_a_new_letter(project):
    broker = broker_with(letter_of(BAD), partitions=1)
    for round_ in range(3):
        assert replay_all(broker, project, atomic(broker)) == 1
        (letter,) = make_machine(project).process([broker.records(EVENTS)[-1]])
        broker.append(dead_letter_message(letter, DEAD))
        assert len(broker.records(EVENTS)) == round_ + 1
    assert len(letters_in(broker, project).by_place) == 4
    assert [name for name, _ in broker.records(EVENTS)[-1].headers] == ["trace", "headrace-replay-of"]


class KilledError(Exception):
    pass


def killed_at(broker: MemoryBroker, call: int, done: bool):
    """A publisher of transactions that is killed at its `call`-th one, before it or after it."""
    calls = Counter[str]()

    def publish(records: list[OutRecord]) -> None:
        calls["all"] += 1
        if calls["all"] == call and not done:
            raise KilledError
        atomic(broker)(records)
        if calls["all"] == call:
            raise KilledError

    return publish


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=6), st.integers(1, 3))
def test_with_transactions_each_letter_is_replayed_once_whenever_a_replay_is_killed(project, kills, partitions):
    bad = [replace(BAD, key=b"k%d" % n, offset=n) for n in range(9)]
    broker = broker_with(*map(letter_of, bad), partitions=partitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_letters, "_TOGETHER_RECORDS", 2)
        for call, done in kills:
            try:
                replay_all(broker, project, killed_at(broker, call, done))
            except KilledError:
                continue
        replay_all(broker, project, atomic(broker))
    assert sorted(record.key for record in broker.records(EVENTS)) == sorted(record.key for record in bad)


@pytest.mark.parametrize("survives", range(12))
def test_without_transactions_a_kill_loses_no_letter_and_a_repeated_one_says_that_it_is_the_same(project, survives):
    bad = [replace(BAD, offset=n) for n in range(4)]
    broker = broker_with(*map(letter_of, bad), partitions=1)
    producer, sent = broker.producer(), Counter[str]()
    send = producer.send

    def send_or_die(record: OutRecord) -> None:
        sent["all"] += 1
        if sent["all"] > survives:
            raise KilledError
        send(record)

    producer.send = send_or_die
    try:
        replay_all(broker, project, plain_publish(producer, DEAD))
    except KilledError:
        replay_all(broker, project, plain_publish(broker.producer(), DEAD))
    origins = Counter(dict(record.headers)["headrace-replay-of"] for record in broker.records(EVENTS))
    assert set(origins) == {f"{DEAD}/0/{n}".encode() for n in range(4)}
    assert max(origins.values()) <= 2


def test_a_replay_reads_up_to_its_own_mark_even_where_the_log_falls_silent(project):
    broker = broker_with(*(letter_of(replace(BAD, offset=n)) for n in range(5)), partitions=1)
    consumer = broker.consumer("g")
    poll, polls = consumer.poll, Counter[str]()

    def slow_poll(timeout_ms: int, max_records: int):
        polls["all"] += 1
        return poll(0, 1) if polls["all"] % 3 == 0 else []

    consumer.poll = slow_poll
    letters = read_for_replay(consumer, atomic(broker), DEAD, 1, project.settings)
    assert len(letters.by_place) == 5
