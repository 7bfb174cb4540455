"""Windows in quarantine are not trained on, until they are released."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.audit import LedgerRecord
from core.quarantine import outside, quarantined


def record(kind, at, **body):
    return LedgerRecord(kind, f"{kind}-{at}", at, 0.0, body)


def test_the_ledger_says_what_is_kept_out_at_a_moment():
    records = [
        record("quarantine", 10, span=[0, 10]),
        record("alert", 10, span=[0, 10]),
        record("quarantine", 20, span=[10, 20]),
        record("release", 40, spans=[[0, 10], [10, 20]]),
        record("quarantine", 50, span=[40, 50]),
    ]
    found = {moment: quarantined(records, moment) for moment in (9, 10, 39, 40, 50)}
    assert found == {9: [], 10: [(0, 10)], 39: [(0, 10), (10, 20)], 40: [], 50: [(40, 50)]}


@given(
    st.lists(st.integers(0, 100), max_size=50), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=5)
)
def test_what_is_outside_is_in_no_span(times, lengths):
    spans = [(start, start + length) for start, length in lengths]
    kept = outside(np.array(times, dtype=np.int64), spans)
    assert kept.tolist() == [not any(start <= time < end for start, end in spans) for time in times]
