from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.books import Books, EventBook, LabelBook, total


def balanced() -> Books:
    events = EventBook(
        received=10, predicted=7, dead_lettered=2, duplicates=1, joined=3, implied=1, expired=2, pending=1
    )
    labels = LabelBook(9, joined=3, waiting=1, late=1, orphaned=1, duplicates=1, corrected=1, dead_lettered=1)
    return Books(events, labels, {"empty": 1, "malformed": 2})


def test_books_that_balance():
    assert balanced().imbalances() == []
    assert Books().imbalances() == []


COUNTERS = [("events", f.name) for f in fields(EventBook)] + [("labels", f.name) for f in fields(LabelBook)]
ASIDE = {("events", name) for name in ("evicted", "erased", "unknown_fields", "canary")}  # parts of others


@pytest.mark.parametrize(("book", "counter"), [c for c in COUNTERS if c not in ASIDE])
def test_every_counter_is_watched(book, counter):
    books = balanced()
    setattr(getattr(books, book), counter, getattr(getattr(books, book), counter) + 1)
    assert books.imbalances()


def test_reasons_are_watched():
    books = balanced()
    books.reasons["empty"] += 1
    assert "dead letters by reason" in books.imbalances()[0]


@given(st.lists(st.lists(st.integers(0, 9), min_size=len(COUNTERS), max_size=len(COUNTERS)), max_size=4))
def test_totals_add_up_and_json_restores(all_counts):
    books = []
    for counts in all_counts:
        book = Books(reasons={"empty": counts[0]})
        for (which, name), count in zip(COUNTERS, counts, strict=True):
            setattr(getattr(book, which), name, count)
        books.append(Books.from_dict(book.as_dict()))
        assert books[-1] == book
    summed = total(books)
    for index, (which, name) in enumerate(COUNTERS):
        assert getattr(getattr(summed, which), name) == sum(counts[index] for counts in all_counts)
    assert summed.reasons.get("empty", 0) == sum(counts[0] for counts in all_counts)
