"""Why a record cannot be used: the reasons that dead letters carry and the books count."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "empty",
    "oversized",
    "malformed",
    "duplicate_key",
    "wrong_type",
    "missing_field",
    "out_of_bounds",
    "bad_time",
    "time_ahead",
    "bad_id",
    "bad_label",
    "unknown_kind",
    "feature_error",
    "oversized_batch",
    "unreadable_batch",
]
REASON_HEADER = "headrace-reason"
"""The first of the headers that a dead letter has more than the bad record had."""
UNREADABLE_HEADER = "headrace-unreadable"
"""On a record without a value: it stands for one that cannot be had of its batch; the reason is its value."""
