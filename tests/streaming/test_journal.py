"""The journal: entries survive the way through the topic, and only those of the owner count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CheckpointError
from streaming.journal import (
    Batch,
    Entry,
    Ownership,
    Swap,
    TakeOver,
    Tick,
    digest_of,
    journal_record,
    picks_of,
    read_script,
)
from streaming.memory_broker import MemoryBroker
from streaming.transport import OutRecord, TopicPartition

PLACE = TopicPartition("journal", 0)
stamps = st.integers(-(2**62), 2**62)
actions = st.one_of(
    st.builds(
        Batch,
        st.lists(st.integers(0, 1), max_size=20).map(picks_of),
        st.dictionaries(st.integers(0, 255), stamps, max_size=3),
    ),
    st.builds(Tick, st.integers(0, 1), stamps),
    st.builds(Swap, st.none() | st.integers(1, 9)),
)
entries = st.builds(
    Entry,
    st.sampled_from(["a", "b"]),
    st.integers(0, 10**9),
    st.lists(actions, min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["x", "y"]), stamps),
    st.binary(min_size=8, max_size=8),
)


def read(contents, start: int = 0, before: Ownership | None = None):
    broker = MemoryBroker()
    broker.create_topics({PLACE.topic: 1})
    for content in [*contents, TakeOver("me")]:
        broker.append(journal_record(content, PLACE))
    return read_script(broker.consumer("g"), PLACE, start, before or Ownership(), "me", 5.0)


@given(st.lists(entries, max_size=6))
def test_entries_of_the_owner_come_back_as_they_were_written(written):
    script = read([TakeOver("a"), *written])
    assert [entry for _, entry in script.entries] == [entry for entry in written if entry.owner == "a"]
    assert (script.at, script.next_offset) == (Ownership("me", 2), len(written) + 2)


def test_who_was_taken_over_does_not_count_any_more_though_it_writes_on():
    late, new = (Entry(owner, 5, [Swap(None)], {}, b"") for owner in "ab")
    script = read([TakeOver("a"), TakeOver("b"), late, new, late])
    assert [entry.owner for _, entry in script.entries] == ["b"]
    assert script.entries[0][0] == 3


def test_reading_goes_on_from_a_snapshot_with_its_owner():
    entry = Entry("a", 5, [Swap(None)], {}, b"")
    script = read([TakeOver("a"), entry, entry], start=2, before=Ownership("a", 8))
    assert (len(script.entries), script.at) == (1, Ownership("me", 9))


@given(st.lists(st.integers(0, 3), max_size=50))
def test_runs_are_the_ranks_in_their_order(ranks):
    assert list(Batch(picks_of(ranks)).topics()) == ranks


def test_what_nobody_of_headrace_wrote_is_refused():
    broker = MemoryBroker()
    broker.create_topics({PLACE.topic: 1})
    broker.append(OutRecord(PLACE.topic, b"k", b"\xc1nonsense", None, 0))
    with pytest.raises(CheckpointError, match="nobody but headrace"):
        read_script(broker.consumer("g"), PLACE, 0, Ownership(), "me", 5.0)


def test_a_journal_that_begins_too_late_is_refused():
    broker = MemoryBroker()
    broker.create_topics({PLACE.topic: 1})
    broker.trim({PLACE: 7})
    with pytest.raises(CheckpointError, match=r"entry 3.*from 7 on.*retention\.ms=-1"):
        read_script(broker.consumer("g"), PLACE, 3, Ownership(), "me", 5.0)


def test_the_digest_tells_keys_from_values():
    one = digest_of([OutRecord("t", b"a", b"bc")])
    assert one != digest_of([OutRecord("t", b"ab", b"c")])
    assert one != digest_of([OutRecord("t", b"a", b"bc")] * 2)
    assert one == digest_of([OutRecord("u", b"a", b"bc", 5)])
