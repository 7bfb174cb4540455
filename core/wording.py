"""How numbers of things are written for people. Pure."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Write a count of something.

    Examples
    --------
    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
