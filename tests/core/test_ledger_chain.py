"""The ledger's chain: nobody changes, inserts or removes a record unseen, and ledgers from before it open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.audit import Ledger
from core.chain import START, Link, check_chain, hash_after
from core.errors import StoreError

OLD = """
CREATE TABLE records (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, key TEXT NOT NULL, event_time INTEGER, written_at REAL NOT NULL, body TEXT NOT NULL,
    UNIQUE (kind, key));
"""
OPEN_TO_ALL = "DROP TRIGGER records_stay; DROP TRIGGER records_do_not_change;"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        for number in range(5):
            ledger.record("alert", f"w{number}", event_time=number, body={"reasons": [f"share 0.{number}"]})
    return path


def verify(path: Path):
    with closing(Ledger(path)) as ledger:
        return ledger.verify()


def edit(path: Path, statement: str) -> None:
    """What somebody does who can write the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OPEN_TO_ALL + statement)


def test_a_ledger_that_nobody_touched_is_whole(path: Path):
    found = verify(path)
    assert (found.records, found.unsealed, found.problems) == (5, 0, ())


@pytest.mark.parametrize("statement", ["DELETE FROM records", "UPDATE records SET body = '{}'"])
def test_records_are_neither_changed_nor_removed(path: Path, statement: str):
    with closing(Ledger(path)) as ledger, pytest.raises(StoreError, match="never"), ledger.transaction():
        ledger._connection.execute(statement)
    assert verify(path).problems == ()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE records SET body = '{}' WHERE key = 'w2'", "record 3, alert w2"),
        ("UPDATE records SET written_at = written_at + 1 WHERE key = 'w2'", "record 3, alert w2"),
        ("UPDATE records SET hash = NULL WHERE key = 'w2'", "record 3, alert w2: has no hash"),
        ("DELETE FROM records WHERE key = 'w2'", "record 3, alert w3"),
        ("UPDATE records SET key = 'x' || key, sequence = sequence + 10 WHERE key = 'w2'", "record 3, alert w3"),
    ],
)
def test_what_somebody_did_to_the_file_is_named(path: Path, statement: str, named: str):
    edit(path, statement)
    assert verify(path).problems[0].startswith(named)


def test_a_cut_off_end_shows_by_a_head_that_was_noted(path: Path):
    with closing(Ledger(path)) as ledger:
        noted = ledger.head()
    edit(path, "DELETE FROM records WHERE key = 'w4'")
    found = verify(path)
    assert found.problems == ()
    assert noted not in found.hashes


def test_a_ledger_from_before_the_chain_opens_and_is_sealed_by_what_follows(tmp_path: Path):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD)
        rows = [("alert", f"old{number}", number, 0.5, "{}") for number in range(3)]
        connection.executemany("INSERT INTO records (kind, key, event_time, written_at, body) VALUES (?,?,?,?,?)", rows)
        connection.commit()
    with closing(Ledger(path)) as ledger:
        assert [record.key for record in ledger.history()] == ["old0", "old1", "old2"]
        ledger.record("decision", "new", event_time=0, body={})
        ledger.record("decision", "new", event_time=0, body={"again": True})
        ledger.record("decision", "newer", event_time=0, body={})
        found = ledger.verify()
    assert (found.records, found.unsealed, found.problems) == (5, 3, ())
    edit(path, "UPDATE records SET body = '[]' WHERE key = 'old1'")
    assert verify(path).problems[0].startswith("record 4, decision new")


links = st.builds(
    Link,
    kind=st.sampled_from(["alert", "decision"]),
    key=st.text(max_size=5),
    event_time=st.none() | st.integers(0, 9),
    written_at=st.floats(0, 9),
    body=st.text(max_size=5),
)


def sealed(records: list[Link]) -> list[Link]:
    chain, head = [], START
    for record in records:
        head = hash_after(head, record)
        chain.append(replace(record, hash=head))
    return chain


@given(st.lists(links, min_size=1, max_size=8), st.data())
def test_whatever_is_changed_moved_or_taken_out_shows(records: list[Link], data: st.DataObject):
    chain = sealed(records)
    assert check_chain(chain).problems == ()
    place = data.draw(st.integers(0, len(chain) - 1))
    changed = data.draw(links.filter(lambda link: link != records[place]))
    assert check_chain([*chain[:place], replace(changed, hash=chain[place].hash), *chain[place + 1 :]]).problems
    assert check_chain([*chain[:place], *chain[place + 1 :]]).problems or place == len(chain) - 1
    other = data.draw(st.integers(0, len(chain) - 1))
    if other != place:
        chain[place], chain[other] = chain[other], chain[place]
        assert check_chain(chain).problems
